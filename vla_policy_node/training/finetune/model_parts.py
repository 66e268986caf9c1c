"""
Which weights of a model are vision, projector, embeddings, language and head.

Knows only what every image-text-to-text model of transformers can say of itself.
"""

from collections.abc import Iterable

from torch import nn

from vla_policy_node.policy.parts import part_roots

PARTS = ('vision', 'projector', 'embeddings', 'language', 'head')


def part_of_parameters(model: nn.Module) -> dict[str, str]:
    """
    Return {parameter name: part}; a head tied to the embeddings counts as embeddings.

    What belongs to none of the others (connectors, learned separators) is the projector.
    """
    parts: dict[int, str] = {}
    for part, modules in part_roots(model):
        for module in modules:
            for parameter in module.parameters():
                parts.setdefault(id(parameter), part)
    return {name: parts.get(id(p), 'projector') for name, p in model.named_parameters()}


def linear_layers(model: nn.Module, parts: Iterable[str]) -> list[str]:
    """Return the full names of the linear layers of these parts, 4-bit ones too."""
    of_parameter = part_of_parameters(model)
    wanted = set(parts)
    return [
        name for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and of_parameter.get(f'{name}.weight') in wanted
    ]


def count_parameters(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Return {part: (parameters that are trained, all)}, in the order of PARTS."""
    counts = dict.fromkeys(PARTS, (0, 0))
    for name, part in part_of_parameters(model).items():
        parameter = model.get_parameter(name)
        # A 4-bit weight packs two numbers into a byte.
        size = parameter.numel() * (2 if hasattr(parameter, 'quant_state') else 1)
        trained, total = counts[part]
        counts[part] = trained + size * parameter.requires_grad, total + size
    return counts
