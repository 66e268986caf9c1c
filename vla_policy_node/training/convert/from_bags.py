"""What bags are read with: the meaning of their topics, and the period of a step."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from vla_policy_node.recorded import RecordedConfig
from vla_policy_node.recordings import CHUNK_TYPE
from vla_policy_node.recordings import read_chunk
from vla_policy_node.recordings import Recording
from vla_policy_node.recordings import RecordingError
from vla_policy_node.training.convert.finished import ConvertError
from vla_policy_node.yaml_file import one_line
from vla_policy_node.yaml_file import read_mapping

# What the files of config/replay say about a replay only.
_OTHER_KEYS = ('report',)


def load_config(path: Path) -> RecordedConfig:
    """
    Read a replay.yaml; ValueError of one line naming file, key and fault.

    Its choice of frames is taken over as far as it is not a rate: that is chosen here.
    """
    content = {key: value for key, value in read_mapping(path, examples='config/replay').items()
               if key not in _OTHER_KEYS}
    try:
        config = RecordedConfig.model_validate(content)
    except ValidationError as error:
        raise ValueError(one_line(path, error)) from error
    select = 'chunks' if config.frames.select == 'chunks' else 'every'
    frames = config.frames.model_copy(update={'select': select, 'every': 1})
    return config.model_copy(update={'frames': frames})


def period_of_chunks(paths: Sequence[Path], config: RecordedConfig) -> float:
    """Return the period [s] of the first recorded chunk; ConvertError where there is none."""
    if config.actions.kind == 'chunk':
        for path in paths:
            try:
                with Recording(path) as recording:
                    recording.require(config.actions.topic, (CHUNK_TYPE,))
                    for recorded in recording.messages(config.actions.topic):
                        return read_chunk(recorded).period_s
            except RecordingError:
                continue    # the reader of all bags says what is wrong with this one
    raise ConvertError(
        'expected to be told the period of a step, which these bags do not say; give --fps, or '
        '--checkpoint of the policy that is to be trained')
