"""What is measured: a model, and the ways from camera frames to it and from it to motion."""

from collections.abc import Callable
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from random_models import build
from random_models import FAMILIES
from random_models import Family
from random_models import IMAGE_TOKEN
import torch
from torch import nn
import typer

from vla_policy_node import images
from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_space import NormStats
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.policy import loading
from vla_policy_node.policy.chunks import build_chunk
from vla_policy_node.policy.chunks import PlanDescription
from vla_policy_node.policy.cpu_linear import use_cpu_kernels
from vla_policy_node.policy.decoding import Decoding
from vla_policy_node.policy.inputs import InputBuilder
from vla_policy_node.policy.loading import DTYPES
from vla_policy_node.prompts import build_action_prompt

SHIPPED = Path(__file__).resolve().parents[1] / 'models' / 'tabletop'
CASES = ('tabletop', *FAMILIES)
FRAME = (480, 640)
_INSTRUCTION = 'pick up the red block'

Frames = Sequence[np.ndarray]
Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """
    A policy in its parts.

    :param preprocess: (480, 640, 3) uint8 frames, one per camera -> what the model takes.
    :param finish: a decoding -> motion in physical units.
    """

    model: nn.Module
    tokenizer: ActionTokenizer
    n_cameras: int
    preprocess: Callable[[Frames], Inputs]
    finish: Callable[[Decoding], Any]


def open_case(
    name: str, checkpoint: str, device: str, dtype: str, quantization: str, prompt_tokens: int,
    plain: bool = False,
) -> Case:
    """
    Return a checkpoint where one is given, else the case of that name.

    :param plain: leave the linear layers as their libraries have them.
    """
    if checkpoint or name == 'tabletop':
        with patch.object(loading, 'use_cpu_kernels') if plain else nullcontext():
            return _from_checkpoint(checkpoint or str(SHIPPED), device, dtype, quantization)
    family = FAMILIES[name]()
    model = build(family.config, device, DTYPES[dtype], quantization)
    if device == 'cpu' and not plain:
        use_cpu_kernels(model)
    space = ActionSpace(
        frame='base', rotation='rotation_vector', gripper='open_is_one', period_s=0.2,
        stats=NormStats(q01=np.full(7, -0.05), q99=np.full(7, 0.05), mask=np.ones(7, bool)))
    return Case(
        model=model, tokenizer=family.tokenizer, n_cameras=1,
        preprocess=_preprocessing(family, model, prompt_tokens),
        finish=partial(_finish, tokenizer=family.tokenizer, space=space))


def random_frames(count: int, n_cameras: int, seed: int = 0) -> list[Frames]:
    """Return frames of 48 random colours each, which no resizing makes grey."""
    rng = np.random.default_rng(seed)
    side = 80
    colours = rng.integers(
        0, 256, (count, n_cameras, FRAME[0] // side, FRAME[1] // side, 3), np.uint8)
    return [[image.repeat(side, 0).repeat(side, 1) for image in cameras] for cameras in colours]


def _from_checkpoint(checkpoint: str, device: str, dtype: str, quantization: str) -> Case:
    loaded = loading.load_model(checkpoint, device=device, dtype=dtype, quantization=quantization)
    builder = InputBuilder(loaded.processor, chat=loaded.config.prompt.kind == 'chat',
                           device=device, dtype=loaded.dtype)
    prompt = build_action_prompt(loaded.config.prompt, _INSTRUCTION)
    cameras = loaded.config.cameras
    describe = PlanDescription(
        loaded.config.tokenizer,
        partial(loaded.processor.tokenizer.decode, skip_special_tokens=True))

    def preprocess(frames: Frames) -> Inputs:
        return builder.build(prompt, [images.prepare(frame, camera) for frame, camera
                                      in zip(frames, cameras, strict=True)])

    return Case(
        model=loaded.model, tokenizer=loaded.tokenizer, n_cameras=len(cameras),
        preprocess=preprocess,
        finish=partial(_finish, tokenizer=loaded.tokenizer, space=loaded.action_space,
                       describe=describe))


def _preprocessing(
    family: Family, model: nn.Module, prompt_tokens: int,
) -> Callable[[Frames], Inputs]:
    """Return the family's preparation of pictures beside a fixed prompt of random words."""
    pictures = family.image_ids or family.config.image_columns
    if prompt_tokens <= pictures:
        raise typer.BadParameter(f'expected more than {pictures} prompt tokens, which is what '
                                 f'the picture takes, found {prompt_tokens}')
    words = 3 + torch.arange(prompt_tokens - pictures) % 50
    ids = torch.cat([torch.full((family.image_ids,), IMAGE_TOKEN), words])[None].to(model.device)
    text = {'input_ids': ids, 'attention_mask': torch.ones_like(ids),
            **{name: torch.zeros_like(ids) for name in family.extra_inputs}}

    def preprocess(frames: Frames) -> Inputs:
        pixels = family.image_processor(list(frames), return_tensors='pt')['pixel_values']
        return {**text, 'pixel_values': pixels.to(model.device, model.dtype)}

    return preprocess


def _finish(
    decoding: Decoding, tokenizer: ActionTokenizer, space: ActionSpace, describe: Any = None,
) -> Any:
    return build_chunk(decoding, tokenizer, space, {}, describe)
