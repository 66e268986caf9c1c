"""
Policy: camera images and an instruction in, actions out.

Importing this package does not import torch; ``load_policy`` does.
"""

from typing import TYPE_CHECKING

from vla_policy_node.policy.failures import give_back_memory
from vla_policy_node.policy.failures import is_out_of_memory
from vla_policy_node.policy.self_test import run_self_test
from vla_policy_node.policy.types import ActionChunk
from vla_policy_node.policy.types import DecodeError
from vla_policy_node.policy.types import Observation
from vla_policy_node.policy.types import Policy
from vla_policy_node.policy.types import PolicyError
from vla_policy_node.policy.types import PolicyMemoryError

if TYPE_CHECKING:
    from vla_policy_node.policy.hf_policy import HFPolicy

__all__ = [
    'ActionChunk',
    'DecodeError',
    'Observation',
    'Policy',
    'PolicyError',
    'PolicyMemoryError',
    'give_back_memory',
    'is_out_of_memory',
    'load_policy',
    'run_self_test',
]


def load_policy(
    checkpoint: str,
    device: str = 'cpu',
    quantization: str = 'nf4',
    dtype: str = 'bfloat16',
    unnorm_key: str | None = None,
    decoding: str | None = None,
    plan: bool = True,
    quantize_vision: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
) -> 'HFPolicy':
    """
    Load a checkpoint directory (or ``owner/name`` of the hub) with its ``vla_config.json``.

    An original OpenVLA folder needs none.

    :param checkpoint: directory with config.json, safetensors and vla_config.json.
    :param device: 'cpu', 'cuda' or 'cuda:<index>'.
    :param quantization: 'none', 'nf4' or 'int8', of the language model's linear layers.
    :param dtype: 'bfloat16', 'float32' or 'float16', of everything that is not quantised.
    :param unnorm_key: whose norm_stats un-normalise; None where the checkpoint has just one.
    :param decoding: 'greedy', 'expectation' or 'sample'; None for the checkpoint's own choice.
    :param plan: False decodes actions at once, of a checkpoint that was trained for both.
    :param quantize_vision: vision towers and projector too, where their shapes allow.
    :param temperature: above 0, of 'sample'.
    :param seed: of 'sample': the same one draws the same actions for the same observations.
    :raises PolicyMemoryError: the device has too little memory; nothing stays loaded.
    :raises ValueError: the checkpoint or a setting is unusable; one line says how to mend it.
    """
    from vla_policy_node.policy.loading import load

    return load(
        checkpoint,
        device=device,
        quantization=quantization,
        dtype=dtype,
        unnorm_key=unnorm_key,
        decoding=decoding,
        plan=plan,
        quantize_vision=quantize_vision,
        temperature=temperature,
        seed=seed,
    )
