"""
Compare constrained decoding with ``model.generate`` and a logits mask, on the same weights.

    python benchmarks/decode.py                             # the shipped checkpoint, or its size
    python benchmarks/decode.py --family paligemma288m --rounds 10
    python benchmarks/decode.py --quantization nf4 --output out/decode.json

Both run interleaved in one process, so that other load on the machine meets both. What counts is
the ratio: at most 1 means that constrained decoding is not slower.
"""

from collections.abc import Callable
import json
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
import torch
from torch import nn
from transformers import GemmaConfig
from transformers import GenerationConfig
from transformers import LlamaConfig
from transformers import LlavaConfig
from transformers import LlavaForConditionalGeneration
from transformers import LogitsProcessorList
from transformers import PaliGemmaConfig
from transformers import PaliGemmaForConditionalGeneration
from transformers import SiglipVisionConfig
import typer

from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.action_tokenizer import AddedTokens
from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.policy.inputs import InputBuilder
from vla_policy_node.policy.loading import DTYPES
from vla_policy_node.policy.loading import load_model
from vla_policy_node.prompts import build_action_prompt

Inputs = dict[str, torch.Tensor]
SHIPPED = Path(__file__).resolve().parents[1] / 'models' / 'tabletop'
PERCENTILES = (5, 50, 95, 99)


def main(
    family: str = typer.Option('tiny', help='tiny or paligemma288m (random weights).'),
    checkpoint: str = typer.Option('', help='A checkpoint directory, instead of a family.'),
    rounds: int = typer.Option(50, min=1, help='Timed rounds of each.'),
    threads: int = typer.Option(1, min=1, help='CPU threads.'),
    device: str = typer.Option('cpu', help='cpu or cuda.'),
    dtype: str = typer.Option('bfloat16', help='Of what is not quantised.'),
    quantization: str = typer.Option('none', help='none, nf4 or int8; of a checkpoint.'),
    output: str = typer.Option('', help='Where to write the JSON.'),
) -> None:
    """Time both ways of decoding and print the ratio."""
    torch.set_num_threads(threads)
    if not checkpoint and family == 'tiny' and SHIPPED.is_dir():
        checkpoint = str(SHIPPED)
    if checkpoint:
        case = from_checkpoint(checkpoint, device, dtype, quantization)
    elif quantization != 'none':
        raise typer.BadParameter('random weights are not quantised; give --checkpoint')
    else:
        case = random_model(family, device, DTYPES[dtype])
    result = compare(*case, rounds)
    result |= {'model': checkpoint or family, 'dtype': dtype, 'quantization': quantization,
               'device': device, 'threads': threads, 'rounds': rounds}
    show(result)
    if output:
        path = Path(output)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, indent=2) + '\n')


def compare(model: nn.Module, tokenizer: ActionTokenizer, inputs: Inputs, rounds: int) -> dict:
    """Return percentiles in ms of both, the ratio, and whether the tokens agree."""
    decoder = ConstrainedDecoder(model, tokenizer)
    masked = masked_generate(model, tokenizer, inputs)
    ways: dict[str, Callable[[], Any]] = {
        'constrained decoding': lambda: decoder.decode(inputs),
        'generate with a mask': masked,
    }
    same = decoder.decode(inputs).token_ids.tolist() == masked()
    times_ms: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds):
        # Alternating the order keeps either from always following the other's cache contents.
        for name in list(ways)[:: 1 if round_ % 2 else -1]:
            start = perf_counter()
            ways[name]()
            times_ms[name].append(1e3 * (perf_counter() - start))
    ours, theirs = (np.array(times) for times in times_ms.values())
    return {
        'parameters': sum(parameter.numel() for parameter in model.parameters()),
        'prompt_tokens': inputs['input_ids'].shape[1],
        'action_tokens': tokenizer.sequence_length,
        'same_tokens': same,
        'ratio_of_medians': float(np.median(ours) / np.median(theirs)),
        'median_of_paired_ratios': float(np.median(ours / theirs)),
        'ms': {name: {f'p{p}': float(np.percentile(times, p)) for p in PERCENTILES}
               for name, times in times_ms.items()},
    }


def masked_generate(
    model: nn.Module, tokenizer: ActionTokenizer, inputs: Inputs
) -> Callable[[], list[int]]:
    """Return transformers' own way: the full head and a mask, precomputed for every place."""
    if tokenizer.sequence_length is None:
        raise typer.BadParameter('this comparison needs one token per bin')
    vocabulary = model.get_output_embeddings().weight.shape[0]
    masks, produced = [], []
    for _ in range(tokenizer.sequence_length):
        legal = tokenizer.legal_next(produced).tolist()
        mask = torch.full((vocabulary,), -torch.inf, device=model.device)
        mask[legal] = 0.0
        masks.append(mask)
        produced.append(legal[0])
    prompt_length = inputs['input_ids'].shape[1]
    config = GenerationConfig(
        max_new_tokens=len(masks), do_sample=False, eos_token_id=None, pad_token_id=0
    )

    def processor(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        return scores + masks[input_ids.shape[1] - prompt_length]

    def run() -> list[int]:
        with torch.inference_mode():
            ids = model.generate(
                **inputs, generation_config=config,
                logits_processor=LogitsProcessorList([processor]),
            )
        return ids[0, prompt_length:].tolist()

    return run


def from_checkpoint(
    checkpoint: str, device: str, dtype: str, quantization: str
) -> tuple[nn.Module, ActionTokenizer, Inputs]:
    """Return a checkpoint's model and tokenizer, and inputs of one random image per camera."""
    loaded = load_model(checkpoint, device=device, dtype=dtype, quantization=quantization)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*(camera.size or (224, 224)), 3), np.uint8)
              for camera in loaded.config.cameras]
    builder = InputBuilder(loaded.processor, chat=loaded.config.prompt.kind == 'chat',
                           device=device, dtype=loaded.dtype)
    prompt = build_action_prompt(loaded.config.prompt, 'pick up the red block')
    return loaded.model, loaded.tokenizer, builder.build(prompt, images)


def random_model(
    family: str, device: str, dtype: torch.dtype
) -> tuple[nn.Module, ActionTokenizer, Inputs]:
    """Return a random model, a tokenizer over its last 256 ids, and random inputs."""
    makers = {'tiny': tiny_llava, 'paligemma288m': paligemma}
    if family not in makers:
        raise typer.BadParameter(f'expected one of {", ".join(makers)}, found {family!r}')
    torch.manual_seed(0)
    model, image_size, n_patches = makers[family]()
    model = model.to(device, dtype).eval()
    image_token = model.config.image_token_id
    words = torch.arange(3, 20)
    ids = torch.cat([torch.full((n_patches,), image_token), words])[None].to(device)
    inputs = {
        'input_ids': ids,
        'attention_mask': torch.ones_like(ids),
        'pixel_values': torch.rand(1, 3, image_size, image_size).to(device, dtype),
    }
    if family == 'paligemma288m':
        inputs['token_type_ids'] = torch.zeros_like(ids)
    vocabulary = model.get_output_embeddings().weight.shape[0]
    return model, AddedTokens(first_id=vocabulary - 256), inputs


def tiny_llava() -> tuple[nn.Module, int, int]:
    """Return a LLaVA of 3 million parameters, as large as the shipped one."""
    config = LlavaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=192, intermediate_size=768, num_hidden_layers=3, num_attention_heads=3,
            image_size=96, patch_size=12, vision_use_head=False,
        ),
        text_config=LlamaConfig(
            vocab_size=320, hidden_size=192, intermediate_size=512, num_hidden_layers=4,
            num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=512,
        ),
        image_token_index=2, vision_feature_select_strategy='full', vision_feature_layer=-1,
    )
    return LlavaForConditionalGeneration(config), 96, 64


def paligemma() -> tuple[nn.Module, int, int]:
    """Return a PaliGemma with the real vocabulary of 257216 and a small language model."""
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(
            hidden_size=384, intermediate_size=1536, num_hidden_layers=12, num_attention_heads=6,
            image_size=224, patch_size=14, vision_use_head=False,
        ),
        text_config=GemmaConfig(
            vocab_size=257216, hidden_size=768, intermediate_size=3072, num_hidden_layers=8,
            num_attention_heads=6, num_key_value_heads=1, head_dim=128,
        ),
        image_token_index=2, projection_dim=768,
    )
    return PaliGemmaForConditionalGeneration(config), 224, 256


def show(result: dict) -> None:
    """Print a table and the ratio."""
    model = f'{result["model"]}, {result["parameters"] / 1e6:.1f} M parameters'
    table = Table(title=f'{model}, {result["dtype"]}, quantization {result["quantization"]}')
    table.add_column('')
    for percentile in PERCENTILES:
        table.add_column(f'p{percentile} [ms]', justify='right')
    for name, percentiles in result['ms'].items():
        table.add_row(name, *(f'{value:.1f}' for value in percentiles.values()))
    console = Console()
    console.print(table)
    console.print(
        f'ratio {result["ratio_of_medians"]:.3f} (of medians), '
        f'{result["median_of_paired_ratios"]:.3f} (median of pairs); '
        f'same tokens: {result["same_tokens"]}'
    )


if __name__ == '__main__':
    typer.run(main)
