"""Small sources and configurations for the tests of fine-tuning."""

from pathlib import Path

import numpy as np

from vla_policy_node.training.finetune.base import open_folder
from vla_policy_node.training.finetune.base import open_language
from vla_policy_node.training.finetune.config import FinetuneConfig
from vla_policy_node.training.finetune.config import parse_config
from vla_policy_node.training.finetune.parts import gather
from vla_policy_node.training.finetune.parts import Parts
from vla_policy_node.training.finetune.run import accelerating
from vla_policy_node.training.finetune.run import train
from vla_policy_node.training.journal import Journal
from vla_policy_node.training.journal import read_journal
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import RobotRecord
from vla_policy_node.training.sources.records import TextRecord

LEVELS = (20, 220)


class FakeRobot:
    """Steps whose action depends on how bright the picture is; corrupt: numbers that fail."""

    kind = 'robot'
    thread_safe = True

    def __init__(self, name='robot', records=16, corrupt=(), plan='', horizon=1):
        self.name = name
        self._records = records
        self._corrupt = set(corrupt)
        self._plan = plan
        self._horizon = horizon

    def __len__(self):
        return self._records

    def __getitem__(self, index):
        if index in self._corrupt:
            raise RecordError(f'{self.name}.bin: record {index}: damaged')
        rgb = np.full((40, 48, 3), LEVELS[index % 2], np.uint8)
        actions = np.repeat(self.actions()[index][None], self._horizon, axis=0)
        return RobotRecord(images={'primary': rgb}, instruction='pick up the red block',
                           actions=actions, plan=self._plan)

    @property
    def episodes(self):
        return np.arange(self._records) // 2

    def fingerprint(self):
        return '0' * 64

    def actions(self):
        sign = np.where(np.arange(self._records) % 2, 1.0, -1.0)
        scale = np.array([0.03, 0.02, 0.01, 0.1, 0.1, 0.1, 0.0])
        actions = sign[:, None] * scale
        actions[:, 6] = sign > 0
        return actions


class FakeText:
    """Questions whose answer depends on how bright the picture is; every fourth has no picture."""

    kind = 'text'
    thread_safe = True

    def __init__(self, name='text', records=12):
        self.name = name
        self._records = records

    def __len__(self):
        return self._records

    def __getitem__(self, index):
        if index % 4 == 3:
            return TextRecord(question='what is red ?', answer='block')
        rgb = np.full((30, 50, 3), LEVELS[index % 2], np.uint8)
        return TextRecord(question='what is the block ?', answer=('green', 'red')[index % 2],
                          images={'picture': rgb})

    @property
    def episodes(self):
        return np.arange(self._records) // 2

    def fingerprint(self):
        return '1' * 64


def config_content(base: Path, **changes) -> dict:
    """Return a small configuration as YAML would hold it; changes: whole sections."""
    return {
        'recipe': 'finetune', 'name': 'tiny', 'base': str(base),
        'sources': {'robot': {'kind': 'simulator', 'scenes': {'first': 0, 'scenes': 1,
                                                              'frames': 1}}},
        'mixture': {'temperature': 1.0},
        'tuning': {'method': 'lora', 'rank': 4, 'alpha': 8},
        'training': {'steps': 6, 'batch_size': 4, 'lr': 1e-2, 'precision': 'fp32',
                     'save_every': 100, 'workers': 0},
        'validation': {'share': 0.0},
        **changes,
    }


def make_config(base: Path, **changes) -> FinetuneConfig:
    """Return the same, validated."""
    return parse_config(config_content(base, **changes), 'test')


def make_parts(config: FinetuneConfig, *sources) -> Parts:
    """Return the parts of a run on these sources, or on a robot and a text one."""
    folder = open_folder(config.base)
    chosen = sources or (FakeRobot(), FakeText())
    return gather(config, folder, open_language(config, folder),
                  {source.name: source for source in chosen})


def run_training(config: FinetuneConfig, work: Path, *sources, sinks=()) -> Path:
    """Train in `work` and return the policy folder."""
    with Journal(work, sinks) as journal, accelerating(config) as accelerator:
        train(accelerator, config, make_parts(config, *sources), work, work / 'out', journal)
    return work / 'out'


def records(work: Path, kind: str) -> list[dict]:
    """Return the records of one kind in the log."""
    return [record for record in read_journal(work) if record['kind'] == kind]


def losses(work: Path) -> dict[int, float]:
    """Return the last logged loss of every step."""
    return {record['step']: record['loss']['all'] for record in records(work, 'train')}
