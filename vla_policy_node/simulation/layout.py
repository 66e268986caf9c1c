"""Where things are at the start of an episode, drawn from a seed."""

from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vla_policy_node.simulation.scene import BLOCK_RGB
from vla_policy_node.simulation.scene import BLOCK_SIZE_M
from vla_policy_node.simulation.scene import COLOURS
from vla_policy_node.simulation.scene import TABLE_RGB
from vla_policy_node.simulation.tasks import Task
from vla_policy_node.simulation.tasks import TASKS

BLOCKS_LOWER = (0.40, -0.15)
BLOCKS_UPPER = (0.60, 0.15)
TOOL_CENTRE = (0.50, 0.0)
TOOL_SPREAD_M = 0.06
TOOL_HEIGHT_M = (0.14, 0.20)
MAX_YAW_RAD = 0.15
MIN_DISTANCE_M = 0.10

# A pushed block needs this much room along its lane, and must not leave the view.
_LANE_HALF_WIDTH_M = 0.06
_LANE_ROOM_M = 0.13
_PUSH_ROOM_M = 0.10


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """
    A start of an episode.

    :param blocks: colour -> (x, y, yaw) of each block on the table, metres and rad in `base`.
    :param tool: (3,) tool position, metres in `base`.
    """

    task: Task
    blocks: Mapping[str, tuple[float, float, float]]
    tool: tuple[float, float, float]


CHECK_LAYOUT = Layout(
    task=TASKS[0],
    blocks={
        'red': (0.42, -0.14, 0.0),
        'green': (0.42, 0.14, 0.0),
        'blue': (0.58, -0.14, 0.0),
        'yellow': (0.58, 0.14, 0.0),
    },
    tool=(0.50, 0.0, 0.20),
)


def draw_layout(seed: int, task: Task | None = None) -> Layout:
    """Draw two or three blocks, their places, the tool's start and, if None, the task."""
    if task is None:
        task = TASKS[np.random.default_rng(seed).integers(len(TASKS))]
    # Tasks get scenes of their own, or all colours would be tried on the same few places.
    rng = np.random.default_rng([seed, TASKS.index(task)])
    others = [colour for colour in COLOURS if colour != task.colour]
    rng.shuffle(others)
    colours = [task.colour, *others[:rng.integers(1, 3)]]
    tool = (
        *(rng.uniform(-TOOL_SPREAD_M, TOOL_SPREAD_M, 2) + TOOL_CENTRE).tolist(),
        float(rng.uniform(*TOOL_HEIGHT_M)),
    )
    while True:
        places = rng.uniform(BLOCKS_LOWER, BLOCKS_UPPER, (len(colours), 2))
        if _roomy(places, task):
            break
    yaws = rng.uniform(-MAX_YAW_RAD, MAX_YAW_RAD, len(colours))
    blocks = {
        colour: (float(x), float(y), float(yaw))
        for colour, (x, y), yaw in zip(colours, places, yaws, strict=True)
    }
    return Layout(task=task, blocks=blocks, tool=tool)


def _roomy(places: np.ndarray, task: Task) -> bool:
    """Tell whether blocks are well apart and the first can be pushed where `task` wants."""
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
    if gaps[np.triu_indices(len(places), 1)].min() < MIN_DISTANCE_M:
        return False
    if not task.verb.startswith('push'):
        return True
    side = 1.0 if task.verb == 'push left' else -1.0
    offsets = places[1:] - places[0]
    in_lane = np.abs(offsets[:, 0]) < _LANE_HALF_WIDTH_M
    blocked = in_lane & (np.abs(offsets[:, 1]) < _LANE_ROOM_M)
    return places[0, 1] * side < _PUSH_ROOM_M and not blocked.any()


def frame_problem(frame: np.ndarray, project: Callable[[np.ndarray], np.ndarray]) -> str:
    """
    Say what is wrong with a frame of CHECK_LAYOUT, or '' if nothing is.

    :param frame: (H, W, 3) uint8 RGB.
    :param project: (N, 3) points in `base` -> (N, 2) normalised image coordinates.
    """
    height, width = frame.shape[:2]
    expected = {colour: BLOCK_RGB[colour] for colour in CHECK_LAYOUT.blocks}
    tops = [(x, y, BLOCK_SIZE_M) for x, y, _ in CHECK_LAYOUT.blocks.values()]
    expected['table'] = TABLE_RGB
    tops.append((0.50, 0.10, 0.0))
    columns, rows = (project(np.array(tops)) * (width, height)).astype(int).T
    for name, seen in zip(expected, frame[rows, columns], strict=True):
        want = np.array(expected[name]) * 255
        if np.abs(seen - want).max() > 60:
            return f'expected the {name} colour {want.astype(int)}, found {seen}'
    return ''
