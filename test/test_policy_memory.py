"""What a model takes is told by part; what runs out of memory gives everything back."""

import gc
import logging
import weakref

import bitsandbytes
from policy_contract import observation
from policy_models import save_llava
from policy_models import save_paligemma
import pytest
import torch

from vla_policy_node.policy import is_out_of_memory
from vla_policy_node.policy import load_policy
from vla_policy_node.policy import PolicyError
from vla_policy_node.policy import PolicyMemoryError
from vla_policy_node.policy import weights
from vla_policy_node.policy.failures import named_failures
from vla_policy_node.policy.loading import load_model
from vla_policy_node.policy.memory import MemoryReport
from vla_policy_node.policy.memory import PeakMemory

pytestmark = pytest.mark.slow

EXACT = {'quantization': 'none', 'dtype': 'float32'}
LAYERS = 'model.language_model.layers.'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp('llava'))


def sizes(model, prefix):
    return sum(p.nbytes for name, p in model.named_parameters() if name.startswith(prefix))


class TestReport:
    def test_unquantised_parts_are_their_parameters_and_buffers(self, checkpoint):
        loaded = load_model(checkpoint, **EXACT)
        model, memory = loaded.model, loaded.memory
        rotary = sum(b.nbytes for n, b in model.named_buffers() if 'language_model' in n)
        positions = sum(b.nbytes for n, b in model.named_buffers() if 'vision_tower' in n)
        assert memory.vision == sizes(model, 'model.vision_tower.') + positions
        assert memory.projector == sizes(model, 'model.multi_modal_projector.')
        assert memory.language_quantized == 0
        assert memory.language == (
            sizes(model, LAYERS) + sizes(model, 'model.language_model.norm') + rotary)
        assert memory.embeddings == sizes(model, 'lm_head') + sizes(
            model, 'model.language_model.embed_tokens')

    def test_a_head_that_is_the_embeddings_is_counted_once(self, tmp_path):
        loaded = load_model(save_paligemma(tmp_path), **EXACT)
        assert loaded.model.lm_head.weight is loaded.model.get_input_embeddings().weight
        scale = 4  # Gemma's, a buffer.
        assert loaded.memory.embeddings == loaded.model.lm_head.weight.nbytes + scale

    def test_half_precision_takes_half_the_memory(self, checkpoint):
        whole, half = (load_model(checkpoint, quantization='none', dtype=dtype).memory
                       for dtype in ('float32', 'bfloat16'))
        assert half.projector == whole.projector / 2
        assert half.embeddings == whole.embeddings / 2

    # Two layers: four of 64 x 64 and three of 128 x 64 each. NF4 has a scale of one byte per 64
    # numbers and a table of 16 per layer; int8 has one of four bytes per output.
    @pytest.mark.parametrize('quantization, numbers, scales', [
        ('nf4', 0.5, 1 / 64), ('int8', 1.0, 4 / 64)])
    def test_quantised_layers_are_counted_with_their_scales(
            self, checkpoint, quantization, numbers, scales):
        memory = load_model(checkpoint, quantization=quantization).memory
        count = 2 * (4 * 64 * 64 + 3 * 128 * 64)
        assert count * (numbers + 0.5 * scales) <= memory.language_quantized
        per_layer = 14 * (16 + 256 + 16) * 4  # NF4's tables; of small layers they are the most.
        assert memory.language_quantized <= count * (numbers + scales) + per_layer
        assert memory.language < 2 * 2 * 64 * 10

    def test_quantising_vision_shrinks_vision_and_projector(self, tmp_path):
        folder = save_llava(tmp_path, width=64)
        plain = load_model(folder, quantization='int8').memory
        small = load_model(folder, quantization='int8', quantize_vision=True).memory
        assert small.vision < 0.8 * plain.vision and small.projector < plain.projector
        assert small.language_quantized == plain.language_quantized

    def test_the_total_and_one_line_for_people(self):
        report = MemoryReport(
            vision=800_000_000, projector=20_000_000, language_quantized=3_500_000_000,
            language=1_000_000, embeddings=500_000_000, peak=5_000_000_000)
        assert report.total == 4_821_000_000
        assert str(report) == (
            '4821 MB: vision 800 MB, projector 20 MB, language model 3501 MB (quantised layers '
            '3500 MB), embeddings and head 500 MB; at most 5000 MB while loading')

    def test_a_policy_has_the_report_and_loading_took_memory(self, checkpoint):
        memory = load_policy(checkpoint).memory
        assert memory.peak > 0 and memory.total > 100_000


def test_the_peak_is_what_was_held_at_once_even_if_it_is_gone():
    with PeakMemory('cpu') as peak:
        block = bytearray(b'1') * 60_000_000
        del block
    assert 55_000_000 < peak.bytes < 200_000_000
    with PeakMemory('cpu') as later:
        pass
    assert later.bytes < 20_000_000


@pytest.mark.parametrize('error, expected', [
    (torch.OutOfMemoryError('CUDA out of memory.'), True),
    (MemoryError(), True),
    (PolicyMemoryError('inference: out of memory'), True),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError('CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`'), True),
    (RuntimeError('std::bad_alloc'), True),
    (OSError(12, 'Cannot allocate memory'), True),
    (RuntimeError('shapes do not match'), False),
    (ValueError("the processor refuses 'push the mug labelled out of memory'"), False),
    (PolicyError('out of memory, said the instruction'), False),
    (OSError(28, 'No space left on device'), False),
])
def test_running_out_of_memory_is_told_from_other_errors(error, expected):
    assert is_out_of_memory(error) is expected


class Big:
    """Stands for a tensor that a failed call holds."""


def fail(error, seen):
    big = Big()
    seen.append(weakref.ref(big))
    try:
        raise KeyError('an error on the way')
    except KeyError:
        raise error from None


class TestNamedFailures:
    def test_what_the_failed_call_held_is_free_while_the_error_is_looked_at(self):
        seen = []
        with pytest.raises(PolicyMemoryError) as caught, named_failures('loading', 'buy more'):
            fail(torch.OutOfMemoryError('CUDA out of memory.'), seen)
        assert seen[0]() is None
        assert str(caught.value) == 'loading: out of memory (CUDA out of memory.); buy more'

    def test_errors_of_torch_become_one_line(self):
        with pytest.raises(PolicyError, match='^inference failed: shapes do not match$'), \
                named_failures('inference', ''):
            raise RuntimeError('shapes\ndo not match')

    @pytest.mark.parametrize('error', [PolicyError('x'), KeyError('x'), UnicodeError('x')])
    def test_other_errors_stay_what_they_are(self, error):
        with pytest.raises(type(error)) as caught, named_failures('inference', ''):
            raise error
        assert caught.value is error


class TestAtLoad:
    def test_it_is_named_with_a_way_out_and_nothing_stays(self, checkpoint, monkeypatch):
        seen = []
        monkeypatch.setattr(
            weights.AutoModelForImageTextToText, 'from_pretrained',
            lambda *_, **__: fail(torch.OutOfMemoryError('CUDA out of memory.'), seen))
        with pytest.raises(PolicyMemoryError, match=(
                f'^loading {checkpoint}: out of memory .CUDA out of memory.*a smaller model')):
            load_policy(checkpoint)
        assert seen[0]() is None

    def test_it_is_noticed_when_transformers_swallows_it(self, checkpoint, monkeypatch, caplog):
        def refuse(*_, **__):
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 90 MiB')
        monkeypatch.setattr(bitsandbytes.nn.Params4bit, 'to', refuse)
        with caplog.at_level(logging.WARNING), pytest.raises(PolicyMemoryError, match='^loading'):
            load_policy(checkpoint)
        assert 'LOAD REPORT' not in caplog.text

    def test_any_other_reason_that_it_swallows_is_given(self, checkpoint, monkeypatch):
        def refuse(*_, **__):
            raise RuntimeError('blocksize 64 is not supported')
        monkeypatch.setattr(bitsandbytes.nn.Params4bit, 'to', refuse)
        with pytest.raises(PolicyError, match=(
                'cannot load the weights in .*: RuntimeError: blocksize 64 is not supported')):
            load_policy(checkpoint)

    def test_it_is_named_when_only_the_decoder_no_longer_fits(self, checkpoint, monkeypatch):
        def refuse(*_, **__):
            raise torch.OutOfMemoryError('CUDA out of memory.')
        monkeypatch.setattr('vla_policy_node.policy.loading.HFPolicy', refuse)
        with pytest.raises(PolicyMemoryError, match='^preparing llava'):
            load_policy(checkpoint)


class TestInTheMiddleOfARun:
    @pytest.fixture
    def full(self, checkpoint):
        """Return a policy whose language model finds no memory."""
        policy = load_policy(checkpoint, **EXACT)

        def refuse(*_):
            fail(RuntimeError("DefaultCPUAllocator: can't allocate memory"), self.seen)
        self.seen = []
        policy._loaded.model.get_decoder().register_forward_pre_hook(refuse)
        return policy

    @pytest.mark.parametrize('call', ['infer', 'answer', 'action_logits'])
    def test_it_is_named_and_what_the_call_held_is_free(self, full, call):
        with pytest.raises(PolicyMemoryError, match="out of memory .*can't allocate memory"):
            getattr(full, call)(observation(instruction='what is red ?'))
        assert self.seen[0]() is None

    def test_a_policy_that_is_closed_leaves_no_model_behind(self, full):
        model = weakref.ref(full._loaded.model)
        with pytest.raises(PolicyMemoryError):
            full.infer(observation())
        full.close()
        assert model() is None

    def test_a_policy_that_worked_leaves_no_model_behind_either(self, checkpoint):
        policy = load_policy(checkpoint)
        policy.infer(observation())
        policy.answer(observation(instruction='what is red ?'), 2)
        model = weakref.ref(policy._loaded.model)
        gc.disable()  # Only close() is to collect.
        try:
            policy.close()
            assert model() is None
        finally:
            gc.enable()
