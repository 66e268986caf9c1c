"""What is computed in another way on CPUs is the same."""

from copy import deepcopy

from finetune_families import build
from finetune_families import FAMILIES
from finetune_families import prompt
import pytest
import torch
from torch import nn

from vla_policy_node.training.finetune.kernels import PatchConv2d
from vla_policy_node.training.finetune.kernels import use_cpu_kernels


@pytest.mark.parametrize('name', FAMILIES)
def test_a_model_says_the_same_with_them(name):
    model = build(name)
    changed = deepcopy(model)
    use_cpu_kernels(changed)
    inputs = prompt(name, seed=0)
    with torch.no_grad():
        torch.testing.assert_close(
            changed(**inputs).logits, model(**inputs).logits, rtol=1e-4, atol=1e-4)


def test_the_gradients_in_bfloat16_are_the_same_up_to_rounding():
    found = []
    for change in (lambda model: None, use_cpu_kernels):
        model = build('llava')
        change(model)
        with torch.autocast('cpu', torch.bfloat16):
            logits = model(**prompt('llava', seed=0)).logits
        logits.float().logsumexp(-1).sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()
                                if p.grad is not None]))
    assert (found[1] - found[0]).norm() < 0.05 * found[0].norm()
    assert len(found[0]) == len(found[1])


def test_a_long_text_is_attended_to_as_before():
    model = build('llava')
    changed = deepcopy(model).to(torch.bfloat16)
    use_cpu_kernels(changed)
    inputs = prompt('llava', seed=0, words=150)
    inputs['pixel_values'] = inputs['pixel_values'].to(torch.bfloat16)
    with torch.no_grad():
        wanted = model.to(torch.bfloat16)(**inputs).logits
        assert torch.equal(changed(**inputs).logits[:, -1], wanted[:, -1])


def test_a_convolution_of_patches_gives_what_it_gave_with_the_same_weights():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, (2, 4), (2, 4))
    pictures = torch.randn(2, 3, 7, 9)  # a rest at both edges is left out
    changed = deepcopy(conv)
    changed.__class__ = PatchConv2d
    torch.testing.assert_close(changed(pictures), conv(pictures))
    assert list(changed.state_dict()) == ['weight', 'bias']


def test_a_convolution_that_overlaps_stays():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = build('llava')
            self.inner.overlapping = nn.Conv2d(3, 5, 3, padding=1)
    model = Model().inner
    use_cpu_kernels(model)
    assert type(model.overlapping) is nn.Conv2d
