"""One self-contained HTML page about a demo run: no script, no external resource."""

import base64
from collections.abc import Mapping
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment
from jinja2 import StrictUndefined

from vla_policy_node.evaluation import charts
from vla_policy_node.evaluation.episodes import EpisodeResult
from vla_policy_node.evaluation.episodes import Still
from vla_policy_node.evaluation.plans import read_plan
from vla_policy_node.evaluation.summary import FLOOR_NAMES
from vla_policy_node.evaluation.table import number
from vla_policy_node.statistics import percent_text

# What the page shows: film strips of hundreds of episodes would make it many megabytes.
EPISODES_WITH_FILM = 48
STILLS_PER_EPISODE = 6

_MODEL_PARTS = ('preprocess', 'vision', 'prefill', 'decode')


def render(
    summary: Mapping, episodes: Sequence[EpisodeResult], latencies_ms: Sequence[float],
) -> str:
    """
    Return the page.

    summary: as in summary.json. episodes: with stills and tool paths, in order.
    latencies_ms: camera stamp to command, one per chunk.
    """
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters['number'] = number
    environment.filters['percent'] = percent_text
    environment.filters['bound'] = _bound
    plans = [read_plan(still.plan) for episode in episodes for still in episode.stills]
    shown = pick_episodes(episodes)
    marks = [(name, value) for name, value in summary['latency_ms'].items() if value is not None]
    return environment.from_string(_resource('report.html.j2')).render(
        style=_resource('report.css', 'vla_policy_node') + _resource('report.css'),
        summary=summary,
        bars=_bars(summary),
        floor_names={name: text for name, text in FLOOR_NAMES.items()
                     if name in summary['floors']},
        episodes=[_episode(episode) for episode in shown],
        left_out=len(episodes) - len(shown),
        says_where=any(plan.point for plan in plans),
        says_what=any(plan.caption for plan in plans),
        histogram=charts.histogram(latencies_ms, marks, 'ms'),
        latency_samples=len(latencies_ms),
        parts=_latency_parts(summary),
        configuration=_configuration(summary))


def pick_episodes(
    episodes: Sequence[EpisodeResult], count: int = EPISODES_WITH_FILM,
) -> list[EpisodeResult]:
    """Return at most `count` episodes in their order, those that failed before others."""
    by_interest = sorted(range(len(episodes)), key=lambda place: episodes[place].succeeded)
    return [episodes[place] for place in sorted(by_interest[:count])]


def pick_stills(stills: Sequence[Still], count: int = STILLS_PER_EPISODE) -> list[Still]:
    """Return at most `count` stills, the first and the last among them, evenly spread."""
    if len(stills) <= count:
        return list(stills)
    return [stills[round(index * (len(stills) - 1) / (count - 1))] for index in range(count)]


def _resource(name: str, package: str = __package__) -> str:
    return resources.files(package).joinpath(name).read_text(encoding='utf-8')


def _bound(share: float) -> str:
    return f'{100 * share:.0f}'


def _bars(summary: Mapping) -> list[dict]:
    """Return the rows of the chart of overall success: the policy, then the floors."""
    policy = {'name': 'policy, live', 'kind': 'policy', 'success': summary['successes'],
              'episodes': summary['episodes'], 'rate': summary['success_rate'],
              'interval_95': summary['success_interval_95']}
    floors = [{'name': text, 'kind': 'floor', **summary['floors'][name]}
              for name, text in FLOOR_NAMES.items() if name in summary['floors']]
    return [policy, *floors]


def _latency_parts(summary: Mapping) -> list[dict]:
    """Return the medians that make up the latency: the model's parts, then all the rest."""
    model = summary['model_ms']
    total = summary['latency_ms']['p50']
    parts = [{'name': name, 'ms': model[name]['p50']} for name in _MODEL_PARTS
             if model.get(name, {}).get('p50') is not None]
    if total is None or not parts:
        return []
    rest = max(0.0, total - sum(part['ms'] for part in parts))
    # Waiting for the worker, transport between processes, and the controller.
    parts.append({'name': 'waiting, transport, controller', 'ms': rest})
    whole = sum(part['ms'] for part in parts)
    return [{**part, 'share': 100 * part['ms'] / whole} for part in parts]


def _episode(episode: EpisodeResult) -> dict:
    return {
        'result': episode,
        'path': charts.tool_path(episode.tool_path),
        'stills': [
            {'uri': _data_uri(still.jpeg), 'time_s': still.time_s, 'plan': read_plan(still.plan)}
            for still in pick_stills(episode.stills)],
    }


def _data_uri(jpeg: bytes) -> str:
    return 'data:image/jpeg;base64,' + base64.b64encode(jpeg).decode('ascii')


def _configuration(summary: Mapping) -> list[tuple[str, str]]:
    """Return (name, value) rows of what was run and where."""
    machine = summary['machine']
    rows = [
        ('checkpoint', summary['checkpoint']),
        ('quantization',
         f"{summary['quantization']}, {summary['linear4bit_layers']} linear layers in 4 bit"),
        ('episodes', f"{summary['episodes']} of at most {summary['max_duration_s']:g} s"),
        ('tasks', summary['task_selection'] or 'all verbs in turn'),
        ('seed', str(summary['seed'])),
        ('processor', f"{machine['processor']}, {machine['cores']} cores,"
                      f" {machine['memory_gib']} GiB"),
        ('system', machine['system']),
        ('Python', machine['python']),
    ]
    return rows + [(name, version) for name, version in summary['versions'].items()]
