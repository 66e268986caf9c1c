"""One replay from beginning to end: checkpoints and bags in, a folder with results out."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn
from rich.progress import MofNCompleteColumn
from rich.progress import Progress
from rich.progress import ProgressColumn
from rich.progress import Task
from rich.progress import TextColumn
from rich.progress import TimeRemainingColumn
from rich.text import Text

from vla_policy_node.evaluation import summary as run_summary
from vla_policy_node.evaluation.replay import film
from vla_policy_node.evaluation.replay import rerun_file
from vla_policy_node.evaluation.replay.bins import ActionBins
from vla_policy_node.evaluation.replay.config import ReplayConfig
from vla_policy_node.evaluation.replay.live_figures import INTERRUPTED
from vla_policy_node.evaluation.replay.offline import run_offline
from vla_policy_node.evaluation.replay.outputs import Outputs
from vla_policy_node.evaluation.replay.predictions_bag import write_predictions
from vla_policy_node.evaluation.replay.report import render
from vla_policy_node.evaluation.replay.rows import ReplayRun
from vla_policy_node.evaluation.replay.summary import live_spreads
from vla_policy_node.evaluation.replay.summary import summarise
from vla_policy_node.policy import load_policy
from vla_policy_node.recorded import read_bags
from vla_policy_node.recorded import RecordedBags
from vla_policy_node.recorded.bags import check_topics
from vla_policy_node.recordings import RecordingError

# Kinds of failed decoding that the summary tells of, the most frequent ones.
_SHOWN_FAILURES = 5


class ReplayError(ValueError):
    """A replay that was asked for cannot be done; one line says what was expected and found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A policy to look at: its checkpoint as load_policy takes it, and in which form."""

    checkpoint: str
    quantization: str
    unnorm_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """
    What was asked for.

    against: a second policy for the same frames. instruction: said all the time, instead of what
    the configuration names. max_frames: leave out what comes later. rrd: write a Rerun file too.
    """

    bags: Sequence[Path]
    first: Contender
    config: ReplayConfig
    out: Path
    against: Contender | None = None
    device: str = 'cpu'
    dtype: str = 'bfloat16'
    instruction: str | None = None
    max_frames: int | None = None
    rrd: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Seen:
    """What one policy answered, and what of the policy is needed afterwards."""

    run: ReplayRun
    bins: ActionBins
    frame: str
    period_s: float


class ReplayJob:
    """
    Carries out a job.

    load: makes a policy of a checkpoint, as load_policy does. show: lets it answer to recordings,
    as run_offline does. mode: what the summary says about how that was done.
    """

    def __init__(
        self, job: Job, console: Console, load: Callable = load_policy,
        show: Callable = run_offline, mode: Mapping[str, object] | None = None,
    ) -> None:
        self._job = job
        self._console = console
        self._load = load
        self._show = show
        self._mode = mode or {'mode': 'offline'}

    def run(self) -> Mapping[str, object]:
        """
        Replay, write all results, and return the summary.

        Raises ValueError for what cannot be read or loaded, and OutputError.
        """
        job = self._job
        rerun = rerun_file.import_rerun() if job.rrd else None
        self._check_early()
        with self._loaded(job.first) as policy:
            bags = self._read(policy)
            first = self._shown(policy, job.first, bags)
        against = self._against(bags, first)
        with self._console.status('writing the results'), Outputs(job.out) as outputs:
            summary = self._write(outputs, bags, first, against)
            if rerun is not None:
                runs = {'predicted': first.run, **({'against': against.run} if against else {})}
                with outputs.draft('replay.rrd') as path:
                    rerun_file.write_rrd(path, runs, bags.frames(), rerun)
        return summary

    def _check_early(self) -> None:
        """Name what can be told to be wrong before a model is loaded."""
        job = self._job
        for path in job.bags:
            if not path.exists():
                raise ReplayError(f'expected a bag at {path}, found nothing; give a folder, an '
                                  '.mcap or a .db3 file')
        try:
            check_topics(job.bags[0], job.config)
        except RecordingError:
            # One bag of many may be another kind of recording; it is then left out.
            if len(job.bags) == 1:
                raise
        # Rather than behind hours of evaluation.
        with Outputs(job.out):
            pass

    @contextmanager
    def _loaded(self, contender: Contender) -> Iterator:
        job = self._job
        with self._console.status(f'loading {contender.checkpoint}'):
            _hide_other_bars()
            policy = self._load(
                contender.checkpoint, device=job.device, dtype=job.dtype,
                quantization=contender.quantization, unnorm_key=contender.unnorm_key)
        try:
            missing = [name for name in policy.camera_names if name not in job.config.cameras]
            if missing:
                raise ReplayError(
                    f'{contender.checkpoint} sees by cameras {", ".join(policy.camera_names)}, '
                    f'found {", ".join(job.config.cameras)} in the configuration; name a topic '
                    f'for {", ".join(missing)} under cameras')
            yield policy
        finally:
            policy.close()

    def _read(self, policy: object) -> RecordedBags:
        job, space = self._job, policy.action_space
        with self._console.status('reading the bags'):
            bags = read_bags(job.bags, job.config, period_s=space.period_s,
                             instruction=job.instruction, max_frames=job.max_frames)
        others = bags.frame_ids - {space.frame}
        if others and job.config.actions.frame is None:
            bags.warnings.append(
                f'the recorded actions are in frame {", ".join(sorted(others))}, the policy acts '
                f'in {space.frame}; if that is the same, say so with actions.frame')
        self._console.print(f'episodes: {len(bags.episodes)}, frames: {len(bags)}')
        return bags

    def _shown(self, policy: object, contender: Contender, bags: RecordedBags) -> _Seen:
        kind = self._job.dtype if contender.quantization == 'none' else contender.quantization
        with _progress(self._console) as progress:
            bar = progress.add_task(kind, total=len(bags))
            run = self._show(policy, bags, name=f'{policy.checkpoint_name} {kind}',
                             on_frame=lambda done: progress.update(bar, completed=done))
            progress.update(bar, completed=len(run.frames), total=len(run.frames))
        space = policy.action_space
        return _Seen(run=run, bins=ActionBins(space, policy.action_tokenizer),
                     frame=space.frame, period_s=space.period_s)

    def _against(self, bags: RecordedBags, first: _Seen) -> _Seen | None:
        contender = self._job.against
        if contender is None:
            return None
        live = first.run.replayed.live
        if live and live['ended_early'] == INTERRUPTED:
            bags.warnings.append(
                f'not compared with {contender.checkpoint} {contender.quantization}: interrupted')
            return None
        with self._loaded(contender) as policy:
            period_s = policy.action_space.period_s
            if abs(period_s - first.period_s) > 1e-6:
                raise ReplayError(
                    f'expected two policies with actions of one period, found {first.period_s:g} '
                    f's and {period_s:g} s; replay them one by one')
            return self._shown(policy, contender, bags)

    def _write(
        self, outputs: Outputs, bags: RecordedBags, first: _Seen, against: _Seen | None,
    ) -> Mapping[str, object]:
        replayed, other = first.run.replayed, against.run.replayed if against else None
        summary = summarise(
            replayed, against=other, skipped=bags.skipped, to_bins=first.bins.of_actions,
            meta=self._meta(bags, first, against),
            settings=self._job.config.metrics.settings())
        outputs.text('summary.json', json.dumps(summary, indent=2, allow_nan=False) + '\n')
        worst = [film.worst_frame(replayed, row, picture) for row, picture in _pictures(
            first.run, film.worst_frames(replayed, self._job.config.report.worst_frames))]
        outputs.text('report.html', render(summary, replayed, worst, against=other))
        with outputs.draft('predictions.mcap') as path:
            write_predictions(path, first.run, frame=first.frame, period_s=first.period_s,
                              against=against.run if against else None)
        return summary

    def _meta(
        self, bags: RecordedBags, first: _Seen, against: _Seen | None,
    ) -> dict[str, object]:
        job = self._job
        runs = {'first': first.run, **({'against': against.run} if against else {})}
        contenders = {'first': job.first, **({'against': job.against} if job.against else {})}
        return {
            **self._mode,
            **{name: {'checkpoint': each.checkpoint, 'quantization': each.quantization,
                      'unnorm_key': each.unnorm_key} for name, each in contenders.items()},
            'device': job.device,
            'dtype': job.dtype,
            'period_s': first.period_s,
            'bags': [str(path) for path in job.bags],
            'instruction': job.instruction,
            'max_frames': job.max_frames,
            'episodes': [{'number': episode.number, 'bag': str(episode.path),
                          'instruction': episode.instruction} for episode in bags.episodes],
            'warnings': list(bags.warnings),
            'decoding_failures': {name: dict(run.failures.most_common(_SHOWN_FAILURES))
                                  for name, run in runs.items() if run.failures},
            'speed': {name: _speed(run) for name, run in runs.items()},
            **({'against_live': live_spreads(against.run.replayed.live)}
               if against and against.run.replayed.live else {}),
            'configuration': job.config.model_dump(mode='json', exclude_none=True),
            'versions': run_summary.versions(),
            'machine': run_summary.machine(),
        }


class RateColumn(ProgressColumn):
    """Frames per second."""

    def render(self, task: Task) -> Text:
        """Return '12.3 frames/s', a dash before it is known."""
        speed = task.finished_speed or task.speed
        return Text('-' if speed is None else f'{speed:.1f} frames/s')


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn('{task.description:<9}'), BarColumn(), MofNCompleteColumn(), RateColumn(),
        TimeRemainingColumn(), TextColumn('left'), console=console)


def _hide_other_bars() -> None:
    """Keep transformers from drawing over the display while it loads."""
    from transformers.utils import logging
    logging.disable_progress_bar()


def _speed(run: ReplayRun) -> dict[str, float]:
    return {
        'wall_s': round(run.wall_s, 3),
        'frames_per_s': round(len(run.frames) / run.wall_s, 3) if run.wall_s else 0.0,
        'reading_s': round(run.reading_s, 3),
        'waited_for_reading_s': round(run.waited_s, 3),
    }


def _pictures(run: ReplayRun, rows: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield row and the first camera's picture; a bag that has gone by now gives none."""
    for row in rows:
        episode, step = run.frames[row]
        try:
            images = episode.images(step)
        except ValueError:
            continue
        yield row, next(iter(images.values()))
