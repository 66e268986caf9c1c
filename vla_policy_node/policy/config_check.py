"""
What config.json may ask of transformers, judged before transformers reads it.

Knows nothing of torch. Transformers follows some entries blindly: it builds as many layers as a
number says before it looks at any weight, and fetches attention kernels, which are code, from the
hub where a name has the form owner/name.
"""

from collections.abc import Iterator
from typing import Any

from vla_policy_node.policy.types import PolicyError

_LAYERS = {'num_hidden_layers', 'num_layers', 'n_layer', 'n_layers', 'num_blocks', 'depth',
           'encoder_layers', 'decoder_layers'}
_KERNELS = ('attn_implementation', 'experts_implementation')


def check_model_config(raw: dict[str, Any], n_tensors: int) -> None:
    """
    Raise PolicyError where config.json asks for code, or for more layers than there are weights.

    :param n_tensors: how many tensors the weights have, at least one per layer.
    """
    for key, value in _entries(raw):
        if key in _LAYERS and isinstance(value, int) and value > max(n_tensors, 1):
            raise PolicyError(
                f'config.json: expected {key} of at most {n_tensors}, as many as there are '
                f'tensors, found {value}; weights and config.json do not belong together')
        if key.endswith(_KERNELS) and '/' in str(value):
            raise PolicyError(
                f'config.json: {key} names code of a repository, {str(value)[:100]!r}, which is '
                'never run; remove the entry')


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """Return all keys with their values, however deep."""
    waiting = [content]
    while waiting:
        section = waiting.pop()
        if isinstance(section, dict):
            yield from section.items()
            waiting.extend(section.values())
        elif isinstance(section, list):
            waiting.extend(section)
