"""Batched decoding and lock-step episodes."""

import numpy as np
from test_training_config import CONFIGURATIONS
from training_frames import make_frames

from vla_policy_node.simulation import expert_action
from vla_policy_node.simulation import TASKS
from vla_policy_node.training.closed_loop import balanced_episodes
from vla_policy_node.training.closed_loop import BatchPolicy
from vla_policy_node.training.closed_loop import collect
from vla_policy_node.training.closed_loop import ParallelEpisodes
from vla_policy_node.training.closed_loop import success_per_verb
from vla_policy_node.training.config import load_config
from vla_policy_node.training.demonstrations import generate
from vla_policy_node.training.demonstrations import SceneRange
from vla_policy_node.training.parts import build_labels
from vla_policy_node.training.parts import build_parts
from vla_policy_node.training.parts import stats_of
from vla_policy_node.vla_config import CameraConfig

CAMERA = CameraConfig(size=(64, 64))


def _policy() -> tuple[BatchPolicy, np.ndarray]:
    parts, frames = build_parts(load_config(CONFIGURATIONS / 'smoke.yaml')), make_frames(3)
    stats = stats_of(frames.actions)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, frames.images.shape, dtype=np.uint8)
    return BatchPolicy(parts.model, parts.actions, build_labels(parts, stats), stats,
                       expectation=True), images


def test_actions_of_a_batch_are_those_of_each_alone() -> None:
    policy, images = _policy()
    words = ['touch the red block', 'push the blue block to the left', 'lift the red block']
    together, _ = policy.act(images, words)
    alone = np.concatenate([
        policy.act(images[i:i + 1], words[i:i + 1])[0] for i in range(len(words))])
    assert together.shape == (3, 7)
    assert np.abs(together - alone)[:, :3].max() < 2e-3


def test_episodes_take_the_tasks_in_turn_with_their_own_seeds() -> None:
    episodes = balanced_episodes(20, 100)
    assert [task for task, _ in episodes[:16]] == list(TASKS)
    assert [seed for _, seed in episodes] == list(range(100, 120))


class _Expert:
    """Looks at the simulators themselves, which no policy may."""

    def __init__(self, episodes: ParallelEpisodes) -> None:
        self._slots = episodes._slots

    def __call__(self, images: np.ndarray, instructions: list[str]) -> np.ndarray:
        slots = [slot for slot in self._slots if slot.task and not slot.judge.succeeded]
        by_words = {slot.task.instruction: slot for slot in slots}
        return np.stack([
            expert_action(by_words[words].sim.state(), by_words[words].task)
            for words in instructions])


def test_the_expert_succeeds_in_parallel_lock_step() -> None:
    episodes = ParallelEpisodes(2, CAMERA)
    outcomes = episodes.run(
        [(TASKS[0], 1), (TASKS[5], 2)], _Expert(episodes), max_steps=60)
    assert success_per_verb(outcomes) == {'touch': (1, 1), 'pick': (1, 1)}


def test_collected_frames_are_what_the_policy_saw_with_the_experts_labels() -> None:
    episodes = ParallelEpisodes(2, CAMERA)
    frames, outcomes = collect(
        episodes, [(TASKS[0], 1), (TASKS[1], 2)], lambda images, words: np.zeros((len(words), 7)),
        steps=3, first_scene=7)
    assert len(frames) == 6 and len(outcomes) == 2
    assert frames.images.shape == (6, 64, 64, 3)
    assert (frames.scene == 7).all()
    labelled = np.isfinite(frames.actions[..., 0])
    assert (labelled == np.repeat(frames.present, 1, axis=1)[:, [0, 1, 2, 3] * 4]).all()


def test_the_same_scenes_give_the_same_frames() -> None:
    scenes = SceneRange(seed=3, first=5, count=1, frames=3)
    first, second = generate(scenes, CAMERA), generate(scenes, CAMERA)
    assert first.fingerprint() == second.fingerprint()
    assert (first.images == second.images).all()
