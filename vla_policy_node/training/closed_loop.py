"""
The model in the simulator, in lock-step and several scenes at a time, without ROS.

Serves two ends: measuring success, and collecting the states a policy gets itself into, with
the expert's labels on them (DAgger). The decoding is that of execution, batched: plan tokens
greedily, action tokens by the expectation over their bins.
"""

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import LlavaForConditionalGeneration

from vla_policy_node.action_space import ACTION_DIM
from vla_policy_node.action_space import NormStats
from vla_policy_node.action_tokenizer import ActionTokenizer
from vla_policy_node.simulation import TabletopSim
from vla_policy_node.simulation import Task
from vla_policy_node.simulation import TaskJudge
from vla_policy_node.simulation import TASKS
from vla_policy_node.training.demonstrations import label
from vla_policy_node.training.demonstrations import NATIVE_SIZE
from vla_policy_node.training.demonstrations import observe
from vla_policy_node.training.frames import concatenate
from vla_policy_node.training.frames import Frames
from vla_policy_node.training.labels import LabelBuilder
from vla_policy_node.training.model import image_features
from vla_policy_node.vla_config import CameraConfig


class BatchPolicy:
    """Answers several observations at once with the model under training."""

    def __init__(
        self, model: LlavaForConditionalGeneration, actions: ActionTokenizer,
        builder: LabelBuilder, stats: NormStats, *, expectation: bool,
    ) -> None:
        self._model = model
        self._actions = actions
        self._builder = builder
        self._stats = stats
        self._expectation = expectation
        self._ids = torch.from_numpy(actions.bin_token_ids.copy())
        self._values = torch.tensor(actions.bin_values, dtype=torch.float32)

    @torch.inference_mode()
    def act(
        self, images: np.ndarray, instructions: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """(M, H, W, 3) uint8 -> (M, 7) physical actions and (M, plan length) plans in [-1, 1]."""
        prompts = [self._builder.action_prompt(words) for words in instructions]
        with torch.autocast('cpu', torch.bfloat16):
            bins, expected = self._decode(*self._embed(images, prompts))
        plan = self._values[bins[:, :self._actions.plan_length]]
        values = expected if self._expectation else self._values[bins]
        actions = values[:, -ACTION_DIM:].double().numpy()
        return self._stats.unnormalize(actions), plan.numpy()

    @torch.inference_mode()
    def answer(self, images: np.ndarray, questions: Sequence[str], length: int) -> np.ndarray:
        """(M, H, W, 3) uint8 -> (M, length) int64 ids, greedy over the whole vocabulary."""
        prompts = [self._builder.question_prompt(text) for text in questions]
        with torch.autocast('cpu', torch.bfloat16):
            steps = self._steps(*self._embed(images, prompts))
            hidden, ids = next(steps), []
            for _ in range(length):
                ids.append(self._model.lm_head(hidden).argmax(-1))
                hidden = steps.send(ids[-1])
        return torch.stack(ids, dim=1).numpy()

    def _embed(
        self, images: np.ndarray, prompts: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return left-padded (M, T, width) embeddings and the (M, T) attention mask."""
        features = image_features(self._model, torch.from_numpy(images))
        embed = self._model.get_input_embeddings()
        rows = [
            torch.cat([embed(torch.tensor(before)), picture.float(), embed(torch.tensor(after))])
            for picture, (before, after) in zip(features, prompts, strict=True)]
        longest = max(len(row) for row in rows)
        embeddings = torch.zeros(len(rows), longest, features.shape[-1])
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for row, place, seen in zip(rows, embeddings, mask, strict=True):
            place[longest - len(row):] = row
            seen[longest - len(row):] = 1
        return embeddings, mask

    def _steps(
        self, embeddings: torch.Tensor, mask: torch.Tensor
    ) -> Generator[torch.Tensor, torch.Tensor, None]:
        """Yield (M, width) last hidden states; send the (M,) ids that come next."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        cache = None
        while True:
            output = self._model.model.language_model(
                inputs_embeds=embeddings, attention_mask=mask, position_ids=positions,
                past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            ids = yield output.last_hidden_state[:, -1]
            embeddings = self._model.get_input_embeddings()(ids)[:, None]
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            positions = positions[:, -1:] + 1

    def _decode(
        self, embeddings: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (M, answer) int64 bins and (M, answer) float32 expected values."""
        head = self._model.lm_head.weight[self._ids].float().T
        steps = self._steps(embeddings, mask)
        hidden, bins, expected = next(steps), [], []
        for place in range(self._actions.sequence_length):
            logits = hidden.float() @ head
            value = logits.softmax(-1) @ self._values
            chosen = logits.argmax(-1)
            if self._expectation and self._actions.position(place).kind == 'action':
                chosen = (self._values - value[:, None]).abs().argmin(-1)
            bins.append(chosen)
            expected.append(value)
            hidden = steps.send(self._ids[chosen])
        return torch.stack(bins, dim=1), torch.stack(expected, dim=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One episode: what was asked, whether it was done, the nearest block at the end."""

    task: Task
    seed: int
    succeeded: bool
    steps: int
    nearest_block: str


Act = Callable[[np.ndarray, list[str]], np.ndarray]


class _Slot:
    """A simulator and the episode that runs in it."""

    def __init__(self) -> None:
        self.sim = TabletopSim(image_size=NATIVE_SIZE)
        self.task: Task | None = None
        self.seed = 0
        self.steps = 0
        self.judge: TaskJudge | None = None

    def begin(self, task: Task, seed: int) -> None:
        """Start an episode."""
        self.sim.reset(seed, task)
        self.task, self.seed, self.steps = task, seed, 0
        self.judge = TaskJudge(task, self.sim.state())

    def advance(self, action: np.ndarray) -> None:
        """Carry out one action and judge it."""
        self.sim.apply_delta(action)
        self.steps += 1
        self.judge.update(self.sim.state())

    def outcome(self) -> Outcome:
        """Return how the episode stands."""
        return Outcome(
            task=self.task, seed=self.seed, succeeded=self.judge.succeeded, steps=self.steps,
            nearest_block=self.judge.nearest_block)


class ParallelEpisodes:
    """Runs many episodes, a few scenes at a time; the simulators are kept between calls."""

    def __init__(self, parallel: int, camera: CameraConfig) -> None:
        self._camera = camera
        self._slots = [_Slot() for _ in range(parallel)]

    def run(
        self, episodes: Sequence[tuple[Task, int]], act: Act, *, max_steps: int,
        stop_at_success: bool = True,
        record: Callable[[TabletopSim, np.ndarray, Task], None] | None = None,
        words: Callable[[Task], str] = lambda task: task.instruction,
    ) -> list[Outcome]:
        """
        Run (task, seed) episodes; `record` gets every frame before it is acted upon.

        act: (M, H, W, 3) pictures and M instructions -> (M, 7) canonical actions. words: what
        is said for a task.
        """
        waiting, outcomes, running = list(reversed(episodes)), [], []
        free = list(self._slots)
        while waiting or running:
            while waiting and free:
                slot = free.pop()
                slot.begin(*waiting.pop())
                running.append(slot)
            self._step(running, act, record, words)
            for slot in [s for s in running if _is_over(s, max_steps, stop_at_success)]:
                outcomes.append(slot.outcome())
                running.remove(slot)
                free.append(slot)
        return outcomes

    def _step(
        self, running: list[_Slot], act: Act, record: Callable | None,
        words: Callable[[Task], str],
    ) -> None:
        pictures = [observe(slot.sim, self._camera) for slot in running]
        if record is not None:
            for slot, picture in zip(running, pictures, strict=True):
                record(slot.sim, picture, slot.task)
        actions = act(np.stack(pictures), [words(slot.task) for slot in running])
        for slot, action in zip(running, actions, strict=True):
            slot.advance(action)


def _is_over(slot: _Slot, max_steps: int, stop_at_success: bool) -> bool:
    return slot.steps >= max_steps or (stop_at_success and slot.judge.succeeded)


def balanced_episodes(
    count: int, first_seed: int, verbs: Sequence[str] | None = None,
    excludes: Sequence[str] = (),
) -> list[tuple[Task, int]]:
    """
    Return `count` episodes that take the tasks in turn, every one with its own seed.

    verbs: only tasks of these, None for all. excludes: no tasks of these colours.
    """
    tasks = [task for task in TASKS
             if (verbs is None or task.verb in verbs) and task.colour not in excludes]
    return [(tasks[index % len(tasks)], first_seed + index) for index in range(count)]


def success_per_verb(outcomes: Sequence[Outcome]) -> dict[str, tuple[int, int]]:
    """Return {verb: (successes, episodes)} in the order of the tasks."""
    verbs = dict.fromkeys(task.verb for task in TASKS)
    return {
        verb: (sum(o.succeeded for o in outcomes if o.task.verb == verb),
               sum(o.task.verb == verb for o in outcomes))
        for verb in verbs if any(o.task.verb == verb for o in outcomes)
    }


def collect(
    episodes: ParallelEpisodes, tasks: Sequence[tuple[Task, int]], act: Act, *, steps: int,
    first_scene: int,
) -> tuple[Frames, list[Outcome]]:
    """Let the policy drive for `steps` periods per episode; every frame it meets, labelled."""
    parts: list[Frames] = []

    def keep(sim: TabletopSim, picture: np.ndarray, task: Task) -> None:
        parts.append(label(sim, picture, first_scene))

    outcomes = episodes.run(tasks, act, max_steps=steps, record=keep)
    return concatenate(parts), outcomes
