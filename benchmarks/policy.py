"""
Time one action of a policy, part by part, beside ``model.generate`` with a logits mask.

    python benchmarks/policy.py                                      # the shipped checkpoint
    python benchmarks/policy.py --case paligemma288m --quantization nf4
    python benchmarks/policy.py --case openvla7b --quantization nf4 --device cuda --frames 1000
    python benchmarks/policy.py --checkpoint DIR --output out/policy.json

Cases other than a checkpoint have the shapes of a real model and random weights. All ways run in
turn in one process, so that other load on the machine meets all of them, and what counts is the
ratio: above 1 means that ours is faster. Parts are timed in runs of their own, step by step; on a
GPU that is without CUDA graphs, and the rows 'as it runs' are with them.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from dataclasses import dataclass
import json
from pathlib import Path
from time import perf_counter
from typing import Any

from masked_generate import agreement
from masked_generate import Inputs
from masked_generate import MaskedGenerate
from part_times import choosing_ms
from part_times import count_flop
from part_times import head_ms
from part_times import PartTimer
from part_times import step_bytes
from peaks import describe_machine
from peaks import measure_peaks
from peaks import synchronise
from policy_cases import Case
from policy_cases import CASES
from policy_cases import open_case
from policy_cases import random_frames
from policy_result import BFLOAT16
from policy_result import FIRST
from policy_result import GENERATE
from policy_result import OTHERS
from policy_result import OURS
from policy_result import percentiles
from policy_result import rates
from policy_result import show
from policy_result import speedup
import psutil
import torch
from torch import nn
import typer

from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.policy.decoding import Decoding
from vla_policy_node.policy.failures import give_back_memory
from vla_policy_node.policy.loading import DTYPES
from vla_policy_node.policy.memory import measure_memory
from vla_policy_node.policy.memory import PeakMemory
from vla_policy_node.policy.quantization import is_quantized
from vla_policy_node.policy.quantization import QUANTIZATIONS

_WARM_UPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is measured, and how; as on the command line."""

    case: str = 'tabletop'
    checkpoint: str = ''
    device: str = 'cpu'
    dtype: str = 'bfloat16'
    quantization: str = 'none'
    threads: int = 1
    rounds: int = 20
    frames: int = 20
    prompt_tokens: int = 280
    against_bf16: bool = False


class Ours:
    """Constrained decoding as it runs in the node, under the same name of call as the others."""

    def __init__(self, decoder: ConstrainedDecoder) -> None:
        self.decoder = decoder
        self.latest: Decoding | None = None

    def __call__(self, inputs: Inputs) -> list[int]:
        """Return the ids of one action; ``latest`` says the rest."""
        self.latest = self.decoder.decode(inputs)
        return self.latest.token_ids.tolist()


def measure(options: Options) -> dict[str, Any]:
    """Return everything there is to say, as it is written to the JSON."""
    torch.set_num_threads(options.threads)
    case, ours, memory = _start(options)
    steps = ours
    if case.model.device.type == 'cuda':
        steps = Ours(ConstrainedDecoder(case.model, case.tokenizer, graphs=lambda work: work))
    frames = random_frames(options.frames, case.n_cameras)
    # On a CPU our layers are packed, which would help generate too.
    plain = _open(options, options.dtype, options.quantization, plain=True) \
        if case.model.device.type == 'cpu' else case
    ways = {OURS: ours, GENERATE: MaskedGenerate(plain.model, case.tokenizer)}
    work = _work(case, steps.decoder, case.preprocess(frames[0]))
    same = {name: agreement(map(case.preprocess, frames), ours, other)
            for name, other in ((GENERATE, ways[GENERATE]), ('step by step', steps))
            if other is not ours}
    if options.against_bf16:
        plain = _open(options, 'bfloat16', 'none', plain=True)
        ways[BFLOAT16] = MaskedGenerate(plain.model, case.tokenizer)
        ways[BFLOAT16](case.preprocess(frames[0]))
    times = _time(case, ways, steps.decoder, frames, options.rounds)
    peaks = measure_peaks(case.model.device, DTYPES[options.dtype])
    ms = {name: percentiles(values) for name, values in times.items()}
    n_tokens = len(case.tokenizer.fixed_places)
    return {
        **asdict(options), 'machine': describe_machine(case.model.device),
        'parameters': _count_parameters(case.model), 'action_tokens': n_tokens,
        'prompt_positions': _positions(case.model, case.preprocess(frames[0])),
        'ms': ms, 'tokens_per_s': 1e3 * n_tokens / ms[OURS]['p50'],
        'peaks': peaks, 'work': work, 'rates': rates(ms, work, peaks),
        'speedup': {name: speedup(times[name], times[OURS]) for name in ways if name != OURS},
        'same_tokens': same, 'memory_bytes': memory,
    }


def _open(options: Options, dtype: str, quantization: str, plain: bool = False) -> Case:
    return open_case(options.case, options.checkpoint, options.device, dtype, quantization,
                     options.prompt_tokens, plain)


def _start(options: Options) -> tuple[Case, Ours, dict[str, int]]:
    """Load and warm up; return also the memory it takes, while nothing else has run yet."""
    before = psutil.Process().memory_info().rss
    with PeakMemory(options.device) as loading:
        case = _open(options, options.dtype, options.quantization)
    if case.tokenizer.fixed_places is None:
        raise typer.BadParameter('expected a checkpoint of which the legal tokens of every place '
                                 'are known beforehand, found one that writes freely')
    give_back_memory()
    ours = Ours(ConstrainedDecoder(case.model, case.tokenizer))
    loaded = psutil.Process().memory_info().rss
    with PeakMemory(options.device) as running:
        for frame in random_frames(_WARM_UPS, case.n_cameras):
            ours(case.preprocess(frame))
    parts = asdict(measure_memory(case.model, 0))
    del parts['peak']
    memory = {f'weights of {part}': size for part, size in parts.items()}
    if case.model.device.type == 'cuda':
        memory |= {'peak of loading': loading.bytes, 'peak of decoding': running.bytes,
                   'peak reserved': torch.cuda.max_memory_reserved(case.model.device)}
    else:
        memory |= {'process before': before, 'peak of loading': before + loading.bytes,
                   'process loaded': loaded, 'peak of decoding': loaded + running.bytes}
    return case, ours, memory


def _time(
    case: Case, ways: Mapping[str, Callable], steps: ConstrainedDecoder, frames: Sequence,
    rounds: int,
) -> dict[str, list[float]]:
    """Return the milliseconds of everything, one of each per round."""
    timer = PartTimer(case.model)
    times: dict[str, list[float]] = {}
    for place in range(rounds):
        start_s = perf_counter()
        inputs = case.preprocess(frames[place % len(frames)])
        synchronise(case.model.device)
        ms = {'preprocess': _since_ms(start_s)}
        # Alternating the order keeps each from always following the same other one.
        for name in list(ways)[::1 if place % 2 else -1]:
            start_s = perf_counter()
            ways[name](inputs)
            ms[name] = _since_ms(start_s)
        decoding = ways[OURS].latest
        ms |= {FIRST: decoding.prefill_ms, OTHERS: decoding.decode_ms}
        start_s = perf_counter()
        case.finish(decoding)
        finish_ms = _since_ms(start_s)
        ms |= timer.decode(steps, inputs)
        ms |= {'head, all rows': head_ms(case.model),
               'choosing a token': choosing_ms(case.model, case.tokenizer),
               'un-normalise': finish_ms}
        for name, value in ms.items():
            times.setdefault(name, []).append(value)
    return times


def _since_ms(start_s: float) -> float:
    return 1e3 * (perf_counter() - start_s)


def _work(case: Case, decoder: ConstrainedDecoder, inputs: Inputs) -> dict[str, float]:
    """Return the operations of vision and prefill, and what a decode step reads on average."""
    flop = count_flop(case.model, decoder, inputs)
    positions = _positions(case.model, inputs) + len(case.tokenizer.fixed_places) / 2
    return {'vision_flop': flop['vision'], 'prefill_flop': flop['prefill'],
            'step_bytes': step_bytes(case.model, positions)}


def _positions(model: nn.Module, inputs: Inputs) -> int:
    """Return how many positions of the language model a prompt takes."""
    return inputs['input_ids'].shape[1] + getattr(model.config, 'image_columns', 0)


def _count_parameters(model: nn.Module) -> int:
    """Return how many numbers there are, however they are stored."""
    layers = [layer for layer in model.modules() if is_quantized(layer)]
    packed = {id(layer.weight) for layer in layers}
    return (sum(layer.in_features * layer.out_features for layer in layers)
            + sum(p.numel() for p in model.parameters() if id(p) not in packed))


def main(
    case: str = typer.Option('tabletop', help=f'One of {", ".join(CASES)}.'),
    checkpoint: str = typer.Option('', help='A checkpoint directory, instead of a case.'),
    device: str = typer.Option('cpu', help='cpu or cuda.'),
    dtype: str = typer.Option('bfloat16', help='Of what is not quantised.'),
    quantization: str = typer.Option('none', help='none, nf4 or int8.'),
    threads: int = typer.Option(1, min=1, help='CPU threads.'),
    rounds: int = typer.Option(20, min=1, help='Timed rounds of everything.'),
    frames: int = typer.Option(20, min=1, help='Random frames of which tokens are compared.'),
    prompt_tokens: int = typer.Option(280, min=1, help='Positions; of random models.'),
    against_bf16: bool | None = typer.Option(
        None, help='Also compare with generate on the weights before they were quantised; by '
                   'default where a CPU has room for them.'),
    output: str = typer.Option('', help='Where to write the JSON.'),
) -> None:
    """Time one action, part by part, beside generate with a logits mask."""
    for name, value, allowed in (('case', case, CASES), ('dtype', dtype, DTYPES),
                                 ('quantization', quantization, QUANTIZATIONS)):
        if value not in allowed:
            raise typer.BadParameter(f'expected {name} to be one of {", ".join(allowed)}, '
                                     f'found {value!r}')
    if torch.device(device).type == 'cuda' and not torch.cuda.is_available():
        raise typer.BadParameter('expected a GPU that torch can use, found none; use --device cpu')
    if against_bf16 is None:
        against_bf16 = device == 'cpu' and quantization != 'none' and case != 'openvla7b'
    result = measure(Options(
        case=case, checkpoint=checkpoint, device=device, dtype=dtype, quantization=quantization,
        threads=threads, rounds=rounds, frames=frames, prompt_tokens=prompt_tokens,
        against_bf16=against_bf16))
    show(result)
    if output:
        path = Path(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')


if __name__ == '__main__':
    typer.run(main)
