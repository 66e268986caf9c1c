"""
Which modules of an image-text-to-text model are vision, projector, language and embeddings.

Knows only what every such model of transformers can say of itself.
"""

from collections.abc import Sequence

from torch import nn

VISION, PROJECTOR, LANGUAGE, EMBEDDINGS = 'vision', 'projector', 'language', 'embeddings'
HEAD = 'head'


def part_roots(model: nn.Module) -> list[tuple[str, Sequence[nn.Module]]]:
    """
    Return the modules that EMBEDDINGS, HEAD, VISION and LANGUAGE consist of.

    Earlier ones win: some models keep the vision tower or the embeddings in the decoder.
    """
    vision = model.get_encoder(modality='image')
    return [
        (EMBEDDINGS, [model.get_input_embeddings()]),
        (HEAD, [model.get_output_embeddings()]),
        (VISION, [] if vision is model else [vision]),
        (LANGUAGE, [model.get_decoder()]),
    ]


def part_of_modules(model: nn.Module) -> dict[int, str]:
    """
    Return {id of module: part} of every module; the output head counts as embeddings.

    What belongs to none of the others (connectors, learned separators) is the projector; where
    the vision tower holds its own, it is vision.
    """
    parts: dict[int, str] = {}
    for part, roots in [*part_roots(model), (PROJECTOR, [model])]:
        for root in roots:
            for module in root.modules():
                parts.setdefault(id(module), EMBEDDINGS if part == HEAD else part)
    return parts


def language_model(model: nn.Module) -> nn.Module:
    """Return the language model without its head: the module whose layers are the decoder's."""
    found = model.get_decoder()
    while (inner := found.get_decoder()) is not found:
        found = inner
    return found
