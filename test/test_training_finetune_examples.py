"""Records become prompts, pictures and label ids as execution would read them."""

from finetune_fakes import FakeRobot
from finetune_fakes import FakeText
from finetune_fakes import make_config
from finetune_fakes import make_parts
import numpy as np
from policy_models import save_llava
import pytest

from vla_policy_node import images
from vla_policy_node.action_space import from_canonical
from vla_policy_node.action_space import rotation_vector_from_rpy
from vla_policy_node.rotations import from_vectors
from vla_policy_node.rotations import to_fixed_axis_rpy
from vla_policy_node.training.finetune.augment import Augmenter
from vla_policy_node.training.finetune.augment import random_place
from vla_policy_node.training.finetune.config import AugmentationConfig
from vla_policy_node.training.finetune.config import FinetuneConfigError
from vla_policy_node.training.finetune.run import builder_of
from vla_policy_node.training.finetune.vocabulary import place_scheme
from vla_policy_node.training.sources.records import RecordError
from vla_policy_node.training.sources.records import RobotRecord
from vla_policy_node.training.sources.records import TextRecord
from vla_policy_node.vla_config import ActionSpaceConfig
from vla_policy_node.vla_config import CameraConfig

RGB = np.full((40, 48, 3), 90, np.uint8)
STILL = np.zeros((1, 7))


@pytest.fixture(scope='module')
def base(tmp_path_factory):
    return save_llava(tmp_path_factory.mktemp('base'))


@pytest.fixture(scope='module')
def parts(base):
    return make_parts(make_config(base))


@pytest.fixture(scope='module')
def builder(base, parts):
    return builder_of(make_config(base), parts)


def builder_for(base, **changes):
    config = make_config(base, **changes)
    parts = make_parts(config)
    return parts, builder_of(config, parts)


def robot(**changes):
    return RobotRecord(**{'images': {'primary': RGB}, 'instruction': 'pick up the red block',
                          'actions': STILL, **changes})


def test_an_action_label_decodes_to_the_action_within_a_bin(parts, builder):
    record = FakeRobot()[1]
    example = builder.build(record)
    decoded = parts.language.actions.decode(example.answer)
    physical = parts.stats.unnormalize(decoded.actions)
    np.testing.assert_allclose(physical, record.actions, atol=1 / 256)
    assert example.bins.tolist() == decoded.bins.ravel().tolist()
    assert example.dimensions.tolist() == [0, 1, 2, 3, 4, 5, 6]


def test_a_text_answer_ends_where_execution_stops_and_has_no_bins(parts, builder):
    example = builder.build(FakeText()[0])
    tokenizer = parts.language.processor.tokenizer
    assert tokenizer.convert_ids_to_tokens(example.answer.tolist()) == ['green', '<eos>']
    assert example.bins.tolist() == [-1, -1]


def test_a_question_without_a_picture_is_asked_before_a_black_one(builder):
    example = builder.build(TextRecord(question='what is\nred ?', answer='block'))
    assert example.asked == 'what is red ?'
    assert example.inputs['pixel_values'].shape == (1, 3, 32, 32)
    assert float(example.inputs['pixel_values'].max()) == -1.0


def test_a_question_about_two_pictures_shows_both(builder):
    example = builder.build(TextRecord(
        question='what is left ?', answer='red', images={'a': RGB, 'b': RGB}))
    assert example.inputs['pixel_values'].shape == (2, 3, 32, 32)


@pytest.mark.parametrize(('record', 'found'), [
    (robot(images={'wrist': RGB}), 'expected a picture of camera primary, found wrist'),
    (robot(instruction='red ' * 200), 'at most 512 characters'),
    (robot(actions=np.full((1, 7), np.nan)), 'expected finite numbers'),
    (robot(actions=np.zeros((2, 7))), r'expected shape \(1, 7\)'),
    (robot(images={'primary': RGB[..., 0]}), r'shape \(H, W, 3\)'),
    (TextRecord(question='', answer='red'), 'expected some words'),
    (TextRecord(question='what', answer=' '), 'expected an answer in words'),
    (TextRecord(question='what', answer='red ' * 300), 'expected at most 256 tokens'),
])
def test_what_is_wrong_with_a_record_is_a_record_error(builder, record, found):
    with pytest.raises(RecordError, match=found):
        builder.build(record)


def test_a_point_plan_is_two_bins_before_the_action(base):
    parts, builder = builder_for(
        base, action={'scheme': 'text', 'separator': '', 'plan': 'point', 'period_s': 0.2})
    example = builder.build(robot(plan='red block at 120 88'))
    assert example.bins[:2].tolist() == [120, 88] and len(example.answer) == 9
    assert example.dimensions.tolist() == [-1, -1, 0, 1, 2, 3, 4, 5, 6]
    for plan in ('', 'red block', 'red block at 300 2'):
        with pytest.raises(RecordError, match="expected a plan like 'red block at 120 88'"):
            builder.build(robot(plan=plan))


def test_a_plan_in_words_is_written_before_the_action(base):
    action = {'scheme': 'text', 'separator': '', 'plan': 'text', 'plan_end': '?',
              'plan_max_tokens': 2, 'period_s': 0.2}
    parts, builder = builder_for(base, action=action)
    example = builder.build(robot(plan='red block'))
    tokens = parts.language.processor.tokenizer.convert_ids_to_tokens(example.answer.tolist())
    assert tokens[:3] == ['red', 'block', '?'] and len(tokens) == 10
    with pytest.raises(RecordError, match='expected at most 2 tokens'):
        builder.build(robot(plan='the red block'))


def test_a_chunk_with_the_end_of_an_episode_is_labelled(base):
    config = make_config(base, action={'scheme': 'added', 'horizon': 2, 'terminate': True,
                                       'period_s': 0.2})
    parts = make_parts(config, FakeRobot(horizon=2))
    example = builder_of(config, parts).build(robot(actions=np.zeros((2, 7)), terminate=True))
    assert parts.language.actions.decode(example.answer).terminate
    assert len(example.answer) == 15


def test_the_same_draw_is_augmented_alike_and_another_is_not(base):
    _, builder = builder_for(base, augmentation={'crop_area': 0.7, 'brightness': 0.3})
    noisy = robot(images={'primary': np.random.default_rng(0).integers(
        0, 256, (40, 48, 3), np.uint8)})
    first, again, other = (
        builder.build(noisy, np.random.default_rng(seed)).inputs['pixel_values']
        for seed in (1, 1, 2))
    assert first.equal(again) and not first.equal(other)


def test_a_random_crop_has_the_size_of_executions_and_lies_inside():
    centre = images.centre_box(40, 48, 0.5)
    assert centre == (6, 7, 28, 34)
    rng = np.random.default_rng(0)
    places = {random_place(centre, (40, 48, 3), rng)[:2] for _ in range(400)}
    assert min(places) >= (0, 0)
    assert max(top for top, _ in places) == 12 and max(left for _, left in places) == 14


def test_without_strength_an_augmented_picture_is_executions():
    rgb = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    camera = CameraConfig(name='primary', size=(32, 32), crop_area=0.8)
    executed = images.prepare(rgb, camera)
    augmented = Augmenter(AugmentationConfig())(rgb, camera, np.random.default_rng(0))
    np.testing.assert_array_equal(augmented, executed)
    box = images.centre_box(40, 48, 0.8)
    np.testing.assert_array_equal(images.prepare(rgb, camera, box=box), executed)


def test_hue_turns_colours_and_leaves_grey():
    augmenter = Augmenter(AugmentationConfig(hue=0.5))
    camera = CameraConfig(name='primary')
    turned = augmenter(np.full((4, 4, 3), (200, 40, 40), np.uint8), camera,
                       np.random.default_rng(3))
    assert not np.array_equal(turned[0, 0], (200, 40, 40))
    grey = augmenter(np.full((4, 4, 3), 120, np.uint8), camera, np.random.default_rng(3))
    np.testing.assert_array_equal(grey, 120)


def test_rotations_and_grippers_go_into_the_convention_of_the_model_and_back():
    rpy = np.array([[0.3, -0.2, 1.0], [-2.0, 0.4, 0.1], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(
        to_fixed_axis_rpy(from_vectors(rotation_vector_from_rpy(rpy))), rpy, atol=1e-12)
    space = ActionSpaceConfig(rotation='fixed_axis_rpy', gripper='open_is_zero', period_s=0.2)
    action = np.array([0.1, 0.2, 0.3, 0.0, 0.0, 0.5, 1.0])
    np.testing.assert_allclose(
        from_canonical(action, space), [0.1, 0.2, 0.3, 0.0, 0.0, 0.5, 0.0], atol=1e-12)


class Words:
    """A tokenizer of `vocab_size` tokens, some of them special."""

    def __init__(self, vocab_size, special=()):
        self.vocab_size = vocab_size
        self.all_special_ids = list(special)

    def convert_ids_to_tokens(self, token_id):
        return f'<special_{token_id}>'


def test_the_last_256_ids_are_taken_by_overwriting_schemes():
    assert place_scheme('overwritten', Words(32000, [0, 1]), ' ') == {'vocab_size': 32000}
    assert place_scheme('levels', Words(32000, [0, 1]), ' ') == {'first_id': 31744}


@pytest.mark.parametrize('words', [Words(300), Words(1000, special=[900])])
def test_a_vocabulary_that_cannot_hold_a_scheme_is_refused(words):
    with pytest.raises(FinetuneConfigError, match='overwritten takes .*use scheme added or text'):
        place_scheme('overwritten', words, ' ')


def test_a_base_without_our_file_needs_action_prompt_and_cameras(base, tmp_path):
    for path in base.iterdir():
        if path.name != 'vla_config.json':
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(FinetuneConfigError, match='cameras: expected in the configuration'):
        make_parts(make_config(tmp_path))
    parts = make_parts(make_config(
        tmp_path, prompt='rt2', action={'scheme': 'text', 'separator': '', 'period_s': 0.1},
        cameras=[{'name': 'primary', 'size': [32, 32]}]))
    assert parts.language.prompt.action.startswith('<image>Q:')
    assert parts.language.action_space.period_s == 0.1


def test_two_different_crops_are_refused(base):
    cameras = [{'name': 'primary', 'size': [32, 32], 'crop_area': 0.5}]
    with pytest.raises(FinetuneConfigError, match='cameras: expected crop_area 0.9'):
        make_parts(make_config(base, cameras=cameras, augmentation={'crop_area': 0.9}))


