"""
Opens the model that is tuned, and settles how it is asked and how it writes actions.

The only place that knows where a base comes from. A checkpoint of this suite brings its
vla_config.json, and what the configuration leaves out is taken from there; of an original OpenVLA
folder it is derived. Any other Hugging Face folder needs `action`, `prompt` and `cameras` in the
configuration.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig

from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.policy import loading
from vla_policy_node.policy.checkpoint import read_checkpoint
from vla_policy_node.policy.checkpoint import read_json
from vla_policy_node.policy.checkpoint import resolve_checkpoint
from vla_policy_node.policy.checkpoint import weight_files
from vla_policy_node.policy.folder_check import check_folder
from vla_policy_node.policy.openvla.layout import MODEL_TYPE as OPENVLA
from vla_policy_node.policy.quantization import bitsandbytes_config
from vla_policy_node.policy.quantization import check_quantized
from vla_policy_node.policy.quantization import plan_quantization
from vla_policy_node.training.finetune.config import ActionConfig
from vla_policy_node.training.finetune.config import FinetuneConfig
from vla_policy_node.training.finetune.config import FinetuneConfigError
from vla_policy_node.training.finetune.vocabulary import fit_embeddings
from vla_policy_node.training.finetune.vocabulary import place_scheme
from vla_policy_node.training.finetune.vocabulary import start_rows_at_mean
from vla_policy_node.vla_config import ActionSpaceConfig
from vla_policy_node.vla_config import CameraConfig
from vla_policy_node.vla_config import CONFIG_NAME
from vla_policy_node.vla_config import PromptConfig
from vla_policy_node.vla_config import TextPlanConfig
from vla_policy_node.vla_config import TokenizerConfig
from vla_policy_node.vla_config import VlaConfig

_POINT_LENGTH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """
    How the model is asked and how it writes actions; everything but the weights.

    processor: the base's own, its tokenizer holding the action tokens. new_ids: tokens whose
    rows have no meaning yet, so they are trained even where embeddings are frozen. eos_id: what
    ends an answer, because execution stops there. max_length: tokens the model has positions
    for. image_marker: what stands for a picture in a prompt of kind text.
    """

    processor: Any
    token_config: TokenizerConfig
    actions: ActionTokenizer
    action_space: ActionSpaceConfig
    prompt: PromptConfig
    cameras: tuple[CameraConfig, ...]
    decoding: str
    new_ids: tuple[int, ...]
    eos_id: int
    max_length: int
    image_marker: str


def open_folder(base: str) -> Path:
    """Return the local folder of a base; ValueError where it is none that can be tuned."""
    folder = resolve_checkpoint(base)
    check_folder(folder)
    read_json(folder / 'config.json')
    weight_files(folder)
    return folder


def open_language(config: FinetuneConfig, folder: Path) -> Language:
    """Settle tokens, prompt and cameras; ValueError naming what is missing."""
    own = read_checkpoint(folder) if _says_how_it_acts(folder) else None
    processor = loading.load_processor(folder)
    cameras = _with_crop(config, config.cameras or _of(own, 'cameras', config))
    marker = _image_marker(processor)
    prompt = (_of(own, 'prompt', config) if config.prompt is None
              else _with_marker(PromptConfig.named(config.prompt), marker))
    if config.action is None:
        token_config, space, decoding = (
            _of(own, name, config, 'action') for name in ('tokenizer', 'action_space', 'decoding'))
    else:
        token_config = _token_config(config.action, processor.tokenizer)
        space = ActionSpaceConfig(**config.action.model_dump(
            include={'frame', 'rotation', 'gripper', 'period_s'}))
        decoding = config.action.decoding
    actions = loading.load_action_tokenizer(token_config, processor.tokenizer)
    if decoding == 'expectation' and actions.bin_token_ids is None:
        raise FinetuneConfigError(
            'action.decoding: expectation needs numbers of one token, found several in the '
            'vocabulary of the base; use greedy, or scheme added')
    return Language(
        processor=processor, token_config=token_config, actions=actions, action_space=space,
        prompt=prompt, cameras=cameras, decoding=decoding,
        new_ids=_new_ids(token_config, actions, own),
        eos_id=_end_of_answer(folder, processor.tokenizer), max_length=_max_length(folder),
        image_marker=marker)


def load_model(
    folder: Path, language: Language, *, dtype: torch.dtype, device: str,
    quantization: str = 'none',
) -> nn.Module:
    """Load the base's weights, with a row for every token; quantization: 'none' or 'nf4'."""
    model_config = loading.read_model_config(folder)
    settings: dict[str, Any] = {'dtype': dtype}
    plan = None
    if quantization != 'none':
        plan = plan_quantization(model_config, quantization, device)
        settings['quantization_config'] = bitsandbytes_config(plan, quantization, dtype)
    model = loading.load_weights(folder, model_config, device, settings)
    if plan is not None:
        check_quantized(model, plan, quantization)
    fit_embeddings(model, language.processor.tokenizer)
    if language.new_ids:
        start_rows_at_mean(model, list(language.new_ids))
    return model


def _end_of_answer(folder: Path, tokenizer: Any) -> int:
    """Return the id that ends an answer: one at which execution stops generating."""
    try:
        own = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
    except OSError:  # no generation_config.json: transformers asks the model's configuration
        own = loading.read_model_config(folder).get_text_config().eos_token_id
    stops = own if isinstance(own, list) else [] if own is None else [own]
    end = tokenizer.eos_token_id
    if end is None and not stops:
        raise FinetuneConfigError(f'base: expected an end-of-sequence token in {folder}, found '
                                  'none; set eos_token_id in its generation_config.json')
    return int(end if end is not None and (end in stops or not stops) else stops[0])


def _says_how_it_acts(folder: Path) -> bool:
    kind = read_json(folder / 'config.json').get('model_type')
    return kind == OPENVLA or (folder / CONFIG_NAME).is_file()


def _max_length(folder: Path) -> int:
    """Return how many ids a prompt with its answer may have."""
    config = loading.read_model_config(folder)
    longest = getattr(config.get_text_config(), 'max_position_embeddings', None) or 2 ** 31
    return longest - getattr(config, 'image_columns', 0)  # OpenVLA's pictures have no ids.


def _image_marker(processor: Any) -> str:
    """Return what a family's processor takes for a picture in a text."""
    if '<|vision_start|>' in processor.tokenizer.get_vocab():  # Qwen-VL
        return '<|vision_start|><|image_pad|><|vision_end|>'
    # Gemma 3 puts many of its image tokens in place of one other.
    return getattr(processor, 'boi_token', None) or getattr(processor, 'image_token', '<image>')


def _with_marker(prompt: PromptConfig, marker: str) -> PromptConfig:
    return prompt.model_copy(update={
        name: getattr(prompt, name).replace('<image>', marker) for name in ('action', 'question')})


def _token_config(action: ActionConfig, tokenizer: Any) -> TokenizerConfig:
    text = None
    if action.plan == 'text':
        text = TextPlanConfig(max_tokens=action.plan_max_tokens, end=action.plan_end)
    return TokenizerConfig(
        scheme=action.scheme, horizon=action.horizon, terminate=action.terminate,
        plan_length=_POINT_LENGTH if action.plan == 'point' else 0, plan_text=text,
        **place_scheme(action.scheme, tokenizer, action.separator))


def _new_ids(
    token_config: TokenizerConfig, actions: ActionTokenizer, own: VlaConfig | None
) -> tuple[int, ...]:
    """Return the action tokens unless they are words, or the base already acts with them."""
    if token_config.scheme == 'text':
        return ()
    known = own is not None and _place(own.tokenizer) == _place(token_config)
    return () if known else tuple(int(i) for i in actions.bin_token_ids)


def _place(token_config: TokenizerConfig) -> tuple:
    """Return what says which tokens the bins are."""
    return (token_config.scheme, token_config.vocab_size, token_config.first_id,
            token_config.token_ids)


def _with_crop(
    config: FinetuneConfig, cameras: tuple[CameraConfig, ...]
) -> tuple[CameraConfig, ...]:
    """Let execution keep the share of the picture that training's random crops keep."""
    area = config.augmentation.crop_area
    if area == 1.0:
        return cameras
    for camera in cameras:
        if config.cameras and camera.crop_area not in (1.0, area):
            raise FinetuneConfigError(
                f'cameras: expected crop_area {area} as in augmentation for {camera.name}, found '
                f'{camera.crop_area}; execution crops what training cropped, give it once')
    return tuple(camera.model_copy(update={'crop_area': area}) for camera in cameras)


def _of(own: VlaConfig | None, name: str, config: FinetuneConfig, key: str | None = None) -> Any:
    """Return a section of the base's vla_config.json."""
    if own is None:
        raise FinetuneConfigError(
            f'{key or name}: expected in the configuration, because the base {config.base} has no '
            f'{CONFIG_NAME} to take it from, found none; add it')
    return getattr(own, name)
