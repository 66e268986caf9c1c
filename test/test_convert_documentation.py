"""The examples of docs/convert.md are valid."""

from pathlib import Path

import pytest
import yaml

from vla_policy_node.recorded import RecordedConfig
from vla_policy_node.training.convert import bag
from vla_policy_node.training.convert.to_bag import read_section
from vla_policy_node.training.sources.config import LeRobotSection

TEXT = (Path(__file__).resolve().parents[1] / 'docs/convert.md').read_text(encoding='utf-8')


def example(name: str) -> str:
    return TEXT.split(f'<!-- example: {name} -->\n```yaml\n')[1].split('```')[0]


def test_the_configuration_of_a_public_data_set_is_valid(tmp_path):
    (tmp_path / 'drawer.yaml').write_text(example('drawer.yaml'))
    section = read_section(tmp_path / 'drawer', tmp_path / 'drawer.yaml')
    assert section.instruction == 'open the drawer'


def test_the_configuration_of_a_replay_names_the_topics_that_are_written():
    config = RecordedConfig.model_validate(yaml.safe_load(example('replay.yaml')))
    assert config.cameras == {'primary': bag.camera_topic('front', raw=False)}
    assert config.actions.topic == bag.CHUNK_TOPIC
    assert config.instruction.topic == bag.INSTRUCTION_TOPIC


def test_the_source_of_training_is_valid():
    content = yaml.safe_load(TEXT.split('To train on it:\n\n```yaml\n')[1].split('```')[0])
    assert LeRobotSection.model_validate(content['own']).actions.mode == 'delta'


@pytest.mark.parametrize('text', [
    f'JPEG of quality {bag.JPEG_QUALITY}', f'and {bag.PAUSE_S:g} s pass between episodes'])
def test_the_numbers_are_those_of_the_code(text):
    assert text in TEXT
