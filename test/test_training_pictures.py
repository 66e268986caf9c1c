"""Sample predictions as pictures: what is drawn is what was wanted and predicted."""

import numpy as np
from PIL import Image
import pytest

from vla_policy_node.training import pictures
from vla_policy_node.training.pictures import ActionSample
from vla_policy_node.training.pictures import AnswerSample

WHITE = np.array([255, 255, 255])
GREEN = np.array([77, 182, 168])
BLACK_PICTURE = np.zeros((120, 160, 3), np.uint8)


def action_sample(**changes) -> ActionSample:
    values = {
        'images': {'primary': BLACK_PICTURE}, 'instruction': 'open the drawer',
        'wanted': np.array([0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]),
        'predicted': np.array([0.0, -0.02, -0.01, 0.0, 0.0, 0.0, 0.0])}
    return ActionSample(**{**values, **changes})


def where(drawing: Image.Image, colour: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """Return (N, 2) positions u, v of a colour within left, top, right, bottom."""
    left, top, right, bottom = box
    pixels = np.asarray(drawing)[top:bottom, left:right]
    rows, columns = np.nonzero((pixels == colour).all(axis=-1))
    return np.stack([columns + left, rows + top], axis=1)


def compass() -> tuple[int, int, tuple[int, int, int, int]]:
    x, y, radius = pictures._COMPASS
    x += pictures.SIDE_PX
    return x, y, (x - radius, y - radius + 8, x + radius, y + radius)


def test_forward_points_up_and_negative_y_points_right():
    x, y, box = compass()
    drawing = action_sample().draw()
    wanted, predicted = where(drawing, WHITE, box), where(drawing, GREEN, box)
    assert wanted[:, 1].min() < y - 40 and abs(wanted[:, 0].mean() - x) < 3
    assert predicted[:, 0].max() > x + 40 and abs(predicted[:, 1].mean() - y) < 3


def test_an_action_that_stays_is_a_dot():
    x, y, box = compass()
    drawing = action_sample(wanted=np.zeros(7)).draw()
    wanted = where(drawing, WHITE, box)
    assert len(wanted) and np.abs(wanted - (x, y)).max() < 8


def test_of_several_deltas_the_sum_is_drawn():
    _, y, box = compass()
    drawing = action_sample(wanted=np.tile([0.005, 0, 0, 0, 0, 0, 1.0], (4, 1))).draw()
    assert where(drawing, WHITE, box)[:, 1].min() < y - 40


def test_plans_are_cross_hairs_in_the_picture():
    drawing = action_sample(wanted_point=(0.25, 0.5), predicted_point=(0.75, 0.5)).draw()
    box = (0, 0, pictures.SIDE_PX, pictures.SIDE_PX)
    # 160 x 120 fills the width of the square.
    assert np.allclose(where(drawing, WHITE, box).mean(axis=0), (80, 160), atol=2)
    assert np.allclose(where(drawing, GREEN, box).mean(axis=0), (240, 160), atol=2)


def test_every_camera_has_its_square():
    two = action_sample(images={'primary': BLACK_PICTURE, 'wrist': BLACK_PICTURE})
    assert two.draw().size == (2 * pictures.SIDE_PX + pictures.PANEL_PX, pictures.SIDE_PX)


def test_a_question_without_a_picture_is_drawn_all_the_same():
    sample = AnswerSample(question='What is 2 + 2?', wanted='4', predicted='')
    assert sample.draw().size == (pictures.SIDE_PX + pictures.PANEL_PX, pictures.SIDE_PX)


@pytest.mark.parametrize(('wanted', 'predicted', 'same'), [
    ('red', ' Red ', True), ('two  blocks', 'two blocks', True), ('red', 'blue', False)])
def test_capitals_and_blanks_do_not_make_an_answer_wrong(wanted, predicted, same):
    assert pictures.same_answer(wanted, predicted) is same


def test_an_action_reads_in_millimetres_degrees_and_per_cent():
    action = np.array([0.012, -0.003, 0.0, 0.0, 0.0, np.pi / 60, 0.25])
    assert pictures.action_text(action) == (
        'x +12  y -3  z +0 mm, turn +0.0 +0.0 +3.0°, gripper 25 % open')


def test_samples_are_written_with_a_sheet_and_become_the_records_of_the_log(tmp_path):
    samples = [action_sample(), AnswerSample(
        images={'primary': BLACK_PICTURE}, question='Which colour?', wanted='red',
        predicted='blue')]
    records = pictures.write_samples(tmp_path, 100, samples, stage='mix 1')
    assert records[1] == {'picture': 'pictures/mix-1-step-000100-1.png',
                          'question': 'Which colour?', 'wanted': 'red', 'predicted': 'blue'}
    assert records[0]['instruction'] == 'open the drawer'
    assert sorted(path.name for path in (tmp_path / 'pictures').iterdir()) == [
        'mix-1-step-000100-0.png', 'mix-1-step-000100-1.png', 'mix-1-step-000100.png']
    sheet = Image.open(tmp_path / 'pictures' / 'mix-1-step-000100.png')
    assert sheet.width == 2 * samples[0].draw().width + 8


def test_no_samples_leave_no_file(tmp_path):
    assert pictures.write_samples(tmp_path, 100, []) == []
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_cannot_be_written_does_not_end_the_training(tmp_path, caplog):
    (tmp_path / 'pictures').write_text('not a folder')
    records = pictures.write_samples(tmp_path, 100, [action_sample()])
    assert records[0]['picture'] == ''
    assert 'was not written' in caplog.text
