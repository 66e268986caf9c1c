"""
Episodes of bags: what the robot saw, was told and did, ready to be looked at in order.

A bag is read twice from beginning to end: once for everything but pixels, and once for the
pictures that were chosen, of which only those are decoded.
"""

from collections import Counter
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from vla_policy_node.recorded.config import RecordedConfig
from vla_policy_node.recorded.episodes import Frames
from vla_policy_node.recorded.episodes import Stretch
from vla_policy_node.recorded.episodes import stretches
from vla_policy_node.recorded.messages import Column
from vla_policy_node.recorded.messages import require_topics
from vla_policy_node.recorded.messages import scan
from vla_policy_node.recorded.pictures import PictureReader
from vla_policy_node.recordings import DamagedError
from vla_policy_node.recordings import Recording
from vla_policy_node.recordings import RecordingError

# Of the reasons why nothing can be used, those that concern most frames.
_SHOWN_REASONS = 3


@dataclass(frozen=True, eq=False)
class RecordedEpisode:
    """
    One stretch of a bag with one instruction, as N frames.

    number: counted over all bags. stamp_ns: (N,) int64 ascending, stamps of the first camera's
    pictures, or their times of receipt where that camera has no stamps. received_ns: (N,) int64,
    when they were received, for log times. period_s: of one action.
    """

    path: Path
    number: int
    instruction: str
    period_s: float
    _stretch: Stretch
    _pictures: PictureReader

    def __len__(self) -> int:
        return len(self.stamp_ns)

    @property
    def stamp_ns(self) -> np.ndarray:
        return self._stretch.frames.stamp_ns

    @property
    def received_ns(self) -> np.ndarray:
        return self._stretch.frames.received_ns

    @property
    def places(self) -> np.ndarray:
        """(N, C) int64, the place of each camera's picture in its topic."""
        return self._stretch.frames.places

    @cached_property
    def actions(self) -> np.ndarray:
        """(N, 7) float64 canonical: what was done in the period from each stamp on."""
        return self._stretch.over(0)

    @cached_property
    def previous(self) -> np.ndarray:
        """(N, 7) float64 canonical: what was done in the period before; NaN at the start."""
        return self._stretch.over(-1)

    def chunks(self, horizon: int) -> np.ndarray:
        """Return the (N, K, 7) actions of K periods from each stamp on; NaN behind the end."""
        return np.stack([self._stretch.over(later) for later in range(horizon)], axis=1)

    def images(self, step: int) -> Mapping[str, np.ndarray]:
        """
        Return camera name -> (H, W, 3) uint8 RGB of one step, read and decoded now.

        For a look at single frames: RecordedBags.frames reads many in order, which is faster.
        Raises ImageError or RecordingError.
        """
        return self._pictures.read(self.places[range(len(self))[step]])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedFrame:
    """One step of an episode with its pictures, (H, W, 3) uint8 RGB by camera name."""

    episode: RecordedEpisode
    step: int
    images: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordedBags:
    """
    What some bags recorded; opened by read_bags.

    skipped: reason -> how many frames or messages were left out. warnings: what else a reader of
    the results should know, a line each. frame_ids: header.frame_id of the actions' messages.
    """

    episodes: Sequence[RecordedEpisode]
    skipped: Counter[str]
    warnings: list[str]
    frame_ids: frozenset[str]
    _readers: Sequence[PictureReader]
    _counted: set[Path] = field(default_factory=set)

    def __len__(self) -> int:
        return sum(len(episode) for episode in self.episodes)

    def frames(self, wanted: Sequence[Sequence[int]] | None = None) -> Iterator[RecordedFrame]:
        """
        Yield the steps of all episodes in order, reading every bag once.

        wanted: for each episode its steps, ascending, whose pictures alone are decoded; None: all.
        A step with a picture that cannot be decoded is left out, and counted the first time. A
        bag that cannot be read on ends there, with a warning.
        """
        chosen = wanted or [range(len(episode)) for episode in self.episodes]
        for reader in self._readers:
            steps = [(episode, int(step))
                     for episode, own in zip(self.episodes, chosen, strict=True)
                     if episode._pictures is reader for step in own]
            if not steps:
                continue
            places = np.stack([episode.places[step] for episode, step in steps])
            is_new = reader.path not in self._counted
            skipped = self.skipped if is_new else Counter()
            remarks = []
            try:
                for row, images in reader.read_all(places, skipped):
                    episode, step = steps[row]
                    yield RecordedFrame(episode=episode, step=step, images=images)
            except RecordingError as error:
                remarks.append(f'not read to the end: {error}')
            if is_new:
                self._counted.add(reader.path)
                self.warnings.extend([*remarks, *reader.remarks()])
            reader.close()


def read_bags(
    paths: Sequence[Path], config: RecordedConfig, *, period_s: float,
    instruction: str | None = None, max_frames: int | None = None,
) -> RecordedBags:
    """
    Find the episodes of bags, reading everything but pixels.

    period_s: of the policy's actions. instruction: said all the time, whatever the configuration
    names. max_frames: leave out what comes later.
    A damaged bag is read as far as it goes, a bag that does not serve is left out with a warning.
    Raises RecordingError where no bag serves; then it says why the first one does not.
    """
    opening = _Opening(config, period_s, instruction)
    episodes: list[RecordedEpisode] = []
    left = max_frames
    for path in dict.fromkeys(Path(path) for path in paths):
        if left == 0:
            break
        for stretch, reader in opening.read(path):
            stretch, left = _first(stretch, left)
            if len(stretch.frames):
                episodes.append(RecordedEpisode(
                    path, len(episodes), stretch.instruction, period_s, stretch, reader))
    if not episodes:
        raise opening.fault or _nothing(paths, opening.skipped)
    return RecordedBags(
        episodes=episodes, skipped=opening.skipped, warnings=opening.warnings,
        frame_ids=frozenset(opening.frame_ids),
        _readers=list(dict.fromkeys(episode._pictures for episode in episodes)))


def check_topics(path: Path, config: RecordedConfig) -> None:
    """
    Look whether a bag has the topics of a configuration, without reading its messages.

    Raises RecordingError; not for a damaged bag, of which only reading tells what is left, nor
    for one that would have to be unpacked first.
    """
    if path.suffix == '.zstd' or any(path.glob('*.zstd')):
        return
    try:
        with Recording(path) as recording:
            require_topics(recording, config)
    except DamagedError:
        return


class _Opening:
    """Reads bag after bag, and keeps what is to be said about them."""

    def __init__(self, config: RecordedConfig, period_s: float, instruction: str | None) -> None:
        self.skipped: Counter[str] = Counter()
        self.warnings: list[str] = []
        self.frame_ids: set[str] = set()
        self.fault: RecordingError | None = None
        self._config = config
        self._period_s = period_s
        self._instruction = instruction

    def read(self, path: Path) -> list[tuple[Stretch, PictureReader]]:
        """Return the stretches of a bag; none, and a warning, where it does not serve."""
        try:
            recording, columns = _scanned(path, self._config, self.skipped, self.warnings)
            said = self._instruction
            if said is None:
                said = _fixed_words(recording, self._config)
        except RecordingError as error:
            self.fault = self.fault or error
            self.skipped['bag left out'] += 1
            self.warnings.append(f'left out: {error}')
            return []
        found = list(stretches(columns, self._config, period_s=self._period_s, instruction=said,
                               skipped=self.skipped))
        if not found:
            self.skipped['bag without a usable frame'] += 1
            self.warnings.append(f'{path}: no frame can be used, see what was skipped')
        self.frame_ids.update(columns[self._config.actions.topic].frame_ids)
        recording.close()
        reader = PictureReader(recording, self._config.cameras, columns)
        return [(stretch, reader) for stretch in found]


def _scanned(
    path: Path, config: RecordedConfig, skipped: Counter[str], warnings: list[str],
) -> tuple[Recording, Mapping[str, Column]]:
    """Read a bag whole, or else what is left of it."""
    counted: Counter[str] = Counter()
    try:
        recording = Recording(path)
        columns = scan(recording, config, counted)
    except DamagedError as error:
        counted.clear()
        try:
            recording = Recording(path, salvage=True)
            columns = scan(recording, config, counted)
        except DamagedError:
            raise error from None
        lost = recording.damage or 'its index is missing, all messages could be read'
        warnings.append(f'{path} is damaged: {lost}')
    skipped.update(counted)
    return recording, columns


def _fixed_words(recording: Recording, config: RecordedConfig) -> str | None:
    """Return the words that hold all the time, None where a topic says them."""
    source = config.instruction
    if source is None:
        raise RecordingError(
            f'{recording.path}: expected to be told where the instruction comes from, found '
            'nothing; set instruction in the configuration or on the command line')
    if source.metadata is None:
        return source.text
    custom = recording.custom_data
    if source.metadata not in custom:
        raise RecordingError(
            f'{recording.path}: expected {source.metadata!r} in the metadata of the bag, found '
            f'{", ".join(custom) or "none"}; set instruction in the configuration or on the '
            'command line')
    return custom[source.metadata]


def _first(stretch: Stretch, count: int | None) -> tuple[Stretch, int | None]:
    """Return at most `count` frames of a stretch, and how many may follow."""
    if count is None:
        return stretch, None
    frames: Frames = stretch.frames.at(slice(0, count))
    return replace(stretch, frames=frames), count - len(frames)


def _nothing(paths: Sequence[Path], skipped: Mapping[str, int]) -> RecordingError:
    reasons = sorted(skipped.items(), key=lambda item: -item[1])[:_SHOWN_REASONS]
    why = ', '.join(f'{reason} ({count})' for reason, count in reasons) or 'no frame'
    return RecordingError(
        f'{", ".join(str(path) for path in paths)}: expected frames with an instruction and an '
        f'action, found none: {why}; check the topics in the configuration')
