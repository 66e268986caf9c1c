"""The parameters of the controller node; config/controller_node.yaml holds the same values."""

from types import SimpleNamespace
from typing import Any

from vla_policy_node.control import ControlParameters
from vla_policy_node.control import RANGES
from vla_policy_node.nodes.parameters import Declared

_DEFAULTS = ControlParameters()

# Fields of ControlParameters that are parameters of the node, each with its text.
_LIMITS = {
    'base_frame': 'The only frame in which actions are accepted; frame of the commands.',
    'command_timeout_s':
        'Greatest age of the action behind a command, by its camera stamp and by receipt [s].',
    'max_clock_skew_s': 'How far in the future a camera stamp may lie [s].',
    'overrun_s':
        'How long the last velocity is held after the end of a chunk [s]; at most'
        ' command_timeout_s.',
    'zero_hold_s': 'How long zeros are sent before silence [s].',
    'pose_timeout_s': 'Greatest age of a tool pose that counts as known [s].',
    'min_period_s': 'Shortest accepted time of one delta [s].',
    'max_period_s': 'Longest accepted time of one delta [s].',
    'max_chunk_length': 'Most deltas accepted in one message.',
    'max_linear_mps': 'Greatest speed of the tool [m/s].',
    'max_angular_radps': 'Greatest angular speed of the tool [rad/s].',
    'max_linear_mps2': 'Greatest acceleration, stopping included [m/s^2].',
    'max_angular_radps2': 'Greatest angular acceleration, stopping included [rad/s^2].',
    'max_delta_m': 'Greatest translation of one delta [m].',
    'max_delta_rad': 'Greatest rotation of one delta [rad].',
    'workspace_enabled': 'Keep the tool inside the box below; needs a tool pose.',
    'workspace_min_m': 'Lower corner x, y, z of the box in base_frame [m].',
    'workspace_max_m': 'Upper corner x, y, z of the box in base_frame [m].',
    'max_lead_m': 'How far the target pose may be ahead of the measured one [m].',
    'max_lead_rad': 'How far the target pose may be turned ahead of the measured one [rad].',
    'gripper_open_above': 'The gripper opens when the action wants more than this [0..1].',
    'gripper_close_below': 'The gripper closes when the action wants less than this [0..1].',
}


def _limit(name: str, description: str) -> Declared:
    default: Any = getattr(_DEFAULTS, name)
    minimum, maximum = RANGES.get(name, (None, None))
    if isinstance(default, tuple):
        return Declared(
            name=name, default=list(default), description=description, minimum=-100.0,
            maximum=100.0, size=3)
    return Declared(
        name=name, default=default, description=description, minimum=minimum, maximum=maximum)


PARAMETERS = (
    Declared(
        name='output_mode', default='twist', choices=('twist', 'pose', 'none'),
        description='TwistStamped on ~/delta_twist_cmds, PoseStamped on ~/target_pose, or'
                    ' neither.'),
    Declared(
        name='dry_run', default=True,
        description='Compute and report commands but send none, the gripper included.'),
    Declared(
        name='command_rate_hz', default=100.0, minimum=10.0, maximum=1000.0,
        description='Rate of the commands [Hz].'),
    Declared(
        name='pose_source', default='topic', choices=('topic', 'tf', 'none'),
        description='Where the tool pose comes from: PoseStamped on ~/tool_pose, tf, or nowhere.'),
    Declared(
        name='tool_frame', default='tool0',
        description='Frame of the tool for pose_source tf.'),
    Declared(
        name='gripper_interface', default='topic', choices=('topic', 'none'),
        description='topic: Float64 on ~/gripper_command, 1 open and 0 closed, on change.'),
    *(_limit(name, description) for name, description in _LIMITS.items()),
)


def control_parameters(values: SimpleNamespace) -> ControlParameters:
    """
    Return the controller's parameters from the node's.

    :raises ValueError: two of them contradict each other.
    """
    if values.pose_source == 'none' and (
            values.workspace_enabled or values.output_mode == 'pose'):
        raise ValueError(
            'parameter pose_source: expected topic or tf, because workspace_enabled and'
            " output_mode pose need the tool pose, found 'none'")
    limits = {name: getattr(values, name) for name in _LIMITS}
    for name in ('workspace_min_m', 'workspace_max_m'):
        limits[name] = tuple(limits[name])
    return ControlParameters(
        command_period_s=1.0 / values.command_rate_hz,
        pose_output=values.output_mode == 'pose', **limits)
