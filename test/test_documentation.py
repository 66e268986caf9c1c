"""What README and docs say about parameters and files is what the code does."""

import json
from pathlib import Path
import re

import pytest

from vla_policy_node.vla_config import VlaConfig

ROOT = Path(__file__).resolve().parents[1]
NODES = ('policy', 'controller', 'simulator')


def parameter_row(entry) -> str:
    """Return the row of docs/parameters.md for one declared parameter."""
    if entry.choices:
        allowed = ', '.join(f'`{choice}`' if choice else 'empty' for choice in entry.choices)
    elif entry.minimum is not None:
        allowed = f'{entry.minimum:g} to {entry.maximum:g}'
    else:
        allowed = ''
    default = json.dumps(entry.default) if entry.default != '' else 'empty'
    return f'| `{entry.name}` | {default} | {allowed} | {entry.description} |'


@pytest.mark.parametrize('node', NODES)
def test_every_parameter_is_documented_with_its_default_and_range(node):
    pytest.importorskip('rclpy')
    module = pytest.importorskip(f'vla_policy_node.nodes.{node}_parameters')
    documented = (ROOT / 'docs' / 'parameters.md').read_text(encoding='utf-8')
    section = documented.split(f'## {node}_node\n')[1].split('\n## ')[0]
    rows = [line for line in section.splitlines() if line.startswith('| `')]
    assert rows == [parameter_row(entry) for entry in module.PARAMETERS]


def test_the_checkpoint_example_of_the_readme_is_a_valid_one(tmp_path):
    readme = (ROOT / 'README.md').read_text(encoding='utf-8')
    example = readme.split('<!-- example: vla_config.json -->\n```json\n')[1].split('```')[0]
    (tmp_path / 'vla_config.json').write_text(example)
    config = VlaConfig.load(tmp_path)
    assert config.tokenizer.scheme == 'overwritten'


@pytest.mark.parametrize('name', ['README.md', 'docs/architecture.md', 'docs/parameters.md'])
def test_links_lead_to_files_that_exist(name):
    path = ROOT / name
    links = re.findall(r'\]\(([^)#]+)\)', path.read_text(encoding='utf-8'))
    missing = [link for link in links
               if '://' not in link and not (path.parent / link).exists()]
    assert missing == []
