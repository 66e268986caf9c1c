"""
The configuration of robot sources, one section per kind, and the opening of a section.

All paths are relative to the current directory. Knows neither torch nor the simulator.
"""

from pathlib import Path
from typing import Annotated
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import FiniteFloat
from pydantic import model_validator

from vla_policy_node.recordings import CHUNK_TYPE
from vla_policy_node.training.sources.records import RobotSource
from vla_policy_node.training.sources.records import Source

Index = Annotated[int, Field(ge=0)]
Words = Annotated[str, Field(min_length=1)]
Cameras = Annotated[dict[str, str], Field(min_length=1)]
Positive = Annotated[FiniteFloat, Field(gt=0.0)]

DEFAULT_CHUNK_TOPIC = '/policy_node/action_chunk'
DEFAULT_INSTRUCTION_TOPIC = '/policy_node/status'


class _Section(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True)


class TranslationSpec(_Section):
    """Where x, y, z are; scale makes metres (or metres per second) of them."""

    feature: str = 'action'
    indices: tuple[Index, Index, Index]
    scale: FiniteFloat = 1.0


class RotationSpec(_Section):
    """Where the rotation is, in which form; scale makes radians (per second) of angles."""

    feature: str = 'action'
    indices: Annotated[tuple[Index, ...], Field(min_length=3, max_length=4)]
    form: Literal['rotation_vector', 'fixed_axis_rpy', 'quaternion_xyzw'] = 'rotation_vector'
    scale: FiniteFloat = 1.0

    @model_validator(mode='after')
    def _check_form(self) -> 'RotationSpec':
        wanted = 4 if self.form == 'quaternion_xyzw' else 3
        if len(self.indices) != wanted:
            raise ValueError(f'{self.form} needs {wanted} indices, found {len(self.indices)}')
        if wanted == 4 and self.scale != 1.0:
            raise ValueError(f'a quaternion has no scale, found {self.scale}; leave it out')
        return self


class GripperSpec(_Section):
    """Where the gripper is, and its values when closed and when open."""

    feature: str = 'action'
    index: Index
    closed: FiniteFloat = 0.0
    open: FiniteFloat = 1.0

    @model_validator(mode='after')
    def _check_ends(self) -> 'GripperSpec':
        if self.closed == self.open:
            raise ValueError(f'closed and open must differ, both are {self.open}')
        return self


class ActionSpec(_Section):
    """
    How the numbers of a data set become end-effector deltas about fixed axes.

    delta: motion per recorded step. velocity: per second. absolute: poses, of which successive
    ones are compared. Without rotation it is zero; without gripper it is open.
    """

    mode: Literal['delta', 'velocity', 'absolute']
    translation: TranslationSpec
    rotation: RotationSpec | None = None
    gripper: GripperSpec | None = None

    @model_validator(mode='after')
    def _check_form(self) -> 'ActionSpec':
        form = self.rotation.form if self.rotation else None
        if form == 'quaternion_xyzw' and self.mode != 'absolute':
            raise ValueError(
                f'quaternion_xyzw is a form of absolute rotations, not of mode {self.mode}')
        if form == 'fixed_axis_rpy' and self.mode == 'velocity':
            raise ValueError('an angular velocity is a rotation_vector, not fixed_axis_rpy')
        return self

    @property
    def widths(self) -> dict[str, int]:
        """Features that are needed, and how many numbers each must have at least."""
        widths: dict[str, int] = {}
        for part in filter(None, (self.translation, self.rotation, self.gripper)):
            highest = part.index if isinstance(part, GripperSpec) else max(part.indices)
            widths[part.feature] = max(widths.get(part.feature, 0), highest + 1)
        return widths


class LeRobotSection(_Section):
    """
    A LeRobot data set of version 2.0, 2.1 or 3.0.

    cameras: our camera name -> feature. instruction: said where an episode has no task.
    """

    kind: Literal['lerobot']
    path: Path
    cameras: Cameras
    actions: ActionSpec
    instruction: Words | None = None


class BagsSection(_Section):
    """
    Bags of our own nodes.

    paths: folders or files of bags, with wildcards. cameras: our camera name -> image topic.
    instruction: said in all of them; else instruction_topic says it (std_msgs/String or
    vla_msgs/PolicyStatus). max_gap_s: a longer pause between chunks ends an episode, and an older
    picture is not what the robot acted on.
    """

    kind: Literal['bags']
    paths: list[str] = Field(min_length=1)
    cameras: Cameras
    actions: str = Field(DEFAULT_CHUNK_TOPIC, description=f'topic of {CHUNK_TYPE}')
    instruction: Words | None = None
    instruction_topic: str = DEFAULT_INSTRUCTION_TOPIC
    max_gap_s: Positive = 2.0


class SceneSection(_Section):
    """
    Scenes first..first+scenes-1 of the simulated table, `frames` frames (0.2 s apart) of each.

    motion: 'wander' and 'grasp' label every frame for every task, one action each; 'expert' is
    one task done from beginning to end, for horizons above 1 and for learning when to stop.
    """

    first: int = Field(0, ge=0)
    scenes: int = Field(gt=0)
    frames: int = Field(gt=0)
    motion: Literal['wander', 'grasp', 'expert'] = 'wander'


class SimulatorSection(_Section):
    """Demonstrations of the scripted expert; size: (height, width) the pictures are kept in."""

    kind: Literal['simulator']
    scenes: SceneSection
    seed: int = Field(1, ge=0)
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] = (240, 320)
    workers: int = Field(1, gt=0, description='processes that simulate')


class SimulatorQuestionsSection(SimulatorSection):
    """Questions about the frames that a simulator section with the same values has."""

    kind: Literal['simulator_questions']
    per_frame: int = Field(4, gt=0, description='questions asked about each frame')


RobotSection = LeRobotSection | BagsSection | SimulatorSection


def open_robot_source(
    name: str, section: RobotSection, *, horizon: int, period_s: float, cache: Path,
) -> RobotSource:
    """
    Open a source of demonstrations whose records have `horizon` actions of `period_s` each.

    cache: folder for what is made once. Raises SourceError where the data cannot be used.
    """
    # Imported where they are used: a LeRobot data set needs no MuJoCo, a bag no video decoder.
    if isinstance(section, LeRobotSection):
        from vla_policy_node.training.sources.lerobot import LeRobotSource
        return LeRobotSource(
            name, section, horizon=horizon, period_s=period_s, cache=cache)
    if isinstance(section, BagsSection):
        from vla_policy_node.training.sources.bags import BagSource
        return BagSource(name, section, horizon=horizon, period_s=period_s, cache=cache)
    from vla_policy_node.training.sources.simulated import SimulatorSource
    return SimulatorSource(name, section, horizon=horizon, period_s=period_s, cache=cache)


def open_question_source(
    name: str, section: SimulatorQuestionsSection, *, cache: Path,
) -> Source:
    """Open the questions about simulated frames; see open_robot_source."""
    from vla_policy_node.training.sources.simulated import SimulatorQuestionSource
    return SimulatorQuestionSource(name, section, cache=cache)
