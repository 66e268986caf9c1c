"""The parameters of the controller node; config/controller_node.yaml holds the same values."""

from types import SimpleNamespace
from typing import Any

from vla_policy_node.control import ControlParameters
from vla_policy_node.control import HANDOVERS
from vla_policy_node.control import RANGES
from vla_policy_node.nodes.parameters import Declared

_DEFAULTS = ControlParameters()

# Fields of ControlParameters that are parameters of the node, each with its text.
_LIMITS = {
    'base_frame': 'The only frame in which actions are accepted; frame of the commands.',
    'action_frame':
        'What the checkpoint calls base_frame, whose axes must be the same; empty for that name.',
    'command_timeout_s':
        'Greatest age of the action behind a command, by its camera stamp and by receipt [s].',
    'max_clock_skew_s': 'How far in the future a camera stamp may lie [s].',
    'clock_timeout_s': 'Nothing moves while the ROS clock has made no progress for so long [s].',
    'deadman_timeout_s': 'Nothing moves when the deadman topic was silent for longer [s].',
    'chunk_handover':
        'A newer chunk replaces the rest of the older one, blends from it within blend_s, or is'
        ' averaged with all that predict the moment.',
    'blend_s': 'Time of a blend [s].',
    'ensemble_decay': 'A chunk weighs exp(-ensemble_decay) of the next newer one.',
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
    'max_linear_mps3': 'Greatest jerk, stopping excluded [m/s^3]; 0 for no limit.',
    'max_angular_radps3': 'Greatest angular jerk, stopping excluded [rad/s^3]; 0 for no limit.',
    'smoothing_s': 'Time constant of a low-pass on the wanted velocity [s]; 0 for none.',
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
        name=name, default=default, description=description, minimum=minimum, maximum=maximum,
        choices=HANDOVERS if name == 'chunk_handover' else ())


_OUTPUT = (
    Declared(
        name='output_mode', default='twist', choices=('twist', 'pose', 'none'),
        description='TwistStamped on ~/delta_twist_cmds, PoseStamped on ~/target_pose, or'
                    ' neither.'),
    Declared(
        name='command_topic', default='',
        description='Topic of the commands instead of the private one; a remapping wins.'),
    Declared(
        name='dry_run', default=True,
        description='Compute and report commands but send none, the gripper included.'),
    Declared(
        name='command_rate_hz', default=100.0, minimum=10.0, maximum=250.0,
        description='Rate of the commands [Hz].'),
    Declared(
        name='realtime_priority', default=20, minimum=0, maximum=90,
        description='Priority of the process before all without one, where permitted; 0 for'
                    ' none.'),
    Declared(
        name='robot_interface', default='topic', choices=('topic', 'moveit_servo'),
        description='Who takes the commands: whoever listens, or MoveIt Servo, which is told their'
                    ' type and watched.'),
    Declared(
        name='servo_node', default='/servo_node', description='Full name of the Servo node.'),
    Declared(
        name='servo_timeout_s', default=0.5, minimum=0.05, maximum=10.0,
        description='Longest halt, and longest silence, of Servo while moving [s]; then a fault.'),
)

_TOOL_POSE = (
    Declared(
        name='pose_source', default='topic', choices=('topic', 'tf', 'none'),
        description='Where the tool pose comes from: PoseStamped on ~/tool_pose, tf, or nowhere.'),
    Declared(
        name='tool_pose_topic', default='',
        description='Topic of the tool pose instead of ~/tool_pose; a remapping wins.'),
    Declared(
        name='tool_frame', default='tool0',
        description='Frame of the tool for pose_source tf.'),
)

_GRIPPER = (
    Declared(
        name='gripper_interface', default='topic',
        choices=('topic', 'gripper_command', 'parallel_gripper_command', 'none'),
        description='Float64 on ~/gripper_command or an action of control_msgs; on change only.'),
    Declared(
        name='gripper_topic', default='',
        description='Topic of the gripper instead of ~/gripper_command; a remapping wins.'),
    Declared(
        name='gripper_action', default='',
        description='Name of the action, such as /gripper_controller/gripper_cmd.'),
    Declared(
        name='gripper_joint', default='',
        description='Joint that parallel_gripper_command names.'),
    Declared(
        name='gripper_open_position', default=1.0, minimum=-10.0, maximum=10.0,
        description='What is sent to open, as the gripper counts [1, m or rad].'),
    Declared(
        name='gripper_closed_position', default=0.0, minimum=-10.0, maximum=10.0,
        description='What is sent to close, as the gripper counts [1, m or rad].'),
    Declared(
        name='gripper_max_effort', default=0.0, minimum=0.0, maximum=1000.0,
        description='Greatest effort of a gripper action [N].'),
)

_INTERLOCKS = (
    Declared(
        name='deadman_topic', default='',
        description='Motion only while std_msgs/Bool true keeps arriving here; empty for none.'),
)

PARAMETERS = (
    *_OUTPUT, *_TOOL_POSE, *_GRIPPER, *_INTERLOCKS,
    *(_limit(name, description) for name, description in _LIMITS.items()),
)


def control_parameters(values: SimpleNamespace) -> ControlParameters:
    """
    Return the controller's parameters from the node's.

    :raises ValueError: two of them contradict each other.
    """
    _check_combinations(values)
    limits = {name: getattr(values, name) for name in _LIMITS}
    for name in ('workspace_min_m', 'workspace_max_m'):
        limits[name] = tuple(limits[name])
    return ControlParameters(
        command_period_s=1.0 / values.command_rate_hz,
        pose_output=values.output_mode == 'pose', **limits)


def _check_combinations(values: SimpleNamespace) -> None:
    if values.pose_source == 'none' and (
            values.workspace_enabled or values.output_mode == 'pose'):
        raise ValueError(
            'parameter pose_source: expected topic or tf, because workspace_enabled and'
            " output_mode pose need the tool pose, found 'none'")
    if values.robot_interface == 'moveit_servo' and values.output_mode == 'none':
        raise ValueError(
            'parameter output_mode: expected twist or pose for robot_interface moveit_servo,'
            " found 'none'")
    if values.gripper_interface.endswith('_command') and not values.gripper_action:
        raise ValueError(
            'parameter gripper_action: expected the name of an action for gripper_interface'
            f" {values.gripper_interface}, found ''")
    if values.gripper_interface == 'parallel_gripper_command' and not values.gripper_joint:
        raise ValueError(
            'parameter gripper_joint: expected the name of a joint for gripper_interface'
            " parallel_gripper_command, found ''")
