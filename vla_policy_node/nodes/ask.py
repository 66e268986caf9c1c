"""
Ask the policy node about what the camera sees now.

    ros2 run vla_policy_node ask "which blocks are on the table?"

Exit code: 0 answered, 1 not answered or no server.
"""

import argparse
import sys

from vla_msgs.srv import Ask

from vla_policy_node.nodes import command_line

_ANSWER_WAIT_S = 300.0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='ask', description='Ask the policy node about what the camera sees now.')
    parser.add_argument('question', help='an ordinary question')
    parser.add_argument(
        '--max-new-tokens', type=int, default=0, metavar='N',
        help="longest answer in tokens; 0 for the node's own (default)")
    parser.add_argument('--policy', default='/policy_node', help='name of the policy node')
    command_line.add_wait_option(parser)
    options = parser.parse_args(command_line.arguments())
    if options.max_new_tokens < 0:
        parser.error(f'--max-new-tokens: expected 0 or more, found {options.max_new_tokens}')
    return options


def _ask() -> int:
    options = _parse()
    with command_line.short_lived_node('ask') as node:
        client = node.create_client(Ask, f'{options.policy}/ask')
        request = Ask.Request(question=options.question, max_new_tokens=options.max_new_tokens)
        response = command_line.call(
            node, client, request, wait_s=options.wait, timeout_s=_ANSWER_WAIT_S)
    if not response.success:
        raise command_line.CommandError(f'no answer: {response.message}')
    print(response.answer)
    if response.message:
        print(f'caution: {response.message}', file=sys.stderr)
    return 0


def main() -> None:
    """Ask the question of the command line."""
    sys.exit(command_line.run_command(_ask))


if __name__ == '__main__':
    main()
