"""Live replay: bags played over real DDS to a policy node in a process of its own."""

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
import json
from pathlib import Path
import signal
import subprocess
import sys
import time

import bag_folders as bags
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('vla_msgs')

import psutil  # noqa: E402
from replay_live_fakes import actions  # noqa: E402
from replay_live_fakes import CONFIG  # noqa: E402
from replay_live_fakes import FRAME_S  # noqa: E402
from replay_live_fakes import messages  # noqa: E402
from replay_live_fakes import MODE  # noqa: E402
from replay_live_fakes import node_command  # noqa: E402
from replay_live_fakes import player_command  # noqa: E402
from replay_live_fakes import write_bag  # noqa: E402
from rich.console import Console  # noqa: E402

from vla_policy_node.evaluation.replay import cli  # noqa: E402
from vla_policy_node.evaluation.replay import live  # noqa: E402
from vla_policy_node.evaluation.replay.config import ReplayConfig  # noqa: E402
from vla_policy_node.evaluation.replay.job import Contender  # noqa: E402
from vla_policy_node.evaluation.replay.job import Job  # noqa: E402
from vla_policy_node.evaluation.replay.job import ReplayError  # noqa: E402
from vla_policy_node.evaluation.replay.job import ReplayJob  # noqa: E402
from vla_policy_node.evaluation.replay.live import LiveReplay  # noqa: E402
from vla_policy_node.evaluation.replay.live import LiveSettings  # noqa: E402
from vla_policy_node.recordings import read_chunk  # noqa: E402
from vla_policy_node.recordings import Recording  # noqa: E402

pytestmark = pytest.mark.integration

END_S = 60.0


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """An episode of 19 frames and one of 7, brightness 0 to 18 and 50 to 56."""
    return write_bag(tmp_path / 'bag', messages(19), messages(
        7, first=50, at_s=2.0, text='pull'))


def job(bag: Path, checkpoint: str = 'brightness', **changes: object) -> Job:
    return Job(bags=[bag], config=ReplayConfig.model_validate({**CONFIG, **changes}),
               first=Contender(checkpoint=checkpoint, quantization='none'),
               out=bag.parent / 'out')


def replay_job(one: Job, settings: LiveSettings, console: Console) -> ReplayJob:
    """Return a live replay with the fake node."""
    replayed = LiveReplay(one, settings, console, read=actions, command=node_command)
    return ReplayJob(replayed.job, console, load=replayed.load, show=replayed.show,
                     mode=replayed.described())


def replay(one: Job, **settings: object) -> dict:
    """Return the summary of a live replay with the fake node."""
    return replay_job(one, LiveSettings(**settings), Console(quiet=True)).run()


def answered(one: Job) -> list[tuple[int, float]]:
    """Return stamp, in frames since the start, and motion [mm] of every prediction written."""
    with Recording(one.out / 'predictions.mcap') as found:
        chunks = [read_chunk(message) for message in found.messages('/replay/predicted')]
    return [((chunk.observation_ns - bags.START) / (1e9 * FRAME_S), 1e3 * chunk.actions[0, 0])
            for chunk in chunks]


def check_answers(one: Job, at_least: int) -> None:
    """Every answer stands at the frame whose brightness it is."""
    found = answered(one)
    assert len(found) >= at_least
    for frame, motion_mm in found:
        level = frame if frame < 40 else frame - 40 + 50
        assert motion_mm == pytest.approx(level, abs=0.5)


def test_a_node_answers_to_what_is_played_and_is_gone_afterwards(bag: Path) -> None:
    one = job(bag)
    summary = replay(one)
    check_answers(one, at_least=4)
    figures = summary['live']
    assert figures['ended_early'] is None
    assert figures['frames_published'] == 26
    assert figures['frames_published'] == figures['frames_received'] + figures['frames_dropped']
    assert figures['chunks'] == summary['frames']['replayed'] > 4
    assert figures['stamp_to_chunk_ms']['p50'] > figures['frame_age_ms']['p50'] > 0.0
    assert 1.0 < figures['rate_hz'] < 5.5
    assert summary['latency_ms']['p50'] == pytest.approx(2.0)
    assert summary['meta']['mode'] == 'live'
    assert summary['meta']['playback']['rate'] == 1.0
    assert {each['instruction'] for each in summary['meta']['episodes']} == {'push', 'pull'}
    # `frames.select` is for offline replay: here the node chooses.
    assert summary['meta']['configuration']['frames']['every'] == 1
    assert not [child for child in psutil.Process().children(recursive=True)
                if 'replay_live_fakes' in ' '.join(child.cmdline())]


def test_with_simulated_time_compressed_pictures_keep_their_stamps(tmp_path: Path) -> None:
    pictures = [bags.image(received_s=FRAME_S * number + 0.004, shade=number,
                           stamp_s=FRAME_S * number, topic=bags.WRIST) for number in range(19)]
    rest = [message for message in messages(19) if message[0] != bags.CAMERA]
    one = job(write_bag(tmp_path / 'bag', pictures, rest), cameras={'primary': bags.WRIST})
    summary = replay(one, use_sim_time=True, rate=0.5)
    check_answers(one, at_least=4)
    assert summary['live']['clock'] == 'recording'
    assert summary['live']['frames_published'] == 19
    # Half as fast, so the same node answers twice as often per second of the recording.
    assert summary['live']['action_age_ms']['p50'] < 190.0


def test_what_was_answered_before_a_node_dies_is_kept_and_marked(
    bag: Path, capsys, monkeypatch,
) -> None:
    monkeypatch.setenv(MODE, 'crash')
    given = []

    def with_fakes(one: Job, settings: LiveSettings, console: Console) -> ReplayJob:
        given.append(settings)
        return replay_job(one, settings, console)
    monkeypatch.setattr(live, 'live_job', with_fakes)
    one = job(write_bag(bag.parent / 'longer', messages(43)))
    assert cli.main(command(bag.parent / 'longer', '--mode', 'live', '--rate', '0.9')) == 1
    assert given == [LiveSettings(rate=0.9)]
    check_answers(one, at_least=3)
    summary = json.loads((one.out / 'summary.json').read_text())
    why = summary['live']['ended_early']
    assert why == f'policy_node ended with exit code 3, see {one.out}/logs/policy_node.log'
    assert summary['frames']['replayed'] < 10
    assert any(why in warning for warning in summary['meta']['warnings'])
    shown = capsys.readouterr().out
    assert 'ended early, what came before counts: policy_node ended with exit code 3' in shown
    assert 'from the camera’s stamp to the answer [ms]: p50 ' in shown


def test_an_interruption_keeps_what_was_answered_and_ends_the_comparison(bag: Path) -> None:
    one = replace(job(bag), against=Contender(checkpoint='other', quantization='none'))
    replayed = LiveReplay(one, LiveSettings(), Console(quiet=True), read=actions,
                          command=node_command)

    def show(node, bags, *, name, on_frame):
        def interrupt(done: int) -> None:
            if done == 15:
                raise KeyboardInterrupt
        return replayed.show(node, bags, name=name, on_frame=interrupt)
    summary = ReplayJob(replayed.job, Console(quiet=True), load=replayed.load, show=show,
                        mode=replayed.described()).run()
    check_answers(one, at_least=2)
    assert summary['live']['ended_early'] == 'interrupted'
    assert summary['live']['frames_published'] == 15
    assert summary['against'] is None
    assert 'not compared with other none: interrupted' in summary['meta']['warnings']


def test_a_node_that_refuses_its_checkpoint_says_why(bag: Path, monkeypatch) -> None:
    monkeypatch.setenv(MODE, 'refuse')
    with pytest.raises(ReplayError, match='the policy node refused: brightness has no weights'):
        replay(job(bag))


def test_a_node_that_considers_the_task_done_is_told_of(bag: Path, monkeypatch) -> None:
    monkeypatch.setenv(MODE, 'done')
    one = job(bag)
    summary = replay(one, rate=0.7)
    (warning,) = summary['meta']['warnings']
    assert warning.endswith('the node ended 1 instructions before their episodes: done')
    # The rest of the first episode was not played.
    assert summary['live']['frames_published'] < 26
    assert summary['live']['ended_early'] is None


@pytest.fixture
def processes() -> Iterator[Callable[[list[str]], subprocess.Popen]]:
    """Start processes in this test's domain; all have ended afterwards."""
    started: list[subprocess.Popen] = []

    def start(command: list[str]) -> subprocess.Popen:
        started.append(subprocess.Popen(command))
        return started[-1]
    yield start
    for process in started:
        try:
            stop(process)
        except subprocess.TimeoutExpired:
            process.kill()


def stop(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGINT)
    process.wait(END_S)


def test_another_player_is_followed(bag: Path, processes) -> None:
    # It plays recorded answers too, as a player does that is not told otherwise.
    processes(player_command(bag, answers=True))
    one = job(bag)
    summary = replay(one, external_player=True)
    check_answers(one, at_least=4)
    figures = summary['live']
    assert (figures['ended_early'], figures['clock']) == (None, 'recording')
    assert 20 <= figures['frames_published'] <= 26
    assert {each['number'] for each in summary['episodes']} == {0, 1}


def test_a_running_node_is_used_unless_somebody_acts_on_it(bag: Path, processes) -> None:
    checkpoint = 'brightness'
    processes([sys.executable, node_command.__globals__['__file__'], 'node', '--ros-args',
               '-r', f'~/image:={bags.CAMERA}', '-p', 'use_sim_time:=true',
               '-p', 'autostart:=true', '-p', f'checkpoint:={checkpoint}',
               '-p', 'quantization:=none'])
    with pytest.raises(ReplayError, match='expected /policy_node to run other .*found brightness'):
        replay(job(bag, 'other'), external_player=True, attach='/policy_node')
    listening = processes([sys.executable, '-c', (
        'import rclpy; rclpy.init(); n = rclpy.create_node("arm");'
        'from vla_msgs.msg import EndEffectorDeltaChunk as C;'
        's = n.create_subscription(C, "/policy_node/action_chunk", print, 1); rclpy.spin(n)')])
    wait_for(lambda: refused_for_others(bag) == 'found /arm: a robot would move')
    stop(listening)
    wait_for(lambda: not refused_for_others(bag))
    liar = processes(player_command(bag, answers=True))
    with pytest.raises(ReplayError, match='expected /policy_node alone to publish '
                                          '/policy_node/action_chunk'):
        replay(job(bag), external_player=True, attach='/policy_node')
    stop(liar)
    processes(player_command(bag))
    one = job(bag)
    summary = replay(one, external_player=True, attach='/policy_node')
    check_answers(one, at_least=4)
    assert summary['live']['ended_early'] is None


def test_nobody_to_attach_to_is_an_error_with_the_mend(bag: Path) -> None:
    with pytest.raises(ReplayError, match='expected a policy node /nobody .* within 0.5 s, found '
                                          'none; start it'):
        replay(job(bag), external_player=True, attach='/nobody', wait_s=0.5)


def refused_for_others(bag: Path) -> str:
    """Return what of the refusal says who listens, '' where none was discovered yet."""
    replayed = LiveReplay(job(bag), LiveSettings(
        external_player=True, attach='/policy_node'), Console(quiet=True), read=actions)
    try:
        replayed.load('brightness', device='cpu', dtype='bfloat16', quantization='none',
                      unnorm_key=None).close()
    except ReplayError as error:
        said = 'nobody else to listen to /policy_node/action_chunk, '
        assert said in str(error)
        return str(error).partition(said)[2].partition(' by recorded')[0]
    return ''


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + END_S
    while not condition():
        assert time.monotonic() < deadline_s


@pytest.mark.parametrize('settings, line', [
    ({'rate': 0.0}, 'expected a rate of 0.01 to 100, found 0'),
    ({'rate': 2.0, 'external_player': True}, 'an external player decides about rate and clock'),
    ({'attach': '/policy_node'}, 'add --external-player'),
    ({'attach': '/policy_node', 'external_player': True, 'node_parameters': Path('a.yaml')},
     'leave one of --attach and --node-parameters out'),
])
def test_settings_that_do_not_go_together_are_one_line(settings: dict, line: str) -> None:
    with pytest.raises(ReplayError) as caught:
        LiveSettings(**settings)
    assert line in str(caught.value)
    assert '\n' not in str(caught.value)


def test_parameters_that_would_not_reach_the_node_are_refused(tmp_path: Path) -> None:
    path = tmp_path / 'node.yaml'
    path.write_text('/**: {ros__parameters: {decoding: expectation}}')
    LiveSettings(node_parameters=path)
    path.write_text('policy_node: {ros__parameters: {decoding: expectation}}')
    with pytest.raises(ReplayError, match='under /\\*\\* alone, found policy_node'):
        LiveSettings(node_parameters=path)


def test_an_external_player_plays_one_bag(bag: Path) -> None:
    two = Job(bags=[bag, bag], config=ReplayConfig.model_validate(CONFIG), out=bag.parent,
              first=Contender(checkpoint='some', quantization='none'))
    with pytest.raises(ReplayError, match='expected one bag'):
        LiveReplay(two, LiveSettings(external_player=True), Console(quiet=True))


@pytest.mark.parametrize('cameras', [{'wrist': bags.CAMERA},
                                     {'wrist': '/other', 'primary': bags.CAMERA}])
def test_the_camera_that_stamps_the_answers_must_come_first(bag: Path, cameras: dict) -> None:
    replayed = LiveReplay(job(bag, cameras=cameras), LiveSettings(), Console(quiet=True),
                          read=actions)
    with pytest.raises(ReplayError, match='sees by cameras primary .*, the first one first'):
        replayed.load('x', device='cpu', dtype='bfloat16', quantization='none', unnorm_key=None)


def command(bag: Path, *options: str) -> list[str]:
    config = bag.parent / 'replay.yaml'
    config.write_text(json.dumps(CONFIG))   # JSON is YAML
    return [str(bag), '--checkpoint', 'some', '--config', str(config), '--out',
            str(bag.parent / 'out'), *options]


@pytest.mark.parametrize('options, line', [
    (('--rate', '2'), 'expected rate with --mode live'),
    (('--use-sim-time', '--external-player'), 'expected use_sim_time, external_player with'),
    (('--mode', 'live', '--every', '2'), 'expected no --every with --mode live'),
    (('--mode', 'live', '--rate', '0'), 'expected a rate of 0.01 to 100'),
])
def test_options_of_the_other_mode_are_refused(bag: Path, capsys, options, line: str) -> None:
    assert cli.main(command(bag, *options)) == 1
    assert line in capsys.readouterr().err
