"""What only live mode knows, as people read it: numbers of summary.json as text."""

from collections.abc import Mapping

from vla_policy_node.evaluation.replay.live_figures import RECORDING_CLOCK
from vla_policy_node.evaluation.replay.live_figures import WALL_CLOCK
from vla_policy_node.evaluation.replay.report_rows import NOTHING
from vla_policy_node.evaluation.replay.report_rows import number

# Name of a figure in ms -> what it is.
TIMES = {
    'stamp_to_chunk_ms': 'from the camera’s stamp to the answer',
    'frame_age_ms': 'age of a frame when its inference began',
    'action_age_ms': 'age of an action’s frame when the next answer came',
    'publish_delay_ms': 'published late by',
}
_STAMPS = {WALL_CLOCK: 'stamped anew', RECORDING_CLOCK: 'recorded stamps'}
PERCENTILES = ('p50', 'p95', 'p99')


def lives(summary: Mapping) -> dict[str, Mapping]:
    """Return name of a policy -> its live figures; empty in offline mode."""
    if summary['live'] is None:
        return {}
    found = {summary['name']: summary['live']}
    if 'against_live' in summary['meta']:
        found[summary['against']['against']] = summary['meta']['against_live']
    return found


def live_section(summary: Mapping) -> dict | None:
    """
    Return what the page shows, None in offline mode.

    'names' of the policies; 'counts' and 'times': (label, a cell or three for each);
    'percentiles': heads of the three; 'is_simulated': whether stamps were those of the recording.
    """
    found = lives(summary)
    if not found:
        return None
    counts = [{**_answers(live), **_frames(live)} for live in found.values()]
    return {
        'names': list(found),
        'counts': [(label, [texts[label] for texts in counts]) for label in counts[0]],
        'is_simulated': summary['live']['clock'] == RECORDING_CLOCK,
        'percentiles': PERCENTILES,
        'times': [(label, [percentiles(live[name]) for live in found.values()])
                  for name, label in TIMES.items()],
    }


def live_lines(summary: Mapping) -> list[str]:
    """Return the same as lines for a terminal."""
    lines = []
    for name, live in lives(summary).items():
        lines.append(f'{name}, live: {_joined(_answers(live))}')
        lines.append(_joined(_frames(live)))
        lines += [f'{label} [ms]: ' + ', '.join(
            f'{part} {text}' for part, text in zip(PERCENTILES, percentiles(live[name]),
                                                   strict=True))
            for name, label in TIMES.items() if live[name]['count']]
    return lines


def percentiles(spread: Mapping) -> list[str]:
    """Return p50, p95 and p99 as text."""
    return [number(spread[name]) for name in PERCENTILES]


def _joined(texts: Mapping[str, str]) -> str:
    return ', '.join(f'{label} {text}' for label, text in texts.items())


def _answers(live: Mapping) -> dict[str, str]:
    return {
        'played': _played(live),
        'answers': number(live['chunks']),
        'answers per second': number(live['rate_hz']),
        'answers beside no recorded action': number(live['chunks_without_recorded_action']),
        'failed decodings': number(live['decode_failures']),
    }


def _frames(live: Mapping) -> dict[str, str]:
    return {
        'frames published': number(live['frames_published']),
        'frames lost on the way to the node': _with_share(
            live['frames_dropped'], live['frames_published']),
        'frames replaced by a newer one unseen': number(live['frames_superseded']),
        'frames rejected': number(live['frames_rejected']),
        'times the newest frame was too old': number(live['stale_spells']),
    }


def _played(live: Mapping) -> str:
    rate = live['playback_rate']
    speed = NOTHING if rate is None else f'{number(rate)} ×'
    return f'{speed}, {_STAMPS[live["clock"]]}'


def _with_share(part: int | None, whole: int | None) -> str:
    if part is None or not whole:
        return number(part)
    return f'{number(part)} ({100 * part / whole:.1f} %)'
