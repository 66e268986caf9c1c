"""
What a training source yields, whatever it was read from.

Knows nothing of tokens, models or file formats: sources turn data into records, and one place
turns records into token ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from typing import Literal
from typing import Protocol

import numpy as np


class SourceError(ValueError):
    """A source cannot be used at all; one line names the file, what was found and the mend."""


class RecordError(ValueError):
    """One record cannot be used; one line names file and record. Training goes on without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobotRecord:
    """
    One step of a demonstration.

    images: camera name -> (H, W, 3) uint8 RGB in the recording's resolution. actions: (K, 7)
    float64 canonical (ActionSpace.to_canonical: metres and rotation vector per period, gripper
    0 closed to 1 open), the K actions from this step on; where the episode ends sooner the last
    ones are zero motion with the gripper as it was. terminate: the episode ends within these K.
    plan: what to do next in words; '' where the source has none.
    """

    images: Mapping[str, np.ndarray]
    instruction: str
    actions: np.ndarray
    terminate: bool = False
    plan: str = ''


@dataclass(frozen=True, slots=True, kw_only=True)
class TextRecord:
    """A question about some images (may be none) and its answer; images as in RobotRecord."""

    question: str
    answer: str
    images: Mapping[str, np.ndarray] = field(default_factory=dict)


Record = RobotRecord | TextRecord


class Source(Protocol):
    """
    A data set of records that are read one at a time; memory does not grow with their number.

    kind says what the records are. Opening a source reads indices, not pictures. Sources can be
    pickled, so that worker processes may read.
    """

    name: str
    kind: Literal['robot', 'text']

    def __len__(self) -> int:
        """Return the number of records."""

    def __getitem__(self, index: int) -> Record:
        """Return a record; RecordError where it is corrupt."""

    @property
    def episodes(self) -> np.ndarray:
        """(N,) int64: the episode (or conversation, or picture) each record belongs to."""

    def fingerprint(self) -> str:
        """Return a sha256 that changes when the data does, without reading all pictures."""


class RobotSource(Source, Protocol):
    """A source of demonstrations."""

    kind: Literal['robot']

    def actions(self) -> np.ndarray:
        """
        Return (M, 7) float64 canonical actions, for the normalisation.

        Of all steps, in order; those that cannot be used are left out.
        """
