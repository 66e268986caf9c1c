"""The shipped policy with broken numbers in its weights: a legal action, or a decode error."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import nn

from faults.tally import Case
from faults.tally import Tally
from vla_policy_node.policy.hf_policy import HFPolicy
from vla_policy_node.policy.loading import load_model
from vla_policy_node.policy.types import DecodeError
from vla_policy_node.policy.types import Observation

SHIPPED = Path(__file__).resolve().parents[2] / 'models' / 'tabletop'
_NUMBERS = (np.nan, np.inf, -np.inf, 3e38, -3e38, 1e30)
_LARGEST_M, _LARGEST_RAD = 1.0, np.pi


def poisoned_case(injections: int, make: Callable = HFPolicy) -> Case:
    """Return the case; the model is loaded when it is first needed."""
    @cache
    def load() -> tuple[nn.Module, HFPolicy]:
        loaded = load_model(SHIPPED, quantization='none', dtype='float32')
        return loaded.model, make(loaded)

    def play(number: int, rng: np.random.Generator, tally: Tally) -> None:
        model, policy = load()
        _play(model, policy, rng, tally)
    return Case(name='poisoned_weights', injections=injections, play=play)


def _play(model: nn.Module, policy: HFPolicy, rng: np.random.Generator, tally: Tally) -> None:
    names = [name for name, _ in model.named_parameters()]
    name = names[rng.integers(len(names))]
    weights = model.get_parameter(name).data.view(-1)
    places = torch.from_numpy(rng.integers(len(weights), size=int(rng.integers(1, 30))))
    number = _NUMBERS[rng.integers(len(_NUMBERS))]
    kept = weights[places].clone()
    weights[places] = float(number)
    frame = rng.integers(0, 256, (48, 64, 3), np.uint8)
    try:
        chunk = policy.infer(Observation(
            images={'primary': frame}, instruction='pick up the red block'))
    except DecodeError:
        tally.hold('decode error')
    else:
        actions = chunk.actions
        sane = (np.isfinite(actions).all() and (np.abs(actions[:, :3]) <= _LARGEST_M).all()
                and (np.abs(actions[:, 3:6]) <= _LARGEST_RAD).all()
                and ((actions[:, 6] >= 0.0) & (actions[:, 6] <= 1.0)).all())
        tally.judge(None if sane else f'action {actions.tolist()}', f'{number} in {name}')
    finally:
        weights[places] = kept
