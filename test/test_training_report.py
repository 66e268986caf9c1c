"""The page about a training: from any log, finished or not, without scripts or links."""

import json
import re

import numpy as np
from PIL import Image
import pytest
from report_pages import Links

from vla_policy_node.training import report
from vla_policy_node.training.charts import Line
from vla_policy_node.training.charts import line_chart
from vla_policy_node.training.history import History
from vla_policy_node.training.history import smoothed

FINETUNE = [
    {'kind': 'mixture', 'sources': [
        {'name': 'drawer', 'records': 41200, 'share': 0.75, 'seen_per_record': 0.194,
         'episodes': 350},
        {'name': 'chat', 'records': 220, 'share': 0.25, 'seen_per_record': 7.27}]},
    *({'kind': 'train', 'step': step, 'of': 400, 'minutes': step / 100, 'samples_per_s': 8.0,
       'waiting_share': 0.04, 'lr': 1e-4, 'skipped': 3,
       'loss': {'all': 300 / step, 'drawer': 3.0, 'chat': None}} for step in range(10, 210, 10)),
    {'kind': 'validation', 'step': 200, 'loss': {'all': 1.5, 'drawer': 1.25},
     'token_accuracy': {'x': 0.5, 'gripper': 0.875, 'all': 0.6875},
     'majority_accuracy': {'x': 0.125, 'all': 0.25}, 'l1_normalised': {'x': 0.0625},
     'answers': {'exact_match': 0.75, 'count': 64},
     'samples': [
         {'picture': 'pictures/a.png', 'instruction': 'open <b>it</b>', 'wanted': 'x +12 mm',
          'predicted': 'x +11 mm'},
         {'picture': 'pictures/gone.png', 'question': 'Which colour?', 'wanted': 'red',
          'predicted': 'Red'},
         {'picture': '', 'question': 'How many?', 'wanted': 'two', 'predicted': 'four'}]},
    {'kind': 'event', 'name': 'corrupt_record', 'detail': 'drawer: episode 7', 'step': 150},
    {'kind': 'event', 'name': 'checkpoint', 'detail': 'state written', 'step': 200},
]
CURRICULUM = [
    {'stage': 'align', 'step': 100, 'of': 100, 'minutes': 1.0, 'loss': {'alignment': 0.5}},
    {'stage': 'own-states-1', 'frames': 5120, 'minutes': 2.0,
     'per_verb': {'touch': [12, 32], 'pick': [0, 32]}, 'successes': 12, 'episodes': 64,
     'nearest_block_is_target': 60},
    {'stage': 'mix-1', 'step': 50, 'of': 120, 'minutes': 3.0,
     'loss': {'robot': 2.5, 'alignment': 0.25},
     'held_out': {'pointing_px': 4.5, 'pointing_mean_px': 6.0, 'action_error': 0.085}},
]
CLOSED_LOOP = {'stage': 'closed loop', 'per_verb': {'touch': [24, 24], 'pick': [15, 24]},
               'successes': 39, 'episodes': 48, 'nearest_block_is_target': 47}
MEASUREMENTS = {'title': 'What the tokens depend on', 'tables': [
    {'title': 'Shuffled pictures', 'columns': ['condition', 'accuracy'],
     'rows': [['as trained', 0.71234], ['another picture', None]], 'note': '512 samples.'}]}


def folder_with(tmp_path, records, **files):
    lines = ''.join(json.dumps(record) + '\n' for record in records)
    (tmp_path / 'log.jsonl').write_text(lines)
    for name, content in files.items():
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    return tmp_path


def text_of(folder) -> str:
    page = report.write_report(folder).read_text()
    body = re.sub(r'<style>.*?</style>|<title>[^<]*</title>', ' ', page, flags=re.DOTALL)
    return ' '.join(re.sub(r'<[^>]+>', ' ', body).split())


def test_the_page_loads_nothing_from_outside(tmp_path):
    (tmp_path / 'pictures').mkdir()
    Image.fromarray(np.zeros((32, 62, 3), np.uint8)).save(tmp_path / 'pictures' / 'a.png')
    page = report.write_report(folder_with(tmp_path, FINETUNE)).read_text()
    links = Links()
    links.feed(page)
    assert len(links.loaded) == 1
    assert links.loaded[0].startswith('data:image/jpeg;base64,')
    assert 'script' not in links.tags
    assert 'url(' not in page and '@import' not in page


def test_a_fine_tuning_shows_mixture_losses_accuracy_and_events(tmp_path):
    text = text_of(folder_with(tmp_path, FINETUNE))
    for expected in (
            'always the most frequent one: 25 %', 'not finished: step 200 of 400',
            'chat 25 % 220 7.27', 'x 50 % 12 % 0.0625', 'gripper 88 %', 'Over 64 questions, 75 %',
            'Which colour? red Red right', 'How many? two four wrong',
            'waiting for data, median 4', 'records skipped 3',
            'lowest validation loss, at step 200 1.5',
            'step 150 corrupt record: drawer: episode 7'):
        assert expected in text
    assert 'state written' not in text


def test_an_instruction_cannot_become_markup(tmp_path):
    page = report.write_report(folder_with(tmp_path, FINETUNE)).read_text()
    assert '<b>it' not in page and '&lt;b&gt;it' in page


def test_a_curriculum_shows_its_stages_and_driving_with_intervals(tmp_path):
    text = text_of(folder_with(tmp_path, [*CURRICULUM, CLOSED_LOOP]))
    for expected in (
            '39 of 48 episodes succeeded in the closed loop, 81 % (95 % interval 68–90 %)',
            'finished steps 150',
            'pick 15/24 43–79 %', 'own-states-1 100 12/32 23–55 % 0/32 0–11 %', '60/64',
            'mix-1 50 of 120', 'pointing error, median, px'):
        assert expected in text


def test_frames_of_own_states_are_named_as_such_while_the_run_goes_on(tmp_path):
    text = text_of(folder_with(tmp_path, CURRICULUM))
    assert '12 of 64 episodes succeeded in the closed loop, own-states-1, 19 %' in text
    assert 'not finished: mix-1, step 50 of 120' in text


def test_a_log_that_has_just_begun_makes_a_page(tmp_path):
    assert 'no step yet' in text_of(folder_with(tmp_path, []))
    assert 'not finished: step 10 of 400' in text_of(folder_with(tmp_path, FINETUNE[:2]))


def test_provenance_and_measurements_are_shown_where_they_are(tmp_path):
    provenance = {'name': 'drawer', 'base': 'models/tabletop', 'hardware': 'a processor',
                  'versions': {'torch': '2.13.0'}, 'measured': {'long': [1, 2]}}
    text = text_of(folder_with(
        tmp_path, FINETUNE, provenance=provenance, measurements=MEASUREMENTS))
    for expected in ('Training of drawer from models/tabletop', 'hardware a processor',
                     'torch 2.13.0', 'as trained 0.712', 'another picture', '512 samples.'):
        assert expected in text


def test_a_row_that_does_not_fit_its_columns_is_named(tmp_path):
    odd = {'title': 'x', 'tables': [{'title': 'odd', 'columns': ['a'], 'rows': [[1, 2]]}]}
    folder = folder_with(tmp_path, FINETUNE, measurements=odd)
    with pytest.raises(report.ReportError, match="expected 1 cells in every row of 'odd'"):
        report.write_report(folder)


def test_the_command_prints_the_page_or_one_line_about_what_is_missing(tmp_path, capsys):
    assert report.main([str(tmp_path / 'nowhere')]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1 and 'found no file; give the folder of a run' in error
    assert report.main([str(folder_with(tmp_path, FINETUNE))]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / 'report.html')


def test_half_a_picture_is_left_out(tmp_path):
    (tmp_path / 'pictures').mkdir()
    (tmp_path / 'pictures' / 'a.png').write_bytes(b'\x89PNG half')
    page = report.write_report(folder_with(tmp_path, FINETUNE)).read_text()
    assert 'data:image' not in page


def test_curves_go_on_where_the_stage_before_ended():
    history = History(CURRICULUM)
    assert history.curve('train', 'loss', 'alignment') == [[(100, 0.5)], [(150, 0.25)]]
    assert history.curve(None, 'held_out', 'pointing_px') == [[(150, 4.5)]]
    assert [(stage.name, stage.first, stage.last) for stage in history.stages] == [
        ('align', 1, 100), ('mix-1', 101, 150)]


def test_smoothing_takes_the_mean_around_a_point_and_leaves_short_stages():
    long = [(step, float(step % 2)) for step in range(30)]
    mean, short = smoothed([long, [(30, 4.0), (31, 5.0)]])
    assert [value for _, value in mean[:3]] == pytest.approx([0.5, 1 / 3, 2 / 3])
    assert short == [(30, 4.0), (31, 5.0)]


def test_a_chart_without_values_is_nothing():
    assert line_chart([Line(name='a', style='train', curve=[])], label='a', steps=10) == ''


def test_a_chart_names_its_values_and_the_beginning_of_stages():
    line = Line(name='train', style='train', curve=[[(0, 1.0), (100, 3.0)]])
    drawing = line_chart([line], label='loss', steps=100, marks=[(50, 'mix <1>')])
    assert '<title>step 100\ntrain 3</title>' in drawing
    assert '>mix &lt;1&gt;</text>' in drawing


def test_values_that_differ_much_are_drawn_on_a_logarithmic_axis():
    line = Line(name='loss', style='train', curve=[[(0, 0.1), (50, 1.0), (100, 10.0)]])
    drawing = line_chart([line], label='loss', steps=100)
    points = re.search(r'polyline points="([^"]+)"', drawing).group(1).split()
    top, middle, bottom = (float(point.split(',')[1]) for point in reversed(points))
    assert middle == pytest.approx((top + bottom) / 2, abs=0.2)
