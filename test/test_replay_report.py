"""The page of a replay: complete by itself, honest about what is missing, and small."""

from dataclasses import replace
from html.parser import HTMLParser
import re

import numpy as np
import pytest
from replay_frames import replayed
from replay_frames import taken
from replay_frames import to_bins
from replay_frames import wandering

from vla_policy_node.evaluation.replay import report_rows
from vla_policy_node.evaluation.replay.film import worst_frame
from vla_policy_node.evaluation.replay.film import worst_frames
from vla_policy_node.evaluation.replay.report import EPISODES_WITH_PLOTS
from vla_policy_node.evaluation.replay.report import render
from vla_policy_node.evaluation.replay.report_live import live_lines
from vla_policy_node.evaluation.replay.report_rows import Measure
from vla_policy_node.evaluation.replay.settings import MetricSettings
from vla_policy_node.evaluation.replay.summary import live_spreads
from vla_policy_node.evaluation.replay.summary import summarise

PICTURE = np.full((48, 64, 3), 128, np.uint8)
META = {'checkpoint': 'models/tabletop', 'versions': {'torch': '2.13.0'},
        'episodes': [{'number': 0, 'bag': 'bag_a', 'instruction': 'pick up the <red> block'}]}
LIVE = {
    'ended_early': None, 'clock': 'recording', 'playback_rate': 2.0, 'rate_hz': 4.9,
    'frames_published': 120, 'frames_received': 117, 'frames_dropped': 3, 'frames_superseded': 60,
    'frames_rejected': 0, 'chunks': 12, 'decode_failures': 0, 'stale_spells': 1,
    'chunks_without_recorded_action': 2, 'frame_age_ms': np.array([10.0, 20.0, 30.0]),
    **dict.fromkeys(('stamp_to_chunk_ms', 'action_age_ms', 'publish_delay_ms'), np.empty(0))}


def summary_of(frames, against=None, **changes):
    given = {'skipped': {}, 'meta': META, 'to_bins': to_bins,
             'settings': MetricSettings(bootstrap_samples=50), **changes}
    return summarise(frames, against=against, **given)


def page_of(frames, against=None, **changes):
    worst = [worst_frame(frames, row, PICTURE) for row in worst_frames(frames, 3)]
    return render(summary_of(frames, against, **changes), frames, worst, against=against)


def text_of(page):
    """Return what a reader sees, without the numbers under the pointer."""
    page = re.sub(r'<style>.*?</style>|<title>.*?</title>', '', page, flags=re.DOTALL)
    return ' '.join(re.sub(r'<[^>]+>', ' ', page).split())


class _Tags(HTMLParser):
    """Collects tags, everything that a browser would load, and whether tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.loaded += [value for name, value in attrs if name in ('src', 'href', 'data')]
        if tag not in ('meta', 'img', 'br'):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize('frames', [
    wandering(horizon=2), wandering(episodes=1), taken(wandering(), []),
    replayed([[np.nan] * 7] * 3, [[0.0] * 7] * 3),
], ids=['chunks', 'one episode', 'no frame', 'nothing comparable'])
def test_the_page_is_well_formed_and_loads_nothing_from_outside(frames):
    page = page_of(frames, against=frames)
    tags = _Tags()
    tags.feed(page)
    assert tags.open == []
    assert all(value.startswith('data:image/jpeg;base64,') for value in tags.loaded)
    assert 'script' not in tags.tags
    assert 'url(' not in page and '@import' not in page
    assert 'nan' not in text_of(page).split() and '>None<' not in page


def test_the_headline_has_its_interval_and_the_best_known_baseline():
    frames = wandering(error=0.002)
    summary = summary_of(frames)
    accuracy = summary['metrics']['policy']['token_accuracy']['overall']
    low, high = accuracy['interval_95']
    previous = summary['metrics']['previous_action']['token_accuracy']['overall']['value']
    text = text_of(page_of(frames))
    assert (f'{100 * accuracy["value"]:.1f} % of the action’s tokens are the recorded ones'
            f' (95 % interval {100 * low:.1f} to {100 * high:.1f} %)') in text
    assert f'repeating the previous recorded action: {100 * previous:.1f} %' in text


def test_the_baselines_stand_in_the_same_table_and_the_best_is_marked():
    rows = report_rows.rivals_table(summary_of(wandering(error=0.01)))
    assert rows['names'] == ['policy', 'zero action', 'previous action', 'dataset mean']
    error = next(row for row in rows['rows'] if row['label'] == 'normalised RMSE')
    assert [cell['best'] for cell in error['cells']] == [True, False, False, False]
    late = next(row for row in rows['rows'] if row['label'] == 'gripper events, missed')
    assert late['cells'][3]['text'] not in ('0', '–')


def test_one_episode_has_no_intervals_and_says_why():
    text = text_of(page_of(wandering(episodes=1)))
    assert 'No intervals: with one episode' in text
    assert '95 % interval' not in text


def test_nothing_to_evaluate_is_the_first_thing_said():
    frames = replayed([[np.nan] * 7] * 3, [[0.0] * 7] * 3)
    text = text_of(page_of(frames, skipped={'no image': 2}))
    assert 'Nothing could be evaluated' in text
    assert 'no image 2' in text and 'frames without a usable recorded action 3' in text
    assert 'Beside the baselines' not in text


def test_what_was_left_out_is_counted():
    frames = wandering()
    predicted = frames.predicted.copy()
    predicted[:1234 % 30] = np.nan
    text = text_of(page_of(replace(frames, predicted=predicted),
                           skipped={'image not decodable': 1234, 'never': 0}))
    assert 'image not decodable 1,234' in text
    assert 'frames for which the policy gave no action 4' in text
    assert 'never' not in text


def test_a_comparison_names_who_is_better_only_where_it_is_clear():
    first = replace(wandering(error=0.1), name='nf4')
    second = replace(wandering(error=0.01, seed=1), name='bf16')
    rows = {row['label']: row for row in report_rows.differences_table(
        summary_of(first, against=second))}
    assert rows['translation, RMSE [mm]']['verdict'] == 'better'
    assert rows['tokens right [%]']['verdict'] == 'better'
    assert rows['translation, RMSE [mm]']['difference'].startswith('−')
    alike = {row['label']: row for row in report_rows.differences_table(
        summary_of(first, against=wandering(error=0.1, seed=2)))}
    assert alike['latency, mean [ms]']['verdict'] == ''
    assert alike['latency, mean [ms]']['difference'] not in ('+0.0', '−0.0')
    same = report_rows.differences_table(summary_of(first, against=first))
    assert {row['verdict'] for row in same} == {''}
    text = text_of(page_of(first, against=second))
    assert 'Against bf16' in text and 'equal tokens' in text


def test_without_a_second_policy_there_is_no_comparison():
    page = page_of(wandering())
    assert 'Against' not in text_of(page) and 'class="against"' not in page


def test_chunks_have_a_horizon_curve_and_single_actions_have_none():
    assert 'Along the chunk' in text_of(page_of(wandering(horizon=3)))
    assert 'Along the chunk' not in text_of(page_of(wandering()))


def test_instructions_cannot_become_markup():
    page = page_of(wandering())
    assert '“pick up the &lt;red&gt; block”' in page and '<red>' not in page
    assert 'bag_a' in page


def test_the_worst_frames_show_both_motions_as_numbers_too():
    recorded = [[0.012, 0, 0, 0, 0, 0, 1.0]]
    predicted = [[-0.004, 0, 0, np.pi / 18, 0, 0, 0.0]]
    text = text_of(page_of(replayed(recorded, predicted)))
    assert 'episode 0, 0.0 s · closed instead of open' in text
    assert 'recorded 12.0 0.0 0.0 0.0 0.0 0.0 1.00' in text
    assert 'predicted −4.0 0.0 0.0 10.0 0.0 0.0 0.00' in text
    assert 'not projected into the picture' in text


def test_of_many_episodes_those_with_the_largest_error_are_drawn():
    count = EPISODES_WITH_PLOTS + 4
    error = np.linspace(0.0, 0.5, count)[:, None] * np.ones(7)
    frames = replayed(np.zeros((count, 7)), error, episode=np.arange(count))
    page = page_of(frames)
    assert page.count('<details class="episode"') == EPISODES_WITH_PLOTS
    assert f'{EPISODES_WITH_PLOTS} of {count} episodes' in text_of(page)
    assert 'actions of episode 19"' in page and 'actions of episode 3"' not in page


def test_live_data_and_configuration_are_shown():
    text = text_of(page_of(replace(wandering(), live=LIVE)))
    assert 'played 2 ×, recorded stamps' in text
    assert 'frames lost on the way to the node 3 (2.5 %)' in text
    assert 'answers per second 4.9' in text and 'inferences per second' not in text
    assert 'age of a frame when its inference began 20 29 29.8' in text
    assert 'versions, torch 2.13.0' in text


def test_both_policies_of_a_live_comparison_are_shown():
    slower = {**LIVE, 'rate_hz': 1.25}
    frames = replace(wandering(), live=LIVE)
    text = text_of(page_of(frames, against=replace(frames, name='other', live=slower),
                           meta={'against_live': live_spreads(slower)}))
    assert 'answers per second 4.9 1.25' in text
    assert 'against live' not in text


def test_live_figures_for_the_terminal_are_lines():
    summary = summary_of(replace(wandering(), live=LIVE))
    answers, frames, *times = live_lines(summary)
    assert answers.startswith(f'{summary["name"]}, live: played 2 ×, ')
    assert 'frames lost on the way to the node 3 (2.5 %)' in frames
    # Nothing is said about times that were not measured.
    assert times == ['age of a frame when its inference began [ms]: p50 20, p95 29, p99 29.8']
    assert live_lines(summary_of(wandering())) == []


def test_warnings_come_first_and_empty_entries_not_at_all():
    page = page_of(wandering(), meta={'warnings': ['frames differ'], 'bags': [], 'period_s': 0.2})
    assert '<p class="warning">frames differ</p>' in page
    text = text_of(page)
    assert 'warnings' not in text and 'bags' not in text and 'period [s] 0.2' in text


def test_a_policy_without_bins_leads_with_its_error():
    frames = wandering()
    frames = replace(frames, predicted_bins=np.full_like(frames.predicted_bins, -1))
    text = text_of(page_of(frames))
    assert 'of the action’s range is the RMS error' in text
    assert 'Expected calibration error' not in text


@pytest.mark.parametrize(('value', 'sign', 'text'), [
    (None, False, '–'), (-0.0123, False, '−12.3'), (0.5, True, '+500.0'), (0.0, False, '0.0')])
def test_a_measure_is_written_in_the_unit_of_the_page(value, sign, text):
    assert Measure(label='', path=(), factor=1e3, digits=1).text(value, sign) == text


def test_ten_thousand_frames_stay_a_small_page():
    rng = np.random.default_rng(0)
    recorded = rng.normal(0.0, 0.1, (10_000, 7))
    frames = replayed(recorded, recorded + rng.normal(0.0, 0.02, recorded.shape),
                      episode=np.repeat(np.arange(2), 5_000))
    assert len(page_of(frames)) < 500_000
