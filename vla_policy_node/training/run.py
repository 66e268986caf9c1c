"""
One training run from configuration to checkpoint: data, stages, resuming, measuring.

Everything a run needs to go on after a kill is in one file, written whole or not at all.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import hashlib
import json
from pathlib import Path
import sys
import time
from typing import Any

import numpy as np
import torch

from vla_policy_node.training.alignment import alignment_targets
from vla_policy_node.training.checkpoint import save_checkpoint
from vla_policy_node.training.closed_loop import balanced_episodes
from vla_policy_node.training.closed_loop import BatchPolicy
from vla_policy_node.training.closed_loop import collect
from vla_policy_node.training.closed_loop import Outcome
from vla_policy_node.training.closed_loop import ParallelEpisodes
from vla_policy_node.training.closed_loop import success_per_verb
from vla_policy_node.training.config import CollectStage
from vla_policy_node.training.config import MixtureStage
from vla_policy_node.training.config import SceneSet
from vla_policy_node.training.config import SimulateStage
from vla_policy_node.training.config import Stage
from vla_policy_node.training.config import TrainingConfig
from vla_policy_node.training.demonstrations import generate_parallel
from vla_policy_node.training.demonstrations import SceneRange
from vla_policy_node.training.frames import concatenate
from vla_policy_node.training.frames import Frames
from vla_policy_node.training.loop import Learner
from vla_policy_node.training.loop import learning_rates
from vla_policy_node.training.measurements import measure
from vla_policy_node.training.mixture import Mixture
from vla_policy_node.training.model import initialise_patches
from vla_policy_node.training.parts import answer_length
from vla_policy_node.training.parts import build_labels
from vla_policy_node.training.parts import build_parts
from vla_policy_node.training.parts import prompt_length
from vla_policy_node.training.parts import robot_tasks
from vla_policy_node.training.parts import stats_of
from vla_policy_node.training.provenance import processor
from vla_policy_node.training.provenance import versions
from vla_policy_node.training.validation import Validator

EVALUATION_FIRST_SEED = 90_000_000
MEASUREMENTS_NAME = 'measurements.json'
_PACKAGES = ('torch', 'transformers', 'tokenizers', 'numpy', 'mujoco')
_MEASURED_PROMPTS = 480
_MEASURED_QUESTIONS = 200
_VALIDATION_FRAMES = 96
_PARALLEL = 12

Report = Callable[[Mapping[str, Any]], None]


class Run:
    """
    A run and its folder `work` (frames and state.pt); resumes from state.pt if present.

    report: takes every record, see journal.
    """

    def __init__(self, config: TrainingConfig, work: Path, report: Report) -> None:
        self.config = config
        self._work = work
        self._report = report
        self._started = time.monotonic()
        self._seconds_before = 0.0
        work.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(config.threads)
        self.parts = build_parts(config)
        self._excluded = np.array(
            [colour in config.robot_excludes for _, colour, _ in robot_tasks()])
        self._digest = hashlib.sha256()
        frames, self._held_out = self._demonstrations()
        self.stats = stats_of(frames.actions)
        self.builder = build_labels(self.parts, self.stats)
        self._mixture = Mixture(frames, self.builder, robot_tasks())
        self._validator = Validator(
            Mixture(self._held_out, self.builder, robot_tasks()), self.builder, self.parts.actions,
            self.stats, frames=_VALIDATION_FRAMES, seed=config.seed)
        self.learner = self._new_learner(frames)
        self._rng = np.random.default_rng(config.seed)
        self._episodes: dict[int, ParallelEpisodes] = {}
        self._stage, self._step = 0, 0
        if not self._resume() and config.start is not None:
            self._begin_with(config.start)

    def complete(self, out: Path) -> None:
        """Train, measure and write the policy folder `out`."""
        self._report(self._mixture_record())
        self.train(out)
        measured: dict[str, Any] = {}
        if self.config.closed_loop_episodes:
            measured = self.evaluate(self.config.closed_loop_episodes)
            self._report({'kind': 'closed_loop', 'stage': 'closed loop', **measured})
        self.save(out, measured)
        tables = measure(
            out, self._held_out, prompts=_MEASURED_PROMPTS, per_kind=_MEASURED_QUESTIONS)
        (self._work / MEASUREMENTS_NAME).write_text(
            json.dumps(tables, indent=2) + '\n', encoding='utf-8')
        self._report({'kind': 'event', 'name': 'finished', 'detail': f'policy in {out}'})

    def train(self, out: Path) -> None:
        """Go through all stages from where the run stands; a checkpoint after each mixture."""
        while self._stage < len(self.config.stages):
            stage = self.config.stages[self._stage]
            if isinstance(stage, CollectStage | SimulateStage):
                self._add_frames(stage)
            else:
                self._optimise(stage)
            self._stage, self._step = self._stage + 1, 0
            self._save_state()
            if isinstance(stage, MixtureStage):
                self.save(out, {})

    def evaluate(self, episodes: int, first_seed: int = EVALUATION_FIRST_SEED) -> dict[str, Any]:
        """Run lock-step episodes on seeds that training never saw; {verb: [successes, n]}."""
        outcomes = self._simulators(_PARALLEL).run(
            balanced_episodes(episodes, first_seed), self._act(),
            max_steps=self.config.closed_loop_steps)
        return _summary(outcomes)

    def save(self, out: Path, measured: Mapping[str, Any]) -> None:
        """Write the checkpoint folder."""
        frames = self._mixture.frames
        save_checkpoint(
            out, self.parts, self.stats, self.config, transitions=len(frames),
            trajectories=len(np.unique(frames.scene)), provenance=self._provenance(measured))

    def _optimise(self, stage: Stage) -> None:
        if isinstance(stage, MixtureStage):
            self._check_labels(stage)
        kept: list[dict[str, float]] = []
        since = time.monotonic()
        rates = list(learning_rates(
            getattr(stage, 'decay_steps', None) or stage.steps, stage.warmup, stage.lr,
            getattr(stage, 'final_lr', stage.lr / 10)))
        for step in range(self._step, stage.steps):
            kept.append(self._one_step(stage, rates[step]))
            done = step + 1 == stage.steps
            if (step + 1) % self.config.validate_every == 0 or done:
                self._step = step + 1
                self._log(stage, kept, rates[step], time.monotonic() - since)
                kept.clear()
                self._save_state()
                since = time.monotonic()

    def _check_labels(self, stage: MixtureStage) -> None:
        """Decode one batch of labels as execution would; ValueError if the automaton refuses."""
        rng = np.random.default_rng(self.config.seed)
        frames = self._mixture.pick(rng, stage.images, mirror=stage.mirror)
        samples, _ = self._mixture.draw(
            rng, frames, prompts=stage.prompts_per_image, shares=stage.shares,
            pointing_only=stage.pointing_only)
        self.builder.check(samples)

    def _one_step(self, stage: Stage, lr: float) -> dict[str, float]:
        if isinstance(stage, MixtureStage):
            return self.learner.mixture_step(self._mixture, self._rng, stage, lr)
        return self.learner.alignment_step(self._mixture, self._rng, stage, lr)

    def _log(
        self, stage: Stage, kept: list[dict[str, float]], lr: float, seconds: float
    ) -> None:
        names = sorted({name for figures in kept for name in figures})
        losses = {n: float(np.mean([f[n] for f in kept if n in f])) for n in names}
        samples = len(kept) * stage.images * getattr(stage, 'prompts_per_image', 1)
        record = {
            'kind': 'train', 'stage': stage.name, 'step': self._step, 'of': stage.steps,
            'minutes': self._minutes(), 'samples_per_s': samples / seconds, 'lr': lr,
            'loss': losses}
        if isinstance(stage, MixtureStage):
            record['held_out'] = self._validator.measure(self.learner)
        self._report(record)

    def _add_frames(self, stage: CollectStage | SimulateStage) -> None:
        """Extend the mixture by a stage's frames, made now unless the folder has them."""
        if isinstance(stage, SimulateStage):
            frames, repeat = self._simulated('demonstrations', stage.scenes), stage.repeat
        else:
            frames, repeat = self._collected(stage), stage.repeat
        self._note(frames)
        self._mixture = self._mixture.extended(frames, repeat)

    def _collected(self, stage: CollectStage) -> Frames:
        path = self._work / f'{stage.name}.npz'
        if not path.exists():
            scene = int(self._mixture.frames.scene.max()) + 1
            frames, outcomes = collect(
                self._simulators(stage.parallel),
                balanced_episodes(
                    stage.episodes, stage.seed, stage.verbs, self.config.robot_excludes),
                self._act(),
                steps=stage.steps_per_episode, first_scene=scene)
            frames.save(path)
            self._report({
                'kind': 'closed_loop', 'stage': stage.name, 'frames': len(frames),
                'minutes': self._minutes(), **_summary(outcomes)})
        return Frames.load(path).without_tasks(self._excluded)

    def _act(self) -> Callable[[np.ndarray, list[str]], np.ndarray]:
        policy = BatchPolicy(
            self.parts.model, self.parts.actions, self.builder, self.stats,
            expectation=self.config.action.decoding == 'expectation')
        return lambda images, instructions: policy.act(images, instructions)[0]

    def _simulators(self, parallel: int) -> ParallelEpisodes:
        if parallel not in self._episodes:
            self._episodes[parallel] = ParallelEpisodes(parallel, self.parts.camera)
        return self._episodes[parallel]

    def _new_learner(self, frames: Frames) -> Learner:
        initialise_patches(
            self.parts.model, torch.from_numpy(frames.images[::_every(len(frames))]))
        targets, _ = alignment_targets(frames.take(np.arange(1)), self.stats)
        answer = answer_length(self.parts)
        return Learner(
            self.parts.model, self.stats, number_ids=self.parts.actions.bin_token_ids,
            sigma=self.config.action.label_sigma_bins, compiled=self.config.compile,
            length=prompt_length(self.parts, answer), answer_length=answer,
            targets=targets.shape[1])

    def _demonstrations(self) -> tuple[Frames, Frames]:
        """Return training and held-out frames, simulated once and then read from the folder."""
        wanted = self.config.demonstrations
        parts = [self._simulated('demonstrations', part) for part in wanted.sets]
        self._note(*parts)
        return concatenate(parts), self._simulated('held-out', wanted.held_out)

    def _note(self, *parts: Frames) -> None:
        """Add frames to the fingerprint of what this run learns from."""
        for part in parts:
            self._digest.update(part.fingerprint().encode())

    def _simulated(self, name: str, part: SceneSet) -> Frames:
        wanted = self.config.demonstrations
        size = self.config.model.image_size
        path = self._work / (
            f'{name}-{wanted.seed}-{part.first}-{part.scenes}x{part.frames}-{size}px.npz')
        if not path.exists():
            self._report({'kind': 'event', 'name': 'simulating',
                          'detail': f'{part.scenes} scenes, {name}'})
            scenes = SceneRange(
                seed=wanted.seed, first=part.first, count=part.scenes, frames=part.frames,
                motion=part.motion)
            generate_parallel(scenes, self.parts.camera, wanted.workers).save(path)
        return Frames.load(path).without_tasks(self._excluded)

    def _begin_with(self, path: Path) -> None:
        """Take over the weights of another run, not its optimiser nor its place."""
        if not path.is_file():
            raise ValueError(f'start: expected the state.pt of a run, found no file {path}')
        state = torch.load(path, weights_only=True)
        self.parts.model.load_state_dict(state['model'])
        self.learner.heads.load_state_dict(state['heads'])

    def _resume(self) -> bool:
        """Go on where state.pt stands, if there is one."""
        path = self._work / 'state.pt'
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        before = TrainingConfig.model_validate_json(state['config'])
        if _settled(before, state['stage']) != _settled(self.config, state['stage']):
            raise ValueError(
                f'{path} was made with another configuration (only stages that have not begun'
                ' may change); remove it or choose another --work')
        self.parts.model.load_state_dict(state['model'])
        self.learner.heads.load_state_dict(state['heads'])
        self.learner.optimiser.load_state_dict(state['optimiser'])
        self._stage, self._step = state['stage'], state['step']
        self._seconds_before = state['seconds']
        self._rng.bit_generator.state = json.loads(state['rng'])
        for stage in self.config.stages[:self._stage]:
            if isinstance(stage, CollectStage | SimulateStage):
                self._add_frames(stage)
        return True

    def _save_state(self) -> None:
        partial = self._work / 'state.pt.partial'
        torch.save({
            'config': self.config.model_dump_json(), 'stage': self._stage, 'step': self._step,
            'seconds': self._seconds_before + time.monotonic() - self._started,
            'rng': json.dumps(self._rng.bit_generator.state),
            'model': self.parts.model.state_dict(), 'heads': self.learner.heads.state_dict(),
            'optimiser': self.learner.optimiser.state_dict(),
        }, partial)
        partial.replace(self._work / 'state.pt')

    def _minutes(self) -> float:
        return round((self._seconds_before + time.monotonic() - self._started) / 60, 2)

    def _mixture_record(self) -> dict[str, Any]:
        """Return what all mixture stages together draw from the first frames."""
        records = len(self._mixture.frames)
        episodes = len(np.unique(self._mixture.frames.scene))
        drawn = drawn_per_source(self.config)
        return {'kind': 'mixture', 'sources': [
            {'name': name, 'records': records, 'episodes': episodes,
             'share': count / max(1.0, sum(drawn.values())), 'seen_per_record': count / records}
            for name, count in drawn.items()]}

    def _provenance(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        return {
            'name': self.config.name,
            'base': 'scratch' if self.config.start is None else str(self.config.start),
            'command': ' '.join(['cofinetune', *sys.argv[1:]]),
            'seed': self.config.seed,
            'versions': versions(_PACKAGES),
            'hardware': f'{processor()}, {self.config.threads} thread(s)',
            'minutes': self._minutes(),
            'frames': len(self._mixture.frames),
            'frames_sha256': self._digest.hexdigest(),
            'measured': dict(measured),
        }


def _settled(config: TrainingConfig, stage: int) -> dict[str, Any]:
    """Return what must not change once the run stands in `stage`."""
    content = config.model_dump(exclude={'closed_loop_episodes', 'closed_loop_steps'})
    return {**content, 'stages': content['stages'][:stage]}


def _summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    nearest = sum(outcome.nearest_block == outcome.task.colour for outcome in outcomes)
    return {
        'per_verb': {verb: list(n) for verb, n in success_per_verb(outcomes).items()},
        'successes': sum(outcome.succeeded for outcome in outcomes),
        'nearest_block_is_target': nearest, 'episodes': len(outcomes),
    }


def drawn_per_source(config: TrainingConfig) -> dict[str, float]:
    """Return how many answers of each source all mixture stages together will draw."""
    drawn = {'robot': 0.0, 'questions': 0.0}
    for stage in config.stages:
        if isinstance(stage, MixtureStage):
            for name, share in stage.shares.items():
                drawn[name] += share * stage.steps * stage.images * stage.prompts_per_image
    return drawn


def _every(count: int) -> int:
    return max(1, count // 800)
