"""The weights of a checkpoint -> a model of transformers, with every one of them in its place."""

from collections.abc import Iterable
from collections.abc import Mapping
import logging
from pathlib import Path
import re
from types import TracebackType
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForImageTextToText
from transformers import PretrainedConfig

from vla_policy_node.policy.failures import is_out_of_memory
from vla_policy_node.policy.failures import one_line
from vla_policy_node.policy.failures import out_of_memory
from vla_policy_node.policy.failures import tells_out_of_memory
from vla_policy_node.policy.types import PolicyError

# A checkpoint is data: its own Python code is never run, nor is anyone asked whether to.
DATA_ONLY = {'trust_remote_code': False, 'local_files_only': True}
OUT_OF_MEMORY_ADVICE = ('use quantization nf4, a smaller model, or a device with more free memory')

_LOGGER = logging.getLogger(__name__)


def load_weights(
    directory: Path, config: PretrainedConfig, device: str, settings: Mapping[str, Any]
) -> nn.Module:
    """
    Return the model on its device, with every one of its weights from the checkpoint.

    :param settings: further arguments of ``from_pretrained``: dtype and quantisation.
    :raises PolicyMemoryError: the device has too little memory; nothing stays loaded.
    :raises PolicyError: the weights are not those of the model that config.json describes.
    """
    with _LoadReport() as report:
        try:
            model, found = AutoModelForImageTextToText.from_pretrained(
                directory,
                config=config,
                use_safetensors=True,
                device_map={'': device},
                output_loading_info=True,
                # Otherwise it names none of them in its error.
                ignore_mismatched_sizes=True,
                **settings,
                **DATA_ONLY,
            )
            _leave_file(model)
        except (OSError, ValueError, RuntimeError, KeyError, MemoryError, ArithmeticError,
                TypeError, SafetensorError) as error:
            if is_out_of_memory(error) or tells_out_of_memory(report.text):
                raise out_of_memory(
                    error, f'loading {directory}', OUT_OF_MEMORY_ADVICE) from None
            raise PolicyError(
                f'cannot load the weights in {directory}: {report.cause() or one_line(error)}'
            ) from error
    _check_complete(directory, found['missing_keys'])
    _check_shapes(directory, found['mismatched_keys'])
    _check_unused(directory, model, found['unexpected_keys'])
    return model.eval()


def _leave_file(model: nn.Module) -> None:
    """
    Copy what still lies in the mapped file.

    Whoever writes into the file in place would change the running policy otherwise.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == 'cpu':
            tensor.data = tensor.data.clone()


def _check_complete(directory: Path, missing: Iterable[str]) -> None:
    # transformers fills what is missing with random numbers and only warns.
    names = sorted(missing)
    if names:
        raise PolicyError(
            f'{directory} lacks {len(names)} weights of the model, the first is {names[0]}; '
            'the checkpoint is incomplete'
        )


def _check_shapes(
    directory: Path, mismatched: Iterable[tuple[str, Iterable[int], Iterable[int]]]
) -> None:
    entries = sorted((name, tuple(found), tuple(wanted)) for name, found, wanted in mismatched)
    if entries:
        name, found, wanted = entries[0]
        raise PolicyError(
            f'cannot load the weights in {directory}: expected {name} of shape {wanted}, found '
            f'{found}, and {len(entries) - 1} more of other shapes; weights and config.json do '
            'not belong together')


def _check_unused(directory: Path, model: nn.Module, unexpected: Iterable[str]) -> None:
    """Raise PolicyError if whole layers are left over; warn of anything else."""
    names = sorted(unexpected)
    lists = {name: len(module) for name, module in model.named_modules()
             if isinstance(module, nn.ModuleList)}
    for name in names:
        for place in re.finditer(r'\.(\d+)\.', name):
            stack = name[:place.start()]
            if int(place.group(1)) >= lists.get(stack, int(place.group(1)) + 1):
                raise PolicyError(
                    f'expected {lists[stack]} layers in {stack} as config.json of {directory} '
                    f'says, found weights of layer {place.group(1)}; weights and config.json do '
                    'not belong together')
    if names:
        _LOGGER.warning('%s: %d weights are not part of the model and are not used, the first '
                        'is %s', directory, len(names), names[0])


class _LoadReport(logging.Filter):
    """
    What transformers has to say of the weights, kept from the screen: errors tell it in one line.

    The reasons why weights cannot be converted or quantised stand nowhere else.
    """

    def __init__(self) -> None:
        super().__init__()
        self.text = ''
        self._logger = logging.getLogger('transformers.modeling_utils')

    def __enter__(self) -> '_LoadReport':
        self._logger.addFilter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        self._logger.removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a report, let everything else pass."""
        message = record.getMessage()
        is_report = 'LOAD REPORT' in message
        if is_report:
            self.text = message
        return not is_report

    def cause(self) -> str:
        """Return the first error that the report quotes; '' if it quotes none."""
        found = re.search(r'^\w*(?:Error|Exception): .+$', self.text, re.MULTILINE)
        return found.group(0) if found else ''
