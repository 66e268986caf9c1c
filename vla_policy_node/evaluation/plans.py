"""What a policy says it is about to do: the text of its plan, read for drawing."""

from dataclasses import dataclass
import re

# As policies write it: 'at' and two shares of the image with decimals, at the end of the text.
_POINT = re.compile(r'(?:^|\s)at\s+([01]\.\d+)[,\s]\s*([01]\.\d+)\s*\.?\s*$')
# Longer words would cover the picture.
_LABEL_CHARACTERS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnPlan:
    """
    A plan as it is shown on a camera frame.

    point: (u, v) in [0, 1], u right and v down, where it names one. label: beside the point;
    '' without one. caption: the words that the label does not say, '' for none.
    """

    point: tuple[float, float] | None = None
    label: str = ''
    caption: str = ''


def read_plan(text: str) -> DrawnPlan:
    """Return what is to be drawn of a plan; every text is one, most of them without a point."""
    found = _POINT.search(text)
    point = (float(found[1]), float(found[2])) if found else None
    if point is None or max(point) > 1.0:
        return DrawnPlan(caption=' '.join(text.split()))
    words = ' '.join(text[:found.start()].split())
    if len(words) > _LABEL_CHARACTERS:
        return DrawnPlan(point=point, label='target', caption=words)
    return DrawnPlan(point=point, label=words or 'target')
