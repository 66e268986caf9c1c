"""A policy on a Hugging Face image-text-to-text model; knows nothing of files or ROS."""

from dataclasses import dataclass
from functools import partial
import logging
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import GenerationConfig

from vla_policy_node import images
from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.policy.chunks import build_chunk
from vla_policy_node.policy.chunks import PlanDescription
from vla_policy_node.policy.cuda_graphs import Clock
from vla_policy_node.policy.decoding import ConstrainedDecoder
from vla_policy_node.policy.failures import give_back_memory
from vla_policy_node.policy.failures import named_failures
from vla_policy_node.policy.inputs import InputBuilder
from vla_policy_node.policy.memory import MemoryReport
from vla_policy_node.policy.types import ActionChunk
from vla_policy_node.policy.types import Observation
from vla_policy_node.policy.types import PolicyError
from vla_policy_node.prompts import build_action_prompt
from vla_policy_node.prompts import build_question_prompt
from vla_policy_node.vla_config import VlaConfig

_LOGGER = logging.getLogger(__name__)
_OUT_OF_MEMORY_ADVICE = 'free memory on the device and load the checkpoint again'


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """
    A model and everything that belongs to it.

    :param model: in eval mode, on its device.
    :param processor: the checkpoint's own, with ``tokenizer`` and ``image_processor``.
    :param robot_only: tuned on robot data alone, which costs a model its words.
    :param quantized_layers: how many linear layers of the language model are in 4 or 8 bit.
    :param refused_layers: of the language model's, those of a shape the 4-bit CPU kernel refuses.
    :param memory: what the model takes, by part.
    :param quantized_vision_layers: the same of vision towers and projector, where asked for.
    :param kept_layers: names of all layers that were to be quantised and have such a shape.
    """

    model: nn.Module
    processor: Any
    tokenizer: ActionTokenizer
    config: VlaConfig
    action_space: ActionSpace
    unnorm_key: str
    checkpoint_name: str
    quantization: str
    quantized_layers: int
    refused_layers: int
    device: str
    dtype: torch.dtype
    memory: MemoryReport
    quantized_vision_layers: int = 0
    kept_layers: tuple[str, ...] = ()
    robot_only: bool = False


class HFPolicy:
    """Infers actions and answers questions with the same weights, one call at a time."""

    def __init__(
        self, loaded: LoadedModel, decoding: str | None = None, *, temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        """Take a loaded model; for the rest see ``load_policy``."""
        self._loaded: LoadedModel | None = loaded
        self._lock = Lock()
        self._decoder = ConstrainedDecoder(
            loaded.model, loaded.tokenizer, decoding or loaded.config.decoding,
            temperature=temperature, seed=seed,
        )
        self._inputs = InputBuilder(
            loaded.processor,
            chat=loaded.config.prompt.kind == 'chat',
            device=loaded.device,
            dtype=loaded.dtype,
        )
        self._describe = PlanDescription(
            loaded.config.tokenizer,
            partial(loaded.processor.tokenizer.decode, skip_special_tokens=True),
        )
        self._vision = _Stopwatch(loaded.model)
        self.action_space = loaded.action_space
        self.action_tokenizer = loaded.tokenizer
        self.camera_names = tuple(camera.name for camera in loaded.config.cameras)
        self.checkpoint_name = loaded.checkpoint_name
        self.unnorm_key = loaded.unnorm_key
        self.quantization = loaded.quantization
        self.quantized_layers = loaded.quantized_layers
        self.linear4bit_layers = loaded.quantized_layers if loaded.quantization == 'nf4' else 0
        self.refused_layers = loaded.refused_layers
        self.quantized_vision_layers = loaded.quantized_vision_layers
        self.kept_layers = loaded.kept_layers
        self.memory = loaded.memory
        # One line for whoever asks a question, '' where the answers mean what they say.
        self.answer_caution = (
            f'{loaded.checkpoint_name} was tuned on robot data alone and has lost most of its '
            'words: do not rely on its answer') if loaded.robot_only else ''

    def infer(self, observation: Observation) -> ActionChunk:
        """
        Return the next actions; images in any size, prepared as in training.

        :raises ValueError: a camera is missing or the instruction is unusable.
        :raises DecodeError: the model's output is not finite.
        :raises PolicyMemoryError: the device has no memory left; close the policy.
        """
        start = perf_counter()
        with self._lock, named_failures('inference', _OUT_OF_MEMORY_ADVICE):
            loaded = self._open()
            inputs = self._action_inputs(loaded, observation)
            preprocess_ms = 1e3 * (perf_counter() - start)
            self._vision.restart()
            decoding = self._decoder.decode(inputs)
            vision_ms = self._vision.elapsed_ms()
        timing_ms = {
            'preprocess': preprocess_ms,
            'vision': vision_ms,
            'prefill': decoding.prefill_ms - vision_ms,
            'decode': decoding.decode_ms,
        }
        timing_ms['total'] = 1e3 * (perf_counter() - start)
        return build_chunk(
            decoding, loaded.tokenizer, loaded.action_space, timing_ms, self._describe
        )

    def answer(self, observation: Observation, max_new_tokens: int = 64) -> str:
        """Answer ``observation.instruction`` with the whole vocabulary, greedily."""
        if max_new_tokens < 1:
            raise PolicyError(f'expected max_new_tokens of at least 1, found {max_new_tokens}')
        with (self._lock, torch.inference_mode(),
              named_failures('answering', _OUT_OF_MEMORY_ADVICE)):
            loaded = self._open()
            if self.answer_caution:
                _LOGGER.warning(self.answer_caution)
            prompt = build_question_prompt(loaded.config.prompt, observation.instruction)
            inputs = self._inputs.build(prompt, self._prepare(loaded, observation))
            generated = loaded.model.generate(
                **inputs, generation_config=_answer_config(loaded, max_new_tokens)
            )
        new_ids = generated[0, inputs['input_ids'].shape[1]:]
        return loaded.processor.tokenizer.decode(new_ids, skip_special_tokens=True).strip()

    def action_logits(self, observation: Observation) -> np.ndarray:
        """Return the float32 logits of the first token of plan or action, for the self-test."""
        with self._lock, named_failures('inference', _OUT_OF_MEMORY_ADVICE):
            return self._decoder.first_logits(self._action_inputs(self._open(), observation))

    def close(self) -> None:
        """Release the model's memory; later calls raise PolicyError."""
        with self._lock:
            was_open = self._loaded is not None
            self._loaded = self._decoder = self._inputs = self._vision = None
        if was_open:
            give_back_memory()

    def _open(self) -> LoadedModel:
        """Return the model, or say that it is gone."""
        if self._loaded is None:
            raise PolicyError('this policy is closed; load it again')
        return self._loaded

    def _action_inputs(
        self, loaded: LoadedModel, observation: Observation
    ) -> dict[str, torch.Tensor]:
        """Return the model's inputs for an action."""
        prompt = build_action_prompt(loaded.config.prompt, observation.instruction)
        return self._inputs.build(prompt, self._prepare(loaded, observation))

    def _prepare(self, loaded: LoadedModel, observation: Observation) -> list[np.ndarray]:
        """Return the cameras' images in the checkpoint's order, as training saw them."""
        missing = [name for name in self.camera_names if name not in observation.images]
        if missing:
            raise PolicyError(
                f'expected images of cameras {", ".join(self.camera_names)}, '
                f'found {", ".join(observation.images)}'
            )
        return [
            images.prepare(observation.images[camera.name], camera)
            for camera in loaded.config.cameras
        ]


class _Stopwatch:
    """Times a model's vision tower, where it runs; not where a graph is recorded or replayed."""

    def __init__(self, model: nn.Module) -> None:
        """Hook the tower, if the model has one apart from itself."""
        self._device = model.device
        self._clocks: list[Clock] = []
        tower = model.get_encoder(modality='image')
        if tower is not model:
            tower.register_forward_pre_hook(self._enter)
            tower.register_forward_hook(self._leave)

    def restart(self) -> None:
        """Forget what was timed."""
        self._clocks = []

    def elapsed_ms(self) -> float:
        """Return the time since the restart; all of it must be over."""
        return sum(sum(clock.parts_ms()) for clock in self._clocks)

    def _enter(self, *_: Any) -> None:
        if not self._is_recording():
            self._clocks.append(Clock(self._device))

    def _leave(self, *_: Any) -> None:
        if not self._is_recording():
            self._clocks[-1].mark()

    def _is_recording(self) -> bool:
        return self._device.type == 'cuda' and torch.cuda.is_current_stream_capturing()


def _answer_config(loaded: LoadedModel, max_new_tokens: int) -> GenerationConfig:
    """Return plain greedy decoding, whatever else the checkpoint's own configuration asks."""
    own = loaded.model.generation_config
    end = own.eos_token_id
    if end is None:
        end = loaded.processor.tokenizer.eos_token_id
    pad = own.pad_token_id if own.pad_token_id is not None else 0
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        eos_token_id=end,
        pad_token_id=pad,
    )
