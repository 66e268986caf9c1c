"""The record of a run, its page and its table, from literal numbers."""

import copy
from dataclasses import replace
import io
import json
import re

import pytest
from report_pages import Links
from rich.console import Console

from vla_policy_node.evaluation import charts
from vla_policy_node.evaluation import report
from vla_policy_node.evaluation.episodes import EpisodePlan
from vla_policy_node.evaluation.episodes import EpisodeResult
from vla_policy_node.evaluation.episodes import Still
from vla_policy_node.evaluation.summary import FLOOR_NAMES
from vla_policy_node.evaluation.summary import floor_summary
from vla_policy_node.evaluation.summary import success_summary
from vla_policy_node.evaluation.summary import write_json
from vla_policy_node.evaluation.table import terminal_summary
from vla_policy_node.statistics import nice_step

PLANS = (
    EpisodePlan(seed=0, task='touch red'),
    EpisodePlan(seed=1, task='pick blue'),
)
RESULTS = (
    EpisodeResult(
        plan=PLANS[0], instruction='touch the red block', succeeded=True,
        reason='touched the red block', nearest_block='red', elapsed_s=4.25, chunks=21,
        ending='success', tool_path=((0.0, 0.5, 0.0, 0.2), (1.0, 0.45, 0.1, 0.05)),
        stills=(Still(time_s=0.5, jpeg=b'\xff\xd8jpeg', plan='at 0.25 0.50'),)),
    EpisodeResult(
        plan=PLANS[1], instruction='pick up the <blue> block', succeeded=False,
        reason='not lifted', nearest_block='green', elapsed_s=15.0, chunks=75, ending='timeout'),
)
SUMMARY = {
    'format_version': 1,
    **success_summary(RESULTS),
    'floors': {
        'expert': floor_summary(PLANS, [True, True]),
        'no_op': floor_summary(PLANS, [False, False]),
        'random': floor_summary(PLANS, [False, False]),
        'wrong_instruction': floor_summary(PLANS, [True, False]),
    },
    'policy_hz': 5.25,
    'latency_ms': {'p50': 80.0, 'p95': 120.0, 'p99': 131.0},
    'loop_jitter_ms': {'p99': 0.64, 'worst': 5.21},
    'model_ms': {name: {'p50': 10.0} for name in ('preprocess', 'vision', 'prefill', 'decode')},
    'frames': {'published': 600, 'received': 599, 'dropped': 1, 'superseded': 480, 'rejected': 0},
    'chunks': {'published': 96, 'accepted': 95, 'rejected': 1, 'decode_failures': 0,
               'last_rejection': 'too old'},
    'quantization': 'nf4',
    'linear4bit_layers': 28,
    'checkpoint': 'models/tabletop',
    'checkpoint_name': 'tabletop',
    'seed': 0,
    'task_selection': '',
    'max_duration_s': 15.0,
    'versions': {'torch': '2.13.0'},
    'machine': {'processor': 'a processor', 'cores': 2, 'memory_gib': 8.0, 'system': 'Linux',
                'python': '3.11.2'},
}
UNMEASURED = {
    'policy_hz': None,
    'latency_ms': {'p50': None, 'p95': None, 'p99': None},
    'loop_jitter_ms': {'p99': None, 'worst': None},
    'model_ms': {},
    'frames': dict.fromkeys(('published', 'received', 'dropped', 'superseded', 'rejected')),
    'floors': {},
}


def _text(renderable) -> str:
    console = Console(width=80, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue()


def test_the_page_loads_nothing_from_outside():
    page = report.render(SUMMARY, RESULTS, [70.0, 80.0, 131.0])
    links = Links()
    links.feed(page)
    assert links.loaded
    assert all(value.startswith('data:image/jpeg;base64,') for value in links.loaded)
    assert 'script' not in links.tags
    assert 'url(' not in page and '@import' not in page


def test_the_page_says_what_was_measured():
    page = report.render(SUMMARY, RESULTS, [70.0, 80.0, 131.0])
    text = ' '.join(re.sub(r'<[^>]+>', ' ', page).split())
    for expected in ('1 of 2', '5.2 Hz', 'p50 80', '99th percentile 0.6 ms', 'worst 5.2 ms',
                     'p99 131', 'wrong instruction', '75 chunks', 'frames superseded 480',
                     'nf4, 28 linear layers in 4 bit'):
        assert expected in text


def test_an_instruction_cannot_become_markup():
    assert '<blue>' not in report.render(SUMMARY, RESULTS, [])


def test_a_run_without_measurements_says_so_instead_of_zero():
    page = report.render({**SUMMARY, **UNMEASURED}, RESULTS, [])
    assert 'Not measured' in page
    assert '0 Hz' not in page


def test_the_plan_point_is_drawn_on_its_frame():
    page = report.render(SUMMARY, RESULTS, [])
    assert 'translate(25.0 37.5)' in page
    assert '>target</text>' in page
    assert 'The cross hair is where' in page and '<q>' not in page


def test_a_plan_in_words_is_a_caption_that_cannot_become_markup():
    still = Still(time_s=0.5, jpeg=b'', plan='pick up <b>rxbar</b> chocolate')
    page = report.render(SUMMARY, [replace(RESULTS[0], stills=(still,))], [])
    assert '<q>pick up &lt;b&gt;rxbar&lt;/b&gt; chocolate</q>' in page
    assert '<svg class="overlay"' not in page and 'cross hair' not in page
    assert 'the words of the plan' in page


def test_an_episode_without_a_plan_says_nothing_about_one():
    page = report.render(SUMMARY, [replace(RESULTS[0], stills=(Still(time_s=0, jpeg=b''),))], [])
    assert 'cross hair' not in page and 'the words of the plan' not in page


def test_stills_are_spread_from_the_first_to_the_last():
    stills = [Still(time_s=float(index), jpeg=b'') for index in range(31)]
    assert [still.time_s for still in report.pick_stills(stills, 6)] == [0, 6, 12, 18, 24, 30]
    assert report.pick_stills(stills[:2], 6) == stills[:2]


def test_of_many_episodes_those_that_failed_are_shown():
    episodes = [replace(RESULTS[0], succeeded=place % 3 > 0) for place in range(9)]
    shown = report.pick_episodes(episodes, 4)
    assert [episode.succeeded for episode in shown] == [False, True, False, False]
    assert len(report.pick_episodes(episodes)) == 9


def test_a_histogram_holds_every_value():
    drawing = charts.histogram([1.0, 2.0, 2.0, 40.0], [('p50', 2.0)], 'ms', bins=4)
    heights = [float(text) for text in re.findall(r'class="bar"[^>]*height="([\d.]+)"', drawing)]
    assert heights == [150.0, 0.0, 0.0, 50.0]


@pytest.mark.parametrize(('span', 'step'), [(200.0, 50.0), (0.9, 0.2), (31.0, 10.0)])
def test_axis_steps_are_round_numbers(span, step):
    assert nice_step(span, 6) == pytest.approx(step)


def test_the_terminal_table_has_intervals_beside_floors():
    text = _text(terminal_summary(SUMMARY))
    assert re.search(r'touch +1/1 +100 % \[21, 100\] +1/1 +0/1 +0/1 +1/1', text)
    assert re.search(r'all +1/2 +50 % \[9, 91\] +2/2', text)
    assert 'p50 80 ms' in text
    assert 'p99 0.6 ms  worst 5.2 ms' in text
    assert '600 published, 599 received' in text
    assert 'too old' not in text
    assert max(map(len, text.splitlines())) <= 80


def test_hundreds_of_episodes_fit_into_80_columns():
    outcomes = [True] * 399 + [False]
    plans = [EpisodePlan(seed=seed, task='push right red') for seed in range(400)]
    results = [replace(RESULTS[0], plan=plan, succeeded=succeeded)
               for plan, succeeded in zip(plans, outcomes, strict=True)]
    floors = {name: floor_summary(plans, outcomes) for name in FLOOR_NAMES}
    text = _text(terminal_summary({**SUMMARY, **success_summary(results), 'floors': floors}))
    assert re.search(r'all +399/400 +99.8 % \[99, 100\]( +399/400){5}', text)
    assert '…' not in text


def test_many_rejected_chunks_are_explained():
    chunks = {**SUMMARY['chunks'], 'rejected': 40}
    assert '40 chunks were rejected by the controller, the last one: too old' in _text(
        terminal_summary({**SUMMARY, 'chunks': chunks}))


def test_the_table_of_a_run_without_measurements_says_so():
    assert 'not measured' in _text(terminal_summary({**SUMMARY, **UNMEASURED}))


def test_the_summary_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'out' / 'summary.json'
    write_json(path, SUMMARY)
    assert json.loads(path.read_text())['per_task']['touch']['success'] == 1
    broken = copy.deepcopy(SUMMARY)
    broken['policy_hz'] = float('nan')
    with pytest.raises(ValueError, match='not JSON compliant'):
        write_json(path, broken)
    assert json.loads(path.read_text())['policy_hz'] == 5.25
    assert [entry.name for entry in path.parent.iterdir()] == ['summary.json']
