"""The record of one demo run: what summary.json says, from what was measured."""

from collections.abc import Mapping
from collections.abc import Sequence
import importlib.metadata
import json
import os
from pathlib import Path
import platform

from vla_policy_node.evaluation.episodes import EpisodePlan
from vla_policy_node.evaluation.episodes import EpisodeResult
from vla_policy_node.evaluation.episodes import outcomes_by_verb
from vla_policy_node.evaluation.statistics import success_entry

FORMAT_VERSION = 1

# What stands beside the live policy, as a reader knows it; the order is that of the tables.
FLOOR_NAMES = {
    'expert': 'expert',
    'no_op': 'no-op',
    'random': 'random',
    'wrong_instruction': 'wrong instruction',
    'policy_lock_step': 'policy, lock-step',
}

_PACKAGES = (
    'torch', 'transformers', 'bitsandbytes', 'mujoco', 'numpy', 'ros-jazzy-rclpy',
    'ros-kilted-rclpy')


def success_summary(results: Sequence[EpisodeResult]) -> dict[str, object]:
    """Return the part of the summary about success of the live episodes."""
    outcomes = [result.succeeded for result in results]
    overall = success_entry(outcomes)
    grouped = outcomes_by_verb([result.plan for result in results], outcomes)
    followed = [result.nearest_block == result.plan.task.rsplit(' ', 1)[1] for result in results]
    return {
        'episodes': len(results),
        'successes': overall['success'],
        'success_rate': overall['rate'],
        'success_interval_95': overall['interval_95'],
        'per_task': {verb: success_entry(values) for verb, values in grouped.items()},
        'nearest_block_commanded': success_entry(followed),
        'episode_results': [result.to_dict() for result in results],
    }


def floor_summary(plans: Sequence[EpisodePlan], outcomes: Sequence[bool]) -> dict[str, object]:
    """Return a floor's entry: overall success and success per task."""
    grouped = outcomes_by_verb(plans, outcomes)
    return {
        **success_entry(outcomes),
        'per_task': {verb: success_entry(values) for verb, values in grouped.items()},
    }


def machine() -> dict[str, object]:
    """Return what the numbers of a run depend on: processor, cores, memory, system."""
    return {
        'system': platform.platform(),
        'processor': _processor(),
        'cores': os.cpu_count(),
        'memory_gib': round(
            os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2 ** 30, 1),
        'python': platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the installed versions of the packages that matter, without importing them."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    if os.environ.get('ROS_DISTRO'):
        found['ROS_DISTRO'] = os.environ['ROS_DISTRO']
    return found


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """Write a JSON file that is there completely or not at all."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + '\n')


def write_text(path: Path, text: str) -> None:
    """Write a text file that is there completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}.{os.getpid()}')
    unfinished.write_text(text, encoding='utf-8')
    unfinished.replace(path)


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()
