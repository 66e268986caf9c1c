"""
Which topics of a recording mean what: cameras, actions, gripper, instruction, and which frames.

Keys of this kind are strict: an unknown one is an error, because a silently ignored sign or unit
would make every number of an evaluation wrong.
"""

from typing import Annotated
from typing import Literal

import numpy as np
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import FiniteFloat
from pydantic import model_validator

Words = Annotated[str, Field(min_length=1)]
TopicName = Annotated[str, Field(pattern=r'^/\S+$')]
Positive = Annotated[FiniteFloat, Field(gt=0.0)]
Axis = Literal['x', '-x', 'y', '-y', 'z', '-z']
Axes = tuple[Axis, Axis, Axis]

_METRES = {'m': 1.0, 'cm': 0.01, 'mm': 0.001}
_RADIANS = {'rad': 1.0, 'deg': np.pi / 180.0}


class _Section(BaseModel):
    model_config = ConfigDict(extra='forbid', frozen=True)


class _Part(_Section):
    """
    How three numbers of a message become our x, y, z.

    axes: which component, with which sign, is our x, our y and our z. scale: factor beside the
    unit, for drives that take shares of a top speed.
    """

    axes: Axes = ('x', 'y', 'z')
    scale: FiniteFloat = 1.0

    @model_validator(mode='after')
    def _check(self) -> '_Part':
        if sorted(axis[-1] for axis in self.axes) != ['x', 'y', 'z']:
            raise ValueError(f'axes must name x, y and z once each, not {", ".join(self.axes)}')
        if self.scale == 0.0:
            raise ValueError('scale must not be 0')
        return self

    def matrix(self, unit: float) -> np.ndarray:
        """Return the (3, 3) matrix that makes SI numbers about our axes of the message's."""
        rows = np.zeros((3, 3))
        for row, axis in enumerate(self.axes):
            rows[row, 'xyz'.index(axis[-1])] = -1.0 if axis.startswith('-') else 1.0
        return unit * self.scale * rows


class LinearPart(_Part):
    """Translation; unit: of lengths, per second where the message holds velocities."""

    unit: Literal['m', 'cm', 'mm'] = 'm'

    @property
    def to_metres(self) -> np.ndarray:
        """(3, 3) float64."""
        return self.matrix(_METRES[self.unit])


class AngularPart(_Part):
    """Rotation; unit: of angles, per second where the message holds velocities."""

    unit: Literal['rad', 'deg'] = 'rad'

    @property
    def to_radians(self) -> np.ndarray:
        """(3, 3) float64."""
        return self.matrix(_RADIANS[self.unit])


class ChunkActions(_Section):
    """vla_msgs/EndEffectorDeltaChunk: what a policy of this suite had carried out."""

    kind: Literal['chunk']
    topic: TopicName = '/policy_node/action_chunk'
    frame: Words | None = None


class TwistActions(_Section):
    """
    geometry_msgs/TwistStamped: velocities, summed up over one control period.

    frame: header.frame_id that the velocities must be expressed in, None for whatever there is.
    hold_s: how long a velocity lasts without another; after that the robot stands still.
    """

    kind: Literal['twist']
    topic: TopicName
    frame: Words | None = None
    linear: LinearPart = LinearPart()
    angular: AngularPart = AngularPart()
    hold_s: Positive = 0.25


class PoseRotation(_Part):
    """Axes of the rotation between two poses; a quaternion has no unit."""

    @model_validator(mode='after')
    def _check_scale(self) -> 'PoseRotation':
        if self.scale != 1.0:
            raise ValueError(f'a quaternion has no scale, found {self.scale}; leave it out')
        return self


class PoseActions(_Section):
    """
    geometry_msgs/PoseStamped: poses of the tool, of which the difference over a period counts.

    frame: header.frame_id that the poses must be in, None for whatever there is. expressed_in:
    'base', the axes of that frame, or 'tool', those of the tool at the beginning of the period.
    """

    kind: Literal['pose']
    topic: TopicName
    frame: Words | None = None
    expressed_in: Literal['base', 'tool'] = 'base'
    linear: LinearPart = LinearPart()
    angular: PoseRotation = PoseRotation()


class _Ends(_Section):
    closed: FiniteFloat
    open: FiniteFloat

    @model_validator(mode='after')
    def _check_ends(self) -> '_Ends':
        if self.closed == self.open:
            raise ValueError(f'closed and open must differ, both are {self.open}')
        return self


class JointGripper(_Ends):
    """sensor_msgs/JointState; closed, open: positions of the joints, whose mean counts."""

    kind: Literal['joint_state']
    topic: TopicName
    joints: Annotated[tuple[Words, ...], Field(min_length=1)]


class NumberGripper(_Ends):
    """
    std_msgs/Float64; closed, open: the numbers that mean these.

    initial: where the gripper is before the first message, 0 closed to 1 open; None: not known.
    """

    kind: Literal['float64']
    topic: TopicName
    closed: FiniteFloat = 0.0
    open: FiniteFloat = 1.0
    initial: Annotated[FiniteFloat, Field(ge=0.0, le=1.0)] | None = None


class ChunkGripper(_Section):
    """The gripper of the chunks that say the actions."""

    kind: Literal['chunk']


class FixedGripper(_Section):
    """No gripper was recorded; opening: what stands in its place, 0 closed to 1 open."""

    kind: Literal['none']
    opening: Annotated[FiniteFloat, Field(ge=0.0, le=1.0)] = 1.0


class InstructionSection(_Section):
    """
    Where the words come from: exactly one of three.

    topic: of std_msgs/String or vla_msgs/PolicyStatus. metadata: a key of the custom data that
    `ros2 bag record --custom-data` wrote, or of a metadata record in MCAP. text: these words.
    """

    topic: TopicName | None = None
    metadata: Words | None = None
    text: Words | None = None

    @model_validator(mode='after')
    def _check_one(self) -> 'InstructionSection':
        given = [name for name in ('topic', 'metadata', 'text') if getattr(self, name)]
        if len(given) != 1:
            raise ValueError('expected exactly one of topic, metadata and text, found '
                             f'{", ".join(given) or "none"}')
        return self


class FramesSection(_Section):
    """
    Which frames of an episode are looked at.

    select: 'every' frame of the first camera; 'period', the newest one at every control period
    since the episode's first frame; 'chunks', those that the recorded chunks were computed from.
    every: of these only the first and every n-th.
    """

    select: Literal['every', 'period', 'chunks'] = 'every'
    every: Annotated[int, Field(ge=1)] = 1


class RecordedConfig(_Section):
    """
    What the topics of a recording mean.

    cameras: name in the checkpoint -> topic of Image or CompressedImage; the first one sets the
    time. gripper: may be left out with actions of kind 'chunk'. instruction: may be left out
    where it is given elsewhere. max_gap_s: a longer pause ends an episode, and nothing is held
    or interpolated across it. max_skew_s: how much older a picture of a further camera may be.
    """

    cameras: Annotated[dict[Words, TopicName], Field(min_length=1)]
    actions: Annotated[ChunkActions | TwistActions | PoseActions, Field(discriminator='kind')]
    gripper: Annotated[ChunkGripper | JointGripper | NumberGripper | FixedGripper,
                       Field(discriminator='kind')] | None = None
    instruction: InstructionSection | None = None
    frames: FramesSection = FramesSection()
    max_gap_s: Positive = 2.0
    max_skew_s: Positive = 0.1

    @model_validator(mode='after')
    def _check(self) -> 'RecordedConfig':
        chunks = self.actions.kind == 'chunk'
        if not chunks and (self.gripper is None or self.gripper.kind == 'chunk'):
            raise ValueError(f'actions of kind {self.actions.kind} do not say the gripper: give '
                             'gripper.kind joint_state, float64 or none')
        if self.frames.select == 'chunks' and not chunks:
            raise ValueError('frames.select chunks goes with actions of kind chunk only')
        if len(set(self.cameras.values())) < len(self.cameras):
            raise ValueError('cameras must have a topic each')
        return self
