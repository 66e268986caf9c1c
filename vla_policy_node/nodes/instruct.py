"""
Send one instruction to the policy node and show how it goes.

    ros2 run vla_policy_node instruct "pick up the red block" --max-duration 30 --enable

Exit code: 0 done, 1 not done or no server, 130 interrupted (the instruction is cancelled).
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from contextlib import nullcontext
import sys
from typing import Any

from rclpy.action import ActionClient
from rclpy.client import Client
from rclpy.node import Node
from rich.console import Console
from rich.progress import Progress
from rich.progress import SpinnerColumn
from rich.progress import TextColumn
from rich.progress import TimeElapsedColumn
from std_srvs.srv import SetBool
from vla_msgs.action import ExecuteInstruction

from vla_policy_node.nodes import command_line
from vla_policy_node.nodes.controller_view import ControllerView
from vla_policy_node.nodes.conversions import duration_message
from vla_policy_node.nodes.status import RESULT_TEXT
from vla_policy_node.prompts import clean_instruction

# Longer than any instruction; the policy node ends it at its own max_duration.
_RESULT_WAIT_S = 2 * 3600.0
_REPLY_WAIT_S = 5.0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='instruct', description='Send one instruction to the policy node.')
    parser.add_argument('instruction', help='what the robot shall do, in words')
    parser.add_argument(
        '--max-duration', type=float, default=0.0, metavar='S',
        help="longest time in seconds; 0 for the node's own (default)")
    parser.add_argument(
        '--enable', action='store_true',
        help='open the interlock of the controller for this instruction and close it afterwards')
    parser.add_argument('--policy', default='/policy_node', help='name of the policy node')
    parser.add_argument(
        '--controller', default='/controller_node', help='name of the controller node')
    command_line.add_wait_option(parser)
    options = parser.parse_args(command_line.arguments())
    if not 0.0 <= options.max_duration <= 3600.0:
        parser.error(f'--max-duration: expected 0 to 3600 s, found {options.max_duration:g}')
    return options


def _enable(node: Node, client: Client, options: argparse.Namespace, value: bool) -> None:
    answer = command_line.call(
        node, client, SetBool.Request(data=value), wait_s=options.wait, timeout_s=_REPLY_WAIT_S)
    if not answer.success:
        raise command_line.CommandError(f'{options.controller} refused: {answer.message}')


@contextmanager
def _open_interlock(node: Node, options: argparse.Namespace) -> Iterator[None]:
    # One client for both calls: the one that closes must not have to look for the server first.
    client = node.create_client(SetBool, f'{options.controller}/enable')
    _enable(node, client, options, True)
    try:
        yield
    finally:
        _enable(node, client, options, False)


def _send(node: Node, options: argparse.Namespace, on_feedback: Any) -> Any:
    """Return the handle of the accepted goal."""
    action = f'{options.policy}/execute_instruction'
    client = ActionClient(node, ExecuteInstruction, action)
    if not client.wait_for_server(options.wait):
        raise command_line.nobody_offers(f'action {action}', options.wait)
    goal = ExecuteInstruction.Goal(
        instruction=clean_instruction(options.instruction),
        max_duration=duration_message(options.max_duration))
    future = client.send_goal_async(goal, feedback_callback=on_feedback)
    handle = command_line.wait_for(node, future, _REPLY_WAIT_S, 'an answer of the policy node')
    if not handle.accepted:
        raise command_line.CommandError(
            'the policy node refused the instruction: it carries out another one')
    return handle


def _follow(
    node: Node, options: argparse.Namespace, console: Console, controller: ControllerView,
) -> Any:
    """Return the result of the instruction, showing its progress."""
    columns = (SpinnerColumn(), TextColumn('{task.description}'), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(options.instruction, total=None)

        def on_feedback(message: Any) -> None:
            feedback = message.feedback
            plan = f' | {feedback.plan}' if feedback.plan else ''
            state = controller.now()
            robot = f' | {state}' if state else ''
            progress.update(task, description=(
                f'{options.instruction}: {feedback.steps} chunks,'
                f' {feedback.latency_ms:.0f} ms{plan}{robot}'))

        handle = _send(node, options, on_feedback)
        future = handle.get_result_async()
        try:
            return command_line.wait_for(node, future, _RESULT_WAIT_S, 'a result').result
        except KeyboardInterrupt:
            command_line.wait_for(
                node, handle.cancel_goal_async(), _REPLY_WAIT_S, 'the cancellation')
            raise


def _instruct() -> int:
    options = _parse()
    console = Console()
    with command_line.short_lived_node('instruct') as node:
        controller = ControllerView(node, options.controller)
        interlock = _open_interlock(node, options) if options.enable else nullcontext()
        with interlock:
            result = _follow(node, options, console, controller)
            followed = controller.summary()
    text = RESULT_TEXT.get(result.error_code, f'error {result.error_code}')
    detail = f': {result.error_msg}' if result.error_msg else ''
    console.print(
        f'{text} after {result.steps} chunks{detail}\n{followed}', markup=False, highlight=False,
        soft_wrap=True)
    return 0 if result.error_code == ExecuteInstruction.Result.NONE else 1


def main() -> None:
    """Send the instruction of the command line."""
    sys.exit(command_line.run_command(_instruct))


if __name__ == '__main__':
    main()
