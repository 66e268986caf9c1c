"""
What a model answers, as pictures: wanted and predicted side by side, for a person to judge.

There is no model of the camera, so actions are not drawn into the scene but as a compass beside
it: x up, y to the left as seen from above, z and the gripper as bars.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
import functools
import logging
from pathlib import Path
import re
import textwrap

import matplotlib
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

from vla_policy_node.statistics import nice_step

FOLDER = 'pictures'
SIDE_PX = 320
PANEL_PX = 300

_SHEET_COLUMNS = 2
_GAP_PX = 8
_MARGIN_PX = 16
# Drawn larger and scaled down: Pillow does not smooth lines.
_FINE = 4

_GROUND = (29, 33, 37)
_INK = (233, 231, 226)
_SOFT = (154, 162, 171)
_LINE = (70, 77, 84)
_WANTED = (255, 255, 255)
_PREDICTED = (77, 182, 168)
_WRONG = (224, 138, 116)

# Of the panel, pixels.
_COMPASS = (104, 168, 68)
_BAR_Z_X = 206
_BAR_GRIPPER_X = 258
_LEGEND_Y = 272

_LOGGER = logging.getLogger(__name__)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionSample:
    """
    An instruction with the wanted and the predicted action.

    images: camera -> (H, W, 3) uint8 RGB. wanted, predicted: (7,) or (K, 7) canonical (m, rotation
    vector rad, gripper 0 closed to 1 open); of several deltas the sum is drawn. The points are
    plans, (u, v) in [0, 1] of the first camera's picture, where known.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    wanted: np.ndarray
    predicted: np.ndarray
    wanted_point: Point | None = None
    predicted_point: Point | None = None

    def record(self) -> dict[str, str]:
        """Return the sample as the log has it, without its picture."""
        return {'instruction': self.instruction, 'wanted': action_text(self.wanted),
                'predicted': action_text(self.predicted)}

    def draw(self) -> Image.Image:
        """Return the camera pictures with the panel of wanted and predicted."""
        return _joined(_cameras(self.images, self.wanted_point, self.predicted_point),
                       _action_panel(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSample:
    """A question with the wanted and the predicted answer; images as in ActionSample, or none."""

    question: str
    wanted: str
    predicted: str
    images: Mapping[str, np.ndarray] = field(default_factory=dict)

    def record(self) -> dict[str, str]:
        """Return the sample as the log has it, without its picture."""
        return {'question': self.question, 'wanted': self.wanted, 'predicted': self.predicted}

    def draw(self) -> Image.Image:
        """Return the camera pictures with the panel of question and answers."""
        return _joined(_cameras(self.images, None, None), _answer_panel(self))


def write_samples(
    folder: Path, step: int, samples: Sequence[ActionSample | AnswerSample], stage: str = '',
) -> list[dict[str, str]]:
    """
    Write one PNG per sample and a contact sheet of them below `folder`/pictures.

    Returns the `samples` of a validation record. A picture that cannot be written, as on a full
    disk, is '' there; the training goes on.
    """
    prefix = re.sub(r'[^\w-]+', '-', f'{stage}-') if stage else ''
    name = f'{prefix}step-{step:06d}'
    drawn = [sample.draw() for sample in samples]
    if drawn:
        _write(folder, f'{name}.png', contact_sheet(drawn))
    return [{'picture': _write(folder, f'{name}-{index}.png', picture), **sample.record()}
            for index, (sample, picture) in enumerate(zip(samples, drawn, strict=True))]


def contact_sheet(pictures: Sequence[Image.Image], columns: int = _SHEET_COLUMNS) -> Image.Image:
    """Return the pictures in rows of `columns`, in order."""
    width = max(picture.width for picture in pictures) + _GAP_PX
    height = max(picture.height for picture in pictures) + _GAP_PX
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = Image.new('RGB', (columns * width - _GAP_PX, rows * height - _GAP_PX), _GROUND)
    pen = ImageDraw.Draw(sheet)
    for index, picture in enumerate(pictures):
        x, y = index % columns * width, index // columns * height
        sheet.paste(picture, (x, y))
        pen.line((x, y - _GAP_PX // 2, x + width, y - _GAP_PX // 2), fill=_LINE)
    return sheet


def same_answer(wanted: str, predicted: str) -> bool:
    """Return whether two answers are the same but for capitals and blanks."""
    return wanted.split() == predicted.split() or (
        wanted.casefold().split() == predicted.casefold().split())


def action_text(actions: np.ndarray) -> str:
    """Return an action in words: millimetres, degrees of the rotation vector, gripper opening."""
    total = np.atleast_2d(actions)
    x, y, z = 1000 * total[:, :3].sum(axis=0)
    turns = ' '.join(f'{value:+.1f}' for value in np.degrees(total[:, 3:6].sum(axis=0)))
    return (f'x {x:+.0f}  y {y:+.0f}  z {z:+.0f} mm, turn {turns}°,'
            f' gripper {100 * total[-1, 6]:.0f} % open')


def _write(folder: Path, name: str, picture: Image.Image) -> str:
    path = folder / FOLDER / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    except OSError as error:
        _LOGGER.warning('the picture %s was not written: %s', path, error)
        return ''
    return f'{FOLDER}/{name}'


def _joined(cameras: list[Image.Image], panel: Image.Image) -> Image.Image:
    joined = Image.new('RGB', (SIDE_PX * len(cameras) + PANEL_PX, SIDE_PX), _GROUND)
    for index, picture in enumerate(cameras):
        joined.paste(picture, (SIDE_PX * index, 0))
    joined.paste(panel, (SIDE_PX * len(cameras), 0))
    return joined


def _cameras(
    images: Mapping[str, np.ndarray], wanted: Point | None, predicted: Point | None,
) -> list[Image.Image]:
    """Return a square picture per camera, the points drawn into the first."""
    if not images:
        return [_no_picture()]
    boxes = []
    for index, image in enumerate(images.values()):
        box = Image.new('RGB', (SIDE_PX, SIDE_PX), _GROUND)
        height, width = image.shape[:2]
        scale = SIDE_PX / max(height, width)
        picture = Image.fromarray(image).resize(
            (max(1, round(width * scale)), max(1, round(height * scale))),
            Image.Resampling.LANCZOS)
        if index == 0:
            picture = _with_points(picture, ((wanted, _WANTED, 15), (predicted, _PREDICTED, 9)))
        box.paste(picture, ((SIDE_PX - picture.width) // 2, (SIDE_PX - picture.height) // 2))
        boxes.append(box)
    return boxes


def _no_picture() -> Image.Image:
    box = Image.new('RGB', (SIDE_PX, SIDE_PX), _GROUND)
    ImageDraw.Draw(box).text((SIDE_PX / 2, SIDE_PX / 2), 'no picture', _SOFT, _font(13), 'mm')
    return box


def _with_points(
    picture: Image.Image, points: Sequence[tuple[Point | None, tuple[int, int, int], int]],
) -> Image.Image:
    """Draw cross hairs; the outer ones are wanted, the inner ones predicted."""
    fine = picture.resize((picture.width * _FINE, picture.height * _FINE))
    pen = ImageDraw.Draw(fine)
    for point, colour, reach in points:
        if point is None:
            continue
        u, v = point[0] * fine.width, point[1] * fine.height
        for ink, width in (((20, 20, 20), 4.5), (colour, 2.5)):
            _cross_hair(pen, u, v, reach * _FINE, ink, round(width * _FINE))
    return fine.resize(picture.size, Image.Resampling.BOX)


def _cross_hair(
    pen: ImageDraw.ImageDraw, u: float, v: float, reach: float, ink: tuple[int, int, int],
    width: int,
) -> None:
    pen.ellipse((u - reach, v - reach, u + reach, v + reach), outline=ink, width=width)
    for du, dv in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        pen.line((u + du * reach, v + dv * reach, u + 1.6 * du * reach, v + 1.6 * dv * reach),
                 fill=ink, width=width)


def _action_panel(sample: ActionSample) -> Image.Image:
    wanted, predicted = np.atleast_2d(sample.wanted), np.atleast_2d(sample.predicted)
    reach_m = max(np.abs(np.cumsum(a[:, :3], axis=0)).max() for a in (wanted, predicted))
    paths = [np.cumsum(a[:, :2], axis=0) for a in (wanted, predicted)]
    reach_m = max(reach_m, *(np.linalg.norm(path, axis=1).max() for path in paths))
    ring_m = nice_step(max(float(reach_m), 1e-3), 1)
    fine = Image.new('RGB', (PANEL_PX * _FINE, SIDE_PX * _FINE), _GROUND)
    pen = ImageDraw.Draw(fine)
    _draw_scales(pen)
    # Predicted is drawn inside wanted: where they agree, both are seen.
    for actions, ink, width in ((wanted, _WANTED, 7), (predicted, _PREDICTED, 3)):
        _draw_action(pen, actions, ring_m, ink, width)
    panel = fine.resize((PANEL_PX, SIDE_PX), Image.Resampling.BOX)
    _label_action(ImageDraw.Draw(panel), sample, ring_m)
    return panel


def _draw_scales(pen: ImageDraw.ImageDraw) -> None:
    x, y, radius = (_FINE * value for value in _COMPASS)
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_LINE, width=_FINE)
    pen.line((x - radius, y, x + radius, y), fill=_LINE, width=_FINE)
    pen.line((x, y - radius, x, y + radius), fill=_LINE, width=_FINE)
    for bar in (_BAR_Z_X, _BAR_GRIPPER_X):
        pen.line((bar * _FINE, y - radius, bar * _FINE, y + radius), fill=_LINE, width=_FINE)
    pen.line(((_BAR_Z_X - 8) * _FINE, y, (_BAR_Z_X + 8) * _FINE, y), fill=_LINE, width=_FINE)


def _draw_action(
    pen: ImageDraw.ImageDraw, actions: np.ndarray, ring_m: float, ink: tuple[int, int, int],
    width: int,
) -> None:
    x, y, radius = (_FINE * value for value in _COMPASS)
    path = np.vstack([np.zeros(2), np.cumsum(actions[:, :2], axis=0)]) / ring_m * radius
    _draw_arrow(pen, [(x - left, y - forward) for forward, left in path], ink, width)
    up = float(actions[:, 2].sum()) / ring_m
    opening = 2.0 * float(np.clip(actions[-1, 6], 0.0, 1.0)) - 1.0
    for bar, value in ((_BAR_Z_X, up), (_BAR_GRIPPER_X, opening)):
        level = y - value * radius
        half = (11 if width > 3 else 8) * _FINE
        thick = width * _FINE / 2
        pen.rectangle((bar * _FINE - half, level - thick, bar * _FINE + half, level + thick),
                      fill=ink)


def _draw_arrow(
    pen: ImageDraw.ImageDraw, points: list[Point], ink: tuple[int, int, int], width: int,
) -> None:
    pen.line(points, fill=ink, width=width * _FINE, joint='curve')
    tip, start = np.array(points[-1]), np.array(points[-2])
    length = float(np.linalg.norm(tip - start))
    size = (1.5 * width + 5) * _FINE
    if length < 0.5 * size:
        # Too short for a head: the tool stays.
        dot = 0.9 * width * _FINE
        pen.ellipse((*(tip - dot), *(tip + dot)), fill=ink)
        return
    ahead = (tip - start) / length
    side = np.array([-ahead[1], ahead[0]])
    corners = (tip + 0.5 * size * ahead, tip - 0.6 * size * ahead + 0.6 * size * side,
               tip - 0.6 * size * ahead - 0.6 * size * side)
    pen.polygon([tuple(corner) for corner in corners], fill=ink)


def _label_action(pen: ImageDraw.ImageDraw, sample: ActionSample, ring_m: float) -> None:
    _paragraph(pen, sample.instruction, y=12, size=16, bold=True, lines=3)
    x, y, radius = _COMPASS
    small = _font(11)
    pen.text((x, y - radius - 8), '+x', _SOFT, small, 'mb')
    pen.text((x - radius - 4, y), '+y', _SOFT, small, 'rm')
    pen.text((x, y + radius + 8), f'ring {1000 * ring_m:g} mm', _SOFT, small, 'mt')
    pen.text((_BAR_Z_X, y - radius - 8), '+z', _SOFT, small, 'mb')
    pen.text((_BAR_GRIPPER_X, y - radius - 8), 'open', _SOFT, small, 'mb')
    pen.text((_BAR_GRIPPER_X, y + radius + 8), 'closed', _SOFT, small, 'mt')
    for row, (name, ink, actions) in enumerate((
            ('wanted', _WANTED, sample.wanted), ('predicted', _PREDICTED, sample.predicted))):
        text = action_text(actions).split(' mm')[0]
        pen.text((_MARGIN_PX, _LEGEND_Y + 19 * row), name, ink, _font(12, bold=True))
        pen.text((_MARGIN_PX + 74, _LEGEND_Y + 19 * row), f'{text} mm', ink, _font(12))


def _answer_panel(sample: AnswerSample) -> Image.Image:
    panel = Image.new('RGB', (PANEL_PX, SIDE_PX), _GROUND)
    pen = ImageDraw.Draw(panel)
    y = _paragraph(pen, sample.question, y=12, size=16, bold=True, lines=5)
    y = _paragraph(pen, 'wanted', y=y + 14, size=12, ink=_SOFT)
    y = _paragraph(pen, sample.wanted or '(nothing)', y=y, size=15, lines=4)
    right = same_answer(sample.wanted, sample.predicted)
    verdict = 'predicted, right' if right else 'predicted, wrong'
    y = _paragraph(pen, verdict, y=y + 14, size=12, ink=_SOFT)
    _paragraph(pen, sample.predicted or '(nothing)', y=y, size=15, lines=4,
               ink=_PREDICTED if right else _WRONG)
    return panel


def _paragraph(
    pen: ImageDraw.ImageDraw, text: str, *, y: int, size: int, bold: bool = False,
    ink: tuple[int, int, int] = _INK, lines: int = 1,
) -> int:
    """Write wrapped text at most `lines` long; returns where the next one begins."""
    font = _font(size, bold)
    characters = int((PANEL_PX - 2 * _MARGIN_PX) / (font.getlength('abcdefghijklmno') / 15))
    for line in textwrap.wrap(text, characters, max_lines=lines, placeholder=' …'):
        pen.text((_MARGIN_PX, y), line, ink, font)
        y += round(1.35 * size)
    return y


@functools.cache
def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib brings a font with it, Pillow and the system may not.
    name = 'DejaVuSans-Bold.ttf' if bold else 'DejaVuSans.ttf'
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / 'fonts' / 'ttf' / name, size)
