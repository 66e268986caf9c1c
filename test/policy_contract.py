"""What every Policy keeps, and the simplest policy that keeps it."""

import numpy as np
import pytest

from vla_policy_node.action_space import ActionSpace
from vla_policy_node.action_space import NormStats
from vla_policy_node.policy import ActionChunk
from vla_policy_node.policy import Observation
from vla_policy_node.policy import PolicyError

TIMINGS = {'preprocess', 'vision', 'prefill', 'decode', 'total'}


def observation(level: int = 0, instruction: str = 'pick up the red block') -> Observation:
    """Return a grey 48 x 64 image of one level and an instruction."""
    return Observation(
        images={'primary': np.full((48, 64, 3), level, np.uint8)}, instruction=instruction
    )


class FakePolicy:
    """Moves up in proportion to the image's brightness; needs no model."""

    camera_names = ('primary',)

    def __init__(self) -> None:
        """Take a millimetre-sized action space."""
        stats = NormStats(q01=[-0.04] * 7, q99=[0.04] * 7, mask=[True] * 6 + [False])
        self.action_space = ActionSpace(
            frame='base', rotation='rotation_vector', gripper='open_is_one', period_s=0.2,
            stats=stats,
        )
        self._closed = False

    def infer(self, observation: Observation) -> ActionChunk:
        """Return one upward step of at most 4 cm, gripper open."""
        level = self._level(observation)
        actions = np.array([[0.0, 0.0, 0.04 * level, 0.0, 0.0, 0.0, 1.0]])
        return ActionChunk(
            actions=actions, token_ids=np.zeros((1, 7), np.int64),
            all_token_ids=np.zeros(7, np.int64), confidence=np.ones((1, 7), np.float32),
            timing_ms=dict.fromkeys(TIMINGS, 0.0),
        )

    def answer(self, observation: Observation, max_new_tokens: int = 64) -> str:
        """Say how bright the image is."""
        return f'brightness {self._level(observation):.2f}'

    def action_logits(self, observation: Observation) -> np.ndarray:
        """Return two logits that depend on the brightness."""
        level = self._level(observation)
        return np.array([level, 1.0 - level], np.float32)

    def close(self) -> None:
        """Refuse every later call."""
        self._closed = True

    def _level(self, observation: Observation) -> float:
        if self._closed:
            raise PolicyError('this policy is closed; load it again')
        if not observation.instruction.strip():
            raise PolicyError('expected some words, found an empty instruction')
        if 'primary' not in observation.images:
            raise PolicyError('expected images of cameras primary')
        return float(observation.images['primary'].mean() / 255.0)


class PolicyContract:
    """Inherit and give a module-wide ``policy`` and a function ``make_policy``."""

    @pytest.fixture
    def policy(self):
        """Return the policy under test; it is not changed by the tests."""
        raise NotImplementedError

    def make_policy(self):
        """Return a fresh policy that a test may close."""
        raise NotImplementedError

    def test_actions_are_finite_seven_numbers_per_step(self, policy):
        actions = policy.infer(observation()).actions
        assert actions.ndim == 2 and actions.shape[1] == 7
        assert actions.dtype == np.float64
        assert np.isfinite(actions).all()

    def test_the_gripper_stays_between_closed_and_open(self, policy):
        gripper = policy.infer(observation(128)).actions[:, 6]
        assert ((gripper >= 0.0) & (gripper <= 1.0)).all()

    def test_confidence_is_a_probability_for_every_number(self, policy):
        chunk = policy.infer(observation())
        assert chunk.confidence.shape == chunk.actions.shape
        assert chunk.confidence.dtype == np.float32
        assert ((chunk.confidence >= 0.0) & (chunk.confidence <= 1.0)).all()

    def test_token_ids_are_integers(self, policy):
        chunk = policy.infer(observation())
        assert chunk.token_ids.dtype == chunk.all_token_ids.dtype == np.int64

    def test_the_same_observation_gives_the_same_action(self, policy):
        first, second = (policy.infer(observation(90)).actions for _ in range(2))
        np.testing.assert_array_equal(first, second)

    def test_the_time_of_every_part_is_told(self, policy):
        timing_ms = policy.infer(observation()).timing_ms
        assert set(timing_ms) == TIMINGS
        assert min(timing_ms.values()) >= 0.0

    def test_a_question_is_answered_in_words(self, policy):
        assert isinstance(policy.answer(observation(instruction='what is red ?'), 4), str)

    def test_an_action_after_an_answer_is_the_same_as_before(self, policy):
        before = policy.infer(observation(30)).actions
        policy.answer(observation(30, 'what is red ?'), 4)
        np.testing.assert_array_equal(policy.infer(observation(30)).actions, before)

    def test_an_empty_instruction_is_refused(self, policy):
        with pytest.raises(ValueError, match='empty'):
            policy.infer(observation(instruction='  '))

    def test_a_missing_camera_is_named(self, policy):
        image = np.zeros((48, 64, 3), np.uint8)
        with pytest.raises(ValueError, match='primary'):
            policy.infer(Observation(images={'wrist': image}, instruction='pick'))

    def test_the_action_space_says_the_period(self, policy):
        assert policy.action_space.period_s == 0.2

    def test_a_closed_policy_refuses_and_closing_twice_is_harmless(self):
        policy = self.make_policy()
        policy.close()
        policy.close()
        with pytest.raises(ValueError, match='closed'):
            policy.infer(observation())
