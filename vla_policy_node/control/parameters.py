"""Limits and times of the motion controller, with the range of each."""

from dataclasses import dataclass
from dataclasses import fields
import math

# name -> (lowest, highest), both allowed. The one place where the ranges are written:
# the node's parameter descriptors are made from it.
RANGES = {
    'command_period_s': (0.001, 0.1),
    'command_timeout_s': (0.02, 5.0),
    'max_clock_skew_s': (0.0, 1.0),
    'clock_timeout_s': (0.02, 5.0),
    'deadman_timeout_s': (0.02, 5.0),
    'overrun_s': (0.0, 1.0),
    'zero_hold_s': (0.5, 5.0),
    'pose_timeout_s': (0.02, 5.0),
    'min_period_s': (0.001, 1.0),
    'max_period_s': (0.001, 5.0),
    'max_chunk_length': (1, 1024),
    'max_linear_mps': (1e-4, 2.0),
    'max_angular_radps': (1e-4, 6.3),
    'max_linear_mps2': (1e-3, 50.0),
    'max_angular_radps2': (1e-3, 200.0),
    'max_linear_mps3': (0.0, 5000.0),
    'max_angular_radps3': (0.0, 20000.0),
    'smoothing_s': (0.0, 1.0),
    'blend_s': (0.01, 1.0),
    'ensemble_decay': (0.0, 10.0),
    'max_delta_m': (1e-5, 1.0),
    'max_delta_rad': (1e-5, math.pi),
    'max_lead_m': (1e-4, 0.5),
    'max_lead_rad': (1e-4, 1.5),
    'gripper_open_above': (0.0, 1.0),
    'gripper_close_below': (0.0, 1.0),
}

HANDOVERS = ('replace', 'blend', 'ensemble')


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlParameters:
    """Everything the controller is told once. Ranges are inclusive, see RANGES.

    base_frame: the frame of commands and poses, and the only one in which deltas are accepted.
    action_frame: what the publisher of the deltas calls that frame, '' for the same name.
    command_period_s: nominal time between two ticks; a late tick is granted the acceleration of
        at most two periods, and the workspace prediction looks two periods ahead.
    command_timeout_s: greatest age of the action behind a command, by observation stamp and by
        receipt; motion ends there whatever is left of the chunk.
    max_clock_skew_s: how far in the future a stamp may lie.
    clock_timeout_s: how long the ROS clock may make no progress while something moves.
    deadman_timeout_s: longest time without a sign of the deadman switch, where there is one.
    chunk_handover: what a newer chunk does to the rest of the older ones: 'replace' it, 'blend'
        from it within blend_s, or 'ensemble': average all that predict the moment, each chunk
        weighing exp(-ensemble_decay) of the next newer one.
    overrun_s: how long the last velocity is held after the end of a chunk for the next one to
        arrive; must not exceed command_timeout_s.
    zero_hold_s: how long zeros are sent before silence.
    pose_timeout_s: greatest age of a tool pose that counts as known.
    min_period_s, max_period_s: accepted time of one delta; max_chunk_length: accepted deltas.
    max_linear_mps, max_angular_radps: greatest speed (Euclidean norm).
    max_linear_mps2, max_angular_radps2: greatest acceleration (Euclidean norm), stopping included.
    max_linear_mps3, max_angular_radps3: greatest jerk while following chunks, 0 for no limit;
        braking is not subject to it.
    smoothing_s: time constant of a low-pass on the wanted velocity, 0 for none.
    max_delta_m, max_delta_rad: greatest displacement of one delta.
    workspace_enabled, workspace_min_m, workspace_max_m: box for the tool in the base frame.
    pose_output: also integrate a target pose, which leads the measured one by at most
        max_lead_m, max_lead_rad.
    gripper_open_above, gripper_close_below: hysteresis of the gripper command.
    """

    base_frame: str = 'base'
    action_frame: str = ''
    command_period_s: float = 0.02
    command_timeout_s: float = 0.5
    max_clock_skew_s: float = 0.05
    clock_timeout_s: float = 0.2
    deadman_timeout_s: float = 0.3
    chunk_handover: str = 'replace'
    blend_s: float = 0.1
    ensemble_decay: float = 0.5
    overrun_s: float = 0.1
    zero_hold_s: float = 0.5
    pose_timeout_s: float = 0.5
    min_period_s: float = 0.02
    max_period_s: float = 1.0
    max_chunk_length: int = 64
    max_linear_mps: float = 0.25
    max_angular_radps: float = 1.0
    max_linear_mps2: float = 4.0
    max_angular_radps2: float = 8.0
    max_linear_mps3: float = 0.0
    max_angular_radps3: float = 0.0
    smoothing_s: float = 0.0
    max_delta_m: float = 0.05
    max_delta_rad: float = 0.3
    workspace_enabled: bool = True
    workspace_min_m: tuple[float, float, float] = (0.2, -0.4, 0.0)
    workspace_max_m: tuple[float, float, float] = (0.8, 0.4, 0.6)
    pose_output: bool = False
    max_lead_m: float = 0.05
    max_lead_rad: float = 0.2
    gripper_open_above: float = 0.6
    gripper_close_below: float = 0.4

    def __post_init__(self) -> None:
        for entry in fields(self):
            if entry.name in RANGES:
                _check_range(entry.name, getattr(self, entry.name))
        if not self.base_frame:
            raise ValueError("base_frame: expected the name of a frame, found ''")
        if self.chunk_handover not in HANDOVERS:
            raise ValueError(
                f'chunk_handover: expected one of {", ".join(HANDOVERS)}, '
                f'found {self.chunk_handover!r}')
        self._check_order('min_period_s', 'max_period_s')
        self._check_order('overrun_s', 'command_timeout_s')
        self._check_order('gripper_close_below', 'gripper_open_above')
        self._check_workspace()

    def _check_order(self, low: str, high: str) -> None:
        if getattr(self, low) > getattr(self, high):
            raise ValueError(
                f'{low}: expected at most {high} = {getattr(self, high)}, '
                f'found {getattr(self, low)}')

    def _check_workspace(self) -> None:
        low, high = self.workspace_min_m, self.workspace_max_m
        if len(low) != 3 or len(high) != 3:
            raise ValueError(
                'workspace_min_m, workspace_max_m: expected 3 numbers x, y, z each, '
                f'found {len(low)} and {len(high)}')
        if not all(-math.inf < a < b < math.inf for a, b in zip(low, high, strict=True)):
            raise ValueError(
                'workspace_min_m: expected finite and below workspace_max_m on each axis, '
                f'found {tuple(low)} and {tuple(high)}')


def _check_range(name: str, value: float) -> None:
    low, high = RANGES[name]
    if not low <= value <= high:
        raise ValueError(f'{name}: expected {low:g} to {high:g}, found {value}')
