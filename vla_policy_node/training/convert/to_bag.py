"""From a LeRobot data set of version 2.0, 2.1 or 3.0 to a bag."""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
import json
from pathlib import Path
import tempfile
from typing import Any

from pydantic import ValidationError

from vla_policy_node.action_space import DIM_NAMES
from vla_policy_node.training.convert.bag import DemonstrationBag
from vla_policy_node.training.convert.dataset import PICTURES
from vla_policy_node.training.convert.finished import ConvertError
from vla_policy_node.training.convert.finished import finished_at
from vla_policy_node.training.sources.config import LeRobotSection
from vla_policy_node.training.sources.lerobot import LeRobotSource
from vla_policy_node.training.sources.lerobot_layout import Layout
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import RobotSource
from vla_policy_node.yaml_file import one_line
from vla_policy_node.yaml_file import read_mapping

# What our own data sets have, see docs/convert.md.
_OWN_ACTIONS = {
    'mode': 'delta', 'translation': {'indices': [0, 1, 2]}, 'rotation': {'indices': [3, 4, 5]},
    'gripper': {'index': 6}}
EXAMPLES = 'docs/convert.md'


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenBag:
    """What a bag got; unusable: records left out, first_fault: why the first of them."""

    episodes: int
    steps: int
    topics: Mapping[str, str]
    unusable: int
    first_fault: str


def read_section(folder: Path, config: Path | None) -> LeRobotSection:
    """
    Return what the features of a data set mean.

    config: YAML with the keys of a `kind: lerobot` source; needed for data sets that are not our
    own. Raises ConvertError, ValueError or SourceError with one line.
    """
    content = read_mapping(config, examples=EXAMPLES) if config else _own_section(folder)
    try:
        return LeRobotSection.model_validate({**content, 'kind': 'lerobot', 'path': folder})
    except ValidationError as error:
        raise ValueError(one_line(config or folder, error)) from error


def write_bag(
    out: Path, section: LeRobotSection, *, raw: bool = False,
    show: Callable[[int, int], None] = lambda done, total: None,
) -> WrittenBag:
    """
    Write all steps of a data set as a bag at `out`, which must not exist: a file if it is .mcap.

    raw: pixels instead of JPEG data. show: called with the steps done and all of them. Raises
    SourceError where the data set cannot be used, ConvertError where the disk is full.
    """
    fps = Layout(section.path.name, section.path).fps
    with finished_at(out) as made, tempfile.TemporaryDirectory(prefix='convert_') as cache:
        source = LeRobotSource(section.path.name, section, horizon=1, period_s=1.0 / fps,
                               cache=Path(cache))
        folder = made.with_suffix('') if out.suffix == '.mcap' else made
        with DemonstrationBag(folder, cameras=list(section.cameras), period_s=1.0 / fps,
                              raw=raw) as bag:
            copied = _Copy(source, bag)
            for done in range(len(source)):
                copied.step(done)
                show(done + 1, len(source))
        written = copied.finished()
        if folder != made:
            (folder / f'{folder.name}.mcap').rename(made)
        return written


class _Copy:
    """Takes records of a source over, the unusable ones left out."""

    def __init__(self, source: RobotSource, bag: DemonstrationBag) -> None:
        self._source = source
        self._bag = bag
        self._episodes = source.episodes
        self._first = 0
        self._begun: list[int] = []
        self._unusable = 0
        self._first_fault = ''

    def step(self, index: int) -> None:
        """Write the record at `index`."""
        episode = int(self._episodes[index])
        if episode != self._episodes[self._first]:
            self._first = index
        try:
            record = self._source[index]
        except RecordError as error:
            self._unusable += 1
            self._first_fault = self._first_fault or str(error)
            return
        if not self._begun or self._begun[-1] != episode:
            self._bag.begin_episode(record.instruction)
            self._begun.append(episode)
        self._bag.add(index - self._first, record.images, record.actions[0])

    def finished(self) -> WrittenBag:
        """Return what was written; ConvertError where it is nothing."""
        if not self._begun:
            raise ConvertError(f'expected records that can be used, found none of '
                               f'{len(self._source)}; the first fault: {self._first_fault}')
        return WrittenBag(
            episodes=len(self._begun), steps=self._bag.steps, topics=self._bag.topics,
            unusable=self._unusable, first_fault=self._first_fault)


def _own_section(folder: Path) -> Mapping[str, Any]:
    features = _features(folder)
    names = features.get('action', {}).get('names')
    cameras = {key.removeprefix(PICTURES): key for key in features if key.startswith(PICTURES)}
    if names != list(DIM_NAMES) or not cameras:
        raise ConvertError(
            f'{folder}: expected an action of {", ".join(DIM_NAMES)} and pictures as convert '
            f'writes them, found {_described(features)}; say with --config what they mean, see '
            f'{EXAMPLES}')
    return {'cameras': cameras, 'actions': _OWN_ACTIONS}


def _features(folder: Path) -> Mapping[str, Any]:
    layout = Layout(folder.name, folder)
    with layout.reading('meta/info.json'):
        return json.loads((folder / 'meta/info.json').read_text(encoding='utf-8'))['features']


def _described(features: Mapping[str, Any]) -> str:
    own: Sequence[str] = ('timestamp', 'frame_index', 'episode_index', 'index', 'task_index')
    return ', '.join(f'{key} {entry.get("shape")}' for key, entry in features.items()
                     if key not in own)
