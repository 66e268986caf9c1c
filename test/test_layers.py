"""The rooms of the package do not know what they must not know."""

import configparser
import os
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent

WITHOUT_TORCH = [
    'vla_policy_node.action_space',
    'vla_policy_node.action_tokenizer',
    'vla_policy_node.bringup',
    'vla_policy_node.control',
    'vla_policy_node.evaluation.replay.report',
    'vla_policy_node.evaluation.replay.summary',
    'vla_policy_node.images',
    'vla_policy_node.policy',
    'vla_policy_node.prompts',
    'vla_policy_node.recorded',
    'vla_policy_node.vla_config',
]
NODES_WITHOUT_TORCH = [
    'vla_policy_node.nodes.ask',
    'vla_policy_node.nodes.controller_node',
    'vla_policy_node.nodes.instruct',
    'vla_policy_node.nodes.policy_node',
    'vla_policy_node.nodes.simulator_node',
]


def imported_modules(module: str) -> set[str]:
    """Return the top-level modules that a fresh process holds after one import."""
    code = f'import sys, {module}; print(*{{name.split(".")[0] for name in sys.modules}})'
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), *sys.path])}
    result = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True,
                            text=True, check=False)
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.slow
@pytest.mark.parametrize('module', WITHOUT_TORCH)
def test_it_starts_without_torch_and_without_ros(module):
    assert not {'torch', 'transformers', 'rclpy'} & imported_modules(module)


@pytest.mark.slow
@pytest.mark.parametrize('module', NODES_WITHOUT_TORCH)
def test_a_node_that_has_loaded_no_model_has_not_imported_torch(module):
    pytest.importorskip('rclpy')
    pytest.importorskip('vla_msgs')
    assert not {'torch', 'transformers'} & imported_modules(module)


def test_every_core_module_is_under_the_contract_for_core_modules():
    config = configparser.ConfigParser()
    config.read(ROOT / '.importlinter')
    listed = config['importlinter:contract:core']['source_modules'].split()
    core = [f'vla_policy_node.{path.stem}' for path in (ROOT / 'vla_policy_node').glob('*.py')
            if path.stem != '__init__']
    assert sorted(listed) == sorted([*core, 'vla_policy_node.recorded'])


def test_the_import_contracts_hold():
    pytest.importorskip('importlinter')
    code = 'from importlinter.cli import lint_imports_command; lint_imports_command()'
    command = [sys.executable, '-c', code, '--no-cache', '--no-logo']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
