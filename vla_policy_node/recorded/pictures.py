"""Pictures of a recording: many in the order they were recorded, or those of one moment."""

from collections import Counter
from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Mapping
from itertools import islice

import numpy as np

from vla_policy_node.images import ImageError
from vla_policy_node.recorded.messages import Column
from vla_policy_node.recordings import read_image
from vla_policy_node.recordings import Recorded
from vla_policy_node.recordings import Recording
from vla_policy_node.recordings import RecordingError


class PictureReader:
    """
    Decodes pictures of one recording, by their places in the topics of the cameras.

    cameras: name -> topic. columns: when the messages of these topics were received.
    """

    def __init__(
        self, recording: Recording, cameras: Mapping[str, str], columns: Mapping[str, Column],
    ) -> None:
        self.path = recording.path
        self._recording = recording
        self._cameras = dict(cameras)
        self._columns = {topic: columns[topic] for topic in cameras.values()}
        self._encodings: dict[str, Counter[str]] = defaultdict(Counter)
        self._faults: dict[str, str] = {}

    def read_all(
        self, places: np.ndarray, skipped: Counter[str],
    ) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        """
        Yield row and pictures of (N, C) places, by row, in one pass over the recording.

        A row with a picture that cannot be decoded is left out and counted.
        """
        waiting = _Waiting(places, list(self._cameras))
        counts = Counter()
        topics = {topic: number for number, topic in enumerate(self._cameras.values())}
        for serialised in self._recording.raw(*topics):
            camera, place = topics[serialised.topic], counts[serialised.topic]
            counts[serialised.topic] += 1
            if not waiting.wants(camera, place):
                continue
            try:
                picture = self._decoded(self._recording.deserialize(serialised))
            except (ImageError, RecordingError) as error:
                self._faults.setdefault(serialised.topic, str(error))
                skipped[f'picture of {serialised.topic} not decodable'] += waiting.drop(
                    camera, place)
            else:
                waiting.enter(camera, place, picture)
            yield from waiting.complete()
            if waiting.is_done:
                return
        raise RecordingError(f'{self.path}: expected pictures that were there before, found the '
                             'end; the bag was changed while it was read')

    def read(self, places: np.ndarray) -> Mapping[str, np.ndarray]:
        """Return the pictures at (C,) places; raises ImageError or RecordingError."""
        return {name: self._decoded(self._message(topic, int(place)))
                for (name, topic), place in zip(self._cameras.items(), places, strict=True)}

    def remarks(self) -> list[str]:
        """Return what is odd about the pictures decoded so far, a line each."""
        mixed = {topic: ', '.join(f'{name} ({count})' for name, count in found.most_common())
                 for topic, found in self._encodings.items() if len(found) > 1}
        return [*(f'{self.path}: {topic} has pictures of several encodings: {found}; each was '
                  'converted as it says' for topic, found in mixed.items()),
                *(f'{self.path}: the first picture of {topic} that is not decodable: {error}'
                  for topic, error in self._faults.items())]

    def close(self) -> None:
        """Let go of the files; they are opened again when needed."""
        self._recording.close()

    def _decoded(self, recorded: Recorded) -> np.ndarray:
        picture = read_image(recorded)
        message = recorded.message
        kind = message.encoding if hasattr(message, 'encoding') else message.format
        self._encodings[recorded.topic][kind] += 1
        return picture

    def _message(self, topic: str, place: int) -> Recorded:
        column = self._columns[topic]
        row = int(np.searchsorted(column.places, place))
        when = int(column.received_ns[row])
        earlier = int(np.count_nonzero(column.received_ns[:row] == when))
        for recorded in islice(self._recording.messages(
                topic, start_ns=when, stop_ns=when + 1), earlier, None):
            return recorded
        raise RecordingError(f'{self.path}: expected a picture of {topic} at {when} ns, found '
                             'none; the bag was changed while it was read')


class _Waiting:
    """Rows of which pictures are still to come, given out in their order."""

    def __init__(self, places: np.ndarray, names: list[str]) -> None:
        self._names = names
        self._rows: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, of_row in enumerate(places.tolist()):
            for camera, place in enumerate(of_row):
                self._rows[camera, place].append(row)
        self._entered: dict[int, dict[str, np.ndarray]] = defaultdict(dict)
        self._dropped: set[int] = set()
        self._next = 0
        self._count = len(places)

    @property
    def is_done(self) -> bool:
        """Whether every row was given out or dropped."""
        return self._next == self._count

    def wants(self, camera: int, place: int) -> bool:
        """Return whether a picture belongs to any row that still counts."""
        return any(row not in self._dropped for row in self._rows.get((camera, place), ()))

    def enter(self, camera: int, place: int, picture: np.ndarray) -> None:
        """Take a picture."""
        for row in self._rows.pop((camera, place)):
            if row not in self._dropped:
                self._entered[row][self._names[camera]] = picture

    def drop(self, camera: int, place: int) -> int:
        """Give up the rows that a picture belongs to, and return how many they are."""
        rows = set(self._rows.pop((camera, place))) - self._dropped
        self._dropped |= rows
        for row in rows:
            self._entered.pop(row, None)
        return len(rows)

    def complete(self) -> Iterator[tuple[int, Mapping[str, np.ndarray]]]:
        """Yield the rows that are next and have all pictures."""
        while self._next < self._count:
            row = self._next
            if row not in self._dropped:
                if len(self._entered.get(row, ())) < len(self._names):
                    return
                # In the order of the configuration, whichever picture came first.
                pictures = self._entered.pop(row)
                yield row, {name: pictures[name] for name in self._names}
            self._next += 1
