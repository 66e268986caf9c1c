"""Shows what a curriculum run would learn from, without training: stages, mixture, labels."""

import numpy as np
from rich.console import Console
from rich.table import Table

from vla_policy_node.training.config import MixtureStage
from vla_policy_node.training.config import TrainingConfig
from vla_policy_node.training.demonstrations import generate
from vla_policy_node.training.demonstrations import SceneRange
from vla_policy_node.training.labels import LabelBuilder
from vla_policy_node.training.labels import Sample
from vla_policy_node.training.mixture import Mixture
from vla_policy_node.training.parts import build_labels
from vla_policy_node.training.parts import build_parts
from vla_policy_node.training.parts import Parts
from vla_policy_node.training.parts import robot_tasks
from vla_policy_node.training.parts import stats_of

_SCENES = 4
_SHOWN = 8


def dry_run(config: TrainingConfig, console: Console) -> None:
    """
    Print the stages and a batch of every source, read back from its labels.

    The batch is of a few scenes of the first set. Raises ValueError where a label is not what the
    automaton allows.
    """
    console.print(stages_table(config))
    parts, first = build_parts(config), config.demonstrations.sets[0]
    frames = generate(
        SceneRange(seed=config.demonstrations.seed, first=first.first, frames=first.frames,
                   count=min(first.scenes, _SCENES), motion=first.motion), parts.camera)
    stats = stats_of(frames.actions)
    mixture = Mixture(frames, build_labels(parts, stats), robot_tasks())
    rng = np.random.default_rng(config.seed)
    for source in ('robot', 'questions'):
        samples, _ = mixture.draw(
            rng, mixture.pick(rng, _SHOWN, mirror=False), prompts=1, shares={source: 1.0},
            pointing_only=False)
        console.print(_samples_table(parts, build_labels(parts, stats), source, samples))


def stages_table(config: TrainingConfig) -> Table:
    """Return what each stage will see: samples, and each source's share of them."""
    table = Table(title=f'{config.name}: stages and mixture')
    for column in ('stage', 'kind', 'steps', 'images', 'prompts', 'shares'):
        table.add_column(column)
    for stage in config.stages:
        if isinstance(stage, MixtureStage):
            prompts = stage.steps * stage.images * stage.prompts_per_image
            shares = ', '.join(f'{name} {share:.0%}' for name, share in stage.shares.items())
            table.add_row(stage.name, stage.kind, str(stage.steps),
                          str(stage.steps * stage.images), str(prompts), shares)
        elif stage.kind == 'alignment':
            table.add_row(stage.name, stage.kind, str(stage.steps),
                          str(stage.steps * stage.images), '', '')
        elif stage.kind == 'simulate':
            table.add_row(stage.name, stage.kind, '', f'{stage.scenes.scenes} scenes', '', '')
        else:
            table.add_row(stage.name, stage.kind, str(stage.steps_per_episode),
                          f'{stage.episodes} episodes', '', '')
    return table


def _samples_table(
    parts: Parts, builder: LabelBuilder, source: str, samples: list[Sample]
) -> Table:
    table = Table('prompt', 'answer, read back from its tokens', title=source)
    builder.check(samples)
    for sample in samples:
        prompt = parts.tokenizer.decode([*sample.before, *sample.after])
        answer = parts.tokenizer.decode(sample.answer, skip_special_tokens=True)
        if source == 'robot':
            decoded = parts.actions.decode(sample.answer)
            values = builder.stats.unnormalize(decoded.actions)[0]
            answer = f'{answer}  ({_millimetres(values)})'
        table.add_row(prompt, answer)
    return table


def _millimetres(action: np.ndarray) -> str:
    x, y, z = 1000.0 * action[:3]
    return f'{x:+.0f} {y:+.0f} {z:+.0f} mm, gripper {action[6]:.1f}'
