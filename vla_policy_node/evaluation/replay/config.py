"""The file replay.yaml: what the topics of the recordings mean, and what the report shows."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import ValidationError

from vla_policy_node.recorded.config import RecordedConfig
from vla_policy_node.yaml_file import one_line
from vla_policy_node.yaml_file import read_mapping

EXAMPLES = 'config/replay'


class ReportSection(BaseModel):
    """worst_frames: how many frames the film strip shows."""

    model_config = ConfigDict(extra='forbid', frozen=True)

    worst_frames: Annotated[int, Field(ge=0, le=100)] = 12


class ReplayConfig(RecordedConfig):
    """RecordedConfig's keys and `report`."""

    report: ReportSection = ReportSection()


def load_config(path: Path) -> ReplayConfig:
    """Read a replay.yaml; ValueError of one line naming file, key and fault."""
    content = read_mapping(path, examples=EXAMPLES)
    try:
        return ReplayConfig.model_validate(content)
    except ValidationError as error:
        raise ValueError(one_line(path, error)) from error
