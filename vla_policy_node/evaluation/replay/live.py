"""
Live replay: what was recorded is played in real time to a policy node, whose answers are kept.

Latencies, dropped frames and staleness are the node's own. A ReplayJob takes `load` and `show` of
LiveReplay in place of those that run a policy offline.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import closing
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from pathlib import Path
import time

from rich.console import Console

from vla_policy_node.bringup import NodeProcess
from vla_policy_node.evaluation.policy_client import PolicyClientError
from vla_policy_node.evaluation.replay.checkpoint_actions import CheckpointActions
from vla_policy_node.evaluation.replay.checkpoint_actions import read_actions
from vla_policy_node.evaluation.replay.follower import Follower
from vla_policy_node.evaluation.replay.heard_run import Heard
from vla_policy_node.evaluation.replay.heard_run import run_of
from vla_policy_node.evaluation.replay.instructing import Instructions
from vla_policy_node.evaluation.replay.job import Job
from vla_policy_node.evaluation.replay.job import ReplayError
from vla_policy_node.evaluation.replay.job import ReplayJob
from vla_policy_node.evaluation.replay.live_figures import INTERRUPTED
from vla_policy_node.evaluation.replay.live_node import attach_node
from vla_policy_node.evaluation.replay.live_node import LiveNode
from vla_policy_node.evaluation.replay.live_node import NodeSetup
from vla_policy_node.evaluation.replay.live_node import start_node
from vla_policy_node.evaluation.replay.playback import OwnPlayback
from vla_policy_node.evaluation.replay.playback import PlaybackSettings
from vla_policy_node.evaluation.replay.player import open_recording
from vla_policy_node.evaluation.replay.raw_pictures import COMPRESSED_TYPE
from vla_policy_node.evaluation.replay.rows import ReplayRun
from vla_policy_node.evaluation.supervisor import ProcessDiedError
from vla_policy_node.policy.checkpoint import checkpoint_name
from vla_policy_node.recorded import RecordedBags
from vla_policy_node.recorded import RecordedEpisode
from vla_policy_node.recorded.config import FramesSection
from vla_policy_node.recordings import RecordingError
from vla_policy_node.yaml_file import read_mapping

# Of the endings of instructions, so many are told.
_SHOWN_ENDINGS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSettings:
    """
    How a recording is played, and to which node.

    rate: seconds of the recording per second. use_sim_time: keep the recording's stamps and
    publish /clock, instead of stamping pictures anew. external_player: play nothing, follow
    whoever does. attach: name of a running node to use instead of starting one. node_parameters:
    YAML with parameters for the node. wait_s: how long to wait for another player, and for one
    that pauses.
    """

    rate: float = 1.0
    use_sim_time: bool = False
    external_player: bool = False
    attach: str | None = None
    node_parameters: Path | None = None
    wait_s: float = 60.0

    def __post_init__(self) -> None:
        """Raise ReplayError for what does not go together."""
        if not 0.01 <= self.rate <= 100.0:
            raise ReplayError(f'expected a rate of 0.01 to 100, found {self.rate:g}')
        if self.external_player and (self.rate != 1.0 or self.use_sim_time):
            raise ReplayError('an external player decides about rate and clock itself, found a '
                              'setting for it here; give that to the player')
        if self.attach is not None and not self.external_player:
            raise ReplayError('a running node is attached to with an external player only: it may '
                              'hear real cameras too; add --external-player')
        if self.attach is not None and self.node_parameters is not None:
            raise ReplayError('a running node has its parameters already; leave one of --attach '
                              'and --node-parameters out')
        _check_parameters(self.node_parameters)


class LiveReplay:
    """`job` is the one to carry out, with `load` and `show` of this."""

    def __init__(
        self, job: Job, settings: LiveSettings, console: Console, *,
        read: Callable[[str, str | None], CheckpointActions] = read_actions,
        command: Callable[[NodeProcess], list[str]] = NodeProcess.command,
    ) -> None:
        """
        Prepare a job; raises ReplayError where it cannot be played.

        read: what a checkpoint's actions mean. command: how a node's process is started.
        """
        if settings.external_player and len(job.bags) != 1:
            raise ReplayError(f'expected one bag with an external player, found {len(job.bags)}; '
                              'replay them one by one')
        # The node looks at whichever frame is the newest one.
        self.job = replace(job, config=job.config.model_copy(update={'frames': FramesSection()}))
        self._settings = settings
        self._console = console
        self._read = read
        self._command = command
        self._uses_sim_time = settings.use_sim_time or settings.external_player

    def load(
        self, checkpoint: str, *, device: str, dtype: str, quantization: str,
        unnorm_key: str | None,
    ) -> LiveNode:
        """Return an active policy node; ReplayError with its reason where it refuses."""
        actions = self._read(checkpoint, unnorm_key)
        cameras = self._cameras(actions)
        parameters = {
            'checkpoint': checkpoint, 'device': device, 'dtype': dtype,
            'quantization': quantization, 'unnorm_key': unnorm_key or '',
            'image_transport': 'compressed' if self._is_compressed else 'raw',
            'use_sim_time': self._uses_sim_time}
        try:
            if self._settings.attach is not None:
                return self._attached(actions, parameters)
            return start_node(actions, NodeSetup(
                parameters=parameters, parameters_file=self._settings.node_parameters,
                cameras=cameras, is_private=not self._settings.external_player,
                logs=self.job.out / 'logs', command=self._command))
        except (PolicyClientError, ProcessDiedError) as error:
            raise ReplayError(str(error)) from error

    def show(
        self, node: LiveNode, bags: RecordedBags, *, name: str,
        on_frame: Callable[[int], None] = lambda done: None,
    ) -> ReplayRun:
        """
        Play the bags to a node and return what it answered, a frame for each answer.

        What cuts playback short, an interruption too, is told in the warnings of `bags`; what was
        answered before is kept. Raises ReplayError where that is nothing.
        """
        first_status = max(0, node.listener.n_statuses - 1)
        instructions = Instructions(node, node.action_space.period_s)
        conduct = self._conductor(node, instructions, bags.episodes, on_frame)
        start_s = time.perf_counter()
        try:
            ended_early = conduct.run()
        except (PolicyClientError, ProcessDiedError, RecordingError, KeyboardInterrupt) as error:
            ended_early = _first_line(error)
        wall_s = time.perf_counter() - start_s
        with suppress(PolicyClientError, ProcessDiedError):
            if instructions.current is not None:
                instructions.end()
            node.await_status()
        heard = Heard(answers=instructions.answers(), frames=conduct.frames(),
                      statuses=node.listener.statuses(first_status))
        run = run_of(heard, node, name, conduct.playback(ended_early), wall_s=wall_s,
                     reading_s=conduct.reading_s, waited_s=conduct.waited_s)
        remarks = [f'the node ended {count} instructions before their episodes: {ending}'
                   for ending, count in instructions.ended_by_node.most_common(_SHOWN_ENDINGS)]
        if ended_early:
            remarks.append(f'playback ended early, what came before counts: {ended_early}')
        bags.warnings.extend(f'{name}, live: {remark}' for remark in remarks)
        return run

    def described(self) -> dict[str, object]:
        """Return what the summary says about how it was replayed."""
        given = {name: getattr(self._settings, name) for name in LiveSettings.__slots__}
        return {'mode': 'live', 'playback': {
            name: str(value) if isinstance(value, Path) else value
            for name, value in given.items()}}

    @cached_property
    def _topic_types(self) -> Mapping[str, frozenset[str]]:
        """Camera topic -> its types in the bags that have it."""
        found: dict[str, set[str]] = {topic: set() for topic in self.job.config.cameras.values()}
        for path in self.job.bags:
            with suppress(RecordingError), closing(open_recording(path)) as recording:
                for topic in found.keys() & recording.topics.keys():
                    found[topic].add(recording.topics[topic].type)
        return {topic: frozenset(types) for topic, types in found.items()}

    @property
    def _is_compressed(self) -> bool:
        """Whether all cameras recorded CompressedImage; a node hears one kind only."""
        return all(types == {COMPRESSED_TYPE} for types in self._topic_types.values())

    def _cameras(self, actions: CheckpointActions) -> dict[str, str]:
        """Return name -> topic of the cameras that a policy sees by, its first one first."""
        given = self.job.config.cameras
        missing = [name for name in actions.camera_names if name not in given]
        if missing or next(iter(given)) != actions.camera_names[0]:
            raise ReplayError(
                f'{actions.checkpoint_name} sees by cameras {", ".join(actions.camera_names)} and '
                f'stamps its answers by the first, found {", ".join(given)} in the configuration; '
                'name a topic for each under cameras, the first one first')
        return {name: given[name] for name in actions.camera_names}

    def _attached(
        self, actions: CheckpointActions, parameters: Mapping[str, str | bool],
    ) -> LiveNode:
        said = {name: parameters[name] for name in ('checkpoint', 'quantization')}
        node, found = attach_node(actions, self._settings.attach, said, self._settings.wait_s)
        self._uses_sim_time = bool(found['use_sim_time'])
        if checkpoint_name(found['checkpoint']) != actions.checkpoint_name or (
                found['quantization'] != said['quantization']):
            node.close()
            raise ReplayError(
                f'expected {self._settings.attach} to run {said["checkpoint"]} with quantization '
                f'{said["quantization"]}, found {found["checkpoint"] or "no checkpoint"} with '
                f'{found["quantization"]}; its tokens would be misread, name those')
        return node

    def _conductor(
        self, node: LiveNode, instructions: Instructions, episodes: Sequence[RecordedEpisode],
        on_frame: Callable[[int], None],
    ) -> OwnPlayback | Follower:
        settings, config = self._settings, self.job.config
        topics = [config.cameras[name] for name in node.camera_names]
        if not settings.external_player:
            return OwnPlayback(node, instructions, episodes, PlaybackSettings(
                topics=topics, compressed=self._is_compressed, rate=settings.rate,
                use_sim_time=settings.use_sim_time, lead_s=config.max_skew_s), on_frame)
        self._console.print(
            f'waiting for another player: ros2 bag play {self.job.bags[0]} --clock --topics '
            f'{" ".join(topics)}', markup=False, soft_wrap=True)
        return Follower(
            node, instructions, episodes, topic=topics[0], compressed=self._is_compressed,
            needs_clock=self._uses_sim_time, wait_s=settings.wait_s, on_frame=on_frame)


def live_job(job: Job, settings: LiveSettings, console: Console) -> ReplayJob:
    """Return what carries out a job in live mode."""
    live = LiveReplay(job, settings, console)
    return ReplayJob(live.job, console, load=live.load, show=live.show, mode=live.described())


def _check_parameters(path: Path | None) -> None:
    """Raise ReplayError where a file has parameters for nodes of certain names."""
    names = set() if path is None else read_mapping(path, examples='config').keys() - {'/**'}
    if names:
        raise ReplayError(f'{path}: expected parameters under /** alone, found '
                          f'{", ".join(names)}; the node of a replay has a name of its own')


def _first_line(error: BaseException) -> str:
    """Return why playback was cut short; of the log of a process that died its place."""
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return str(error).splitlines()[0].rstrip(':').replace('; the end of ', ', see ')
