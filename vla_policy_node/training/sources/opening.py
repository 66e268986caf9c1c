"""Every kind of training source by its configuration section."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from vla_policy_node.training.sources.config import BagsSection
from vla_policy_node.training.sources.config import LeRobotSection
from vla_policy_node.training.sources.config import open_question_source
from vla_policy_node.training.sources.config import open_robot_source
from vla_policy_node.training.sources.config import SimulatorQuestionsSection
from vla_policy_node.training.sources.config import SimulatorSection
from vla_policy_node.training.sources.records import Source
from vla_policy_node.training.sources.text_config import CaptionsSection
from vla_policy_node.training.sources.text_config import ConversationsSection
from vla_policy_node.training.sources.text_config import open_text_source
from vla_policy_node.training.sources.text_config import ParquetSection

SourceSection = Annotated[
    LeRobotSection | BagsSection | SimulatorSection | SimulatorQuestionsSection
    | ConversationsSection | ParquetSection | CaptionsSection,
    Field(discriminator='kind'),
]


def open_source(
    name: str, section: SourceSection, *, horizon: int, period_s: float, cache: Path,
) -> Source:
    """
    Open a source; horizon and period_s say what actions robot records have.

    cache: folder for what is made once per data set; sources of any name may share it. Raises
    SourceError, its one line naming the source or file, where the data cannot be used.
    """
    if isinstance(section, ConversationsSection | ParquetSection | CaptionsSection):
        return open_text_source(name, section, cache=cache)
    if isinstance(section, SimulatorQuestionsSection):
        return open_question_source(name, section, cache=cache)
    return open_robot_source(name, section, horizon=horizon, period_s=period_s, cache=cache)
