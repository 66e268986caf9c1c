"""The file replay.yaml: what the recordings' topics mean, how errors are measured and shown."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import field_validator
from pydantic import FiniteFloat
from pydantic import ValidationError

from vla_policy_node.evaluation.replay.settings import MetricSettings
from vla_policy_node.recorded.config import RecordedConfig
from vla_policy_node.yaml_file import one_line
from vla_policy_node.yaml_file import read_mapping

EXAMPLES = 'config/replay'

Bins = Annotated[int, Field(ge=1, le=255)]
Threshold = Annotated[FiniteFloat, Field(ge=0.0)]

_USUAL = MetricSettings()


class ReportSection(BaseModel):
    """worst_frames: how many frames the film strip shows."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    worst_frames: Annotated[int, Field(ge=0, le=100)] = 12


class MetricsSection(BaseModel):
    """The keys of MetricSettings, with bounds."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    within_bins: Annotated[tuple[Bins, ...], Field(max_length=5)] = _USUAL.within_bins
    min_translation_m: Threshold = _USUAL.min_translation_m
    min_rotation_rad: Threshold = _USUAL.min_rotation_rad
    event_window_s: Threshold = _USUAL.event_window_s
    calibration_bins: Annotated[int, Field(ge=2, le=100)] = _USUAL.calibration_bins
    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = _USUAL.bootstrap_samples
    seed: Annotated[int, Field(ge=0)] = _USUAL.seed

    @field_validator('within_bins')
    @classmethod
    def _ascend(cls, found: tuple[int, ...]) -> tuple[int, ...]:
        if list(found) != sorted(set(found)):
            raise ValueError(f'expected distances in ascending order, found {list(found)}')
        return found

    def settings(self) -> MetricSettings:
        """Return them as the metrics take them."""
        return MetricSettings(**self.model_dump())


class ReplayConfig(RecordedConfig):
    """RecordedConfig's keys, `metrics` and `report`."""

    metrics: MetricsSection = MetricsSection()
    report: ReportSection = ReportSection()


def load_config(path: Path) -> ReplayConfig:
    """Read a replay.yaml; ValueError of one line naming file, key and fault."""
    content = read_mapping(path, examples=EXAMPLES)
    try:
        return ReplayConfig.model_validate(content)
    except ValidationError as error:
        raise ValueError(one_line(path, error)) from error
