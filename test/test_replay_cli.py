"""The replay command leaves a folder of results, or one line that says what is wrong."""

import json
from pathlib import Path
import signal

import numpy as np
import pytest
from replay_fakes import BrightnessPolicy
from replay_fakes import CONFIG
from replay_fakes import write_bag
from rich.console import Console

from vla_policy_node.evaluation.replay import cli
from vla_policy_node.evaluation.replay import job
from vla_policy_node.evaluation.replay.config import load_config
from vla_policy_node.evaluation.replay.config import MetricsSection
from vla_policy_node.recordings import read_chunk
from vla_policy_node.recordings import Recording

REPOSITORY = Path(__file__).resolve().parent.parent


class Loader:
    """Stands in for load_policy: gives out policies and remembers what was asked for."""

    def __init__(self, *policies: BrightnessPolicy) -> None:
        """Take what to give out, in order."""
        self.policies = policies
        self.asked: list[tuple] = []

    def __call__(self, checkpoint: str, **options: object) -> BrightnessPolicy:
        """Return the next policy."""
        self.asked.append((checkpoint, options['quantization'], options['unnorm_key']))
        return self.policies[len(self.asked) - 1]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / 'replay.yaml').write_text(CONFIG)
    return {'bag': str(write_bag(tmp_path / 'bag', [10, 20, 30, 40])),
            'config': str(tmp_path / 'replay.yaml'), 'out': str(tmp_path / 'out')}


def run(monkeypatch, files: dict[str, str], *options: str, loader: Loader | None = None) -> int:
    loader = loader or Loader(BrightnessPolicy())
    monkeypatch.setattr(cli, 'ReplayJob', lambda *parts: job.ReplayJob(*parts, load=loader))
    status = cli.main([files['bag'], '--checkpoint', 'some', '--config', files['config'],
                       '--out', files['out'], *options])
    assert all(policy.closed for policy in loader.policies[:len(loader.asked)])
    return status


def summary(files: dict[str, str]) -> dict:
    return json.loads((Path(files['out']) / 'summary.json').read_text())


def test_a_replay_leaves_summary_report_and_predictions(monkeypatch, files, capsys) -> None:
    assert run(monkeypatch, files) == 0
    assert sorted(path.name for path in Path(files['out']).iterdir()) == [
        'predictions.mcap', 'report.html', 'summary.json']
    found = summary(files)
    assert found['name'] == 'brightness nf4'
    assert found['frames']['compared'] == 4
    assert found['metrics']['policy']['token_accuracy']['overall']['value'] == 1.0
    assert found['meta']['episodes'] == [
        {'number': 0, 'bag': files['bag'], 'instruction': 'pick up the red block'}]
    page = (Path(files['out']) / 'report.html').read_text()
    assert 'data:image/jpeg' in page
    shown = capsys.readouterr().out
    assert 'episodes: 1, frames: 4' in shown
    assert '4/4' in shown
    assert 'translation, mean error [mm]' in shown


def test_predictions_stand_beside_the_recording(monkeypatch, files) -> None:
    assert run(monkeypatch, files) == 0
    with Recording(Path(files['out']) / 'predictions.mcap') as found, \
            Recording(Path(files['bag'])) as recorded:
        (frames,) = recorded.index('/camera/image_raw')
        for topic in ('/replay/predicted', '/replay/recorded'):
            messages = list(found.messages(topic))
            assert [m.received_ns for m in messages] == frames.received_ns.tolist()
            chunks = [read_chunk(message) for message in messages]
            assert [c.observation_ns for c in chunks] == frames.stamp_ns.tolist()
            assert [c.actions[0, 0] for c in chunks] == pytest.approx(
                [0.01, 0.02, 0.03, 0.04], abs=5e-4)
            assert {(c.frame, c.period_s) for c in chunks} == {('base', 0.2)}
        assert read_chunk(found.read('/replay/predicted', 0)).plan == 'see 10'


def test_two_policies_are_compared_on_the_same_frames(monkeypatch, files, capsys) -> None:
    loader = Loader(BrightnessPolicy(), BrightnessPolicy(offset_m=0.01))
    assert run(monkeypatch, files, '--against', 'other', '--against-quantization', 'none',
               '--unnorm-key', 'mine', loader=loader) == 0
    assert loader.asked == [('some', 'nf4', 'mine'), ('other', 'none', None)]
    found = summary(files)
    assert found['against']['against'] == 'brightness bfloat16'
    assert found['against']['frames']['both'] == 4
    assert found['against']['nrmse_between']['x']['value'] == pytest.approx(0.05, rel=0.1)
    with Recording(Path(files['out']) / 'predictions.mcap') as bag:
        assert '/replay/against' in bag.topics
    assert 'brightness nf4 against brightness bfloat16' in capsys.readouterr().out


def test_another_quantization_alone_compares_a_checkpoint_with_itself(monkeypatch, files) -> None:
    loader = Loader(BrightnessPolicy(), BrightnessPolicy())
    assert run(monkeypatch, files, '--against-quantization', 'none', '--unnorm-key', 'mine',
               loader=loader) == 0
    assert loader.asked == [('some', 'nf4', 'mine'), ('some', 'none', 'mine')]


def test_the_command_line_overrides_instruction_and_choice_of_frames(monkeypatch, files) -> None:
    policy = BrightnessPolicy()
    assert run(monkeypatch, files, '--every', '2', '--max-frames', '1', '--instruction', 'touch',
               loader=Loader(policy)) == 0
    assert summary(files)['frames']['replayed'] == 1
    assert {each.instruction for each in policy.seen} == {'touch'}


def fault(monkeypatch, capsys, files, *options: str, loader: Loader | None = None) -> str:
    """Return the one line that a failing replay prints."""
    assert run(monkeypatch, files, *options, loader=loader) == 1
    line = capsys.readouterr().err.strip()
    assert '\n' not in line
    return line


def test_a_camera_that_the_checkpoint_needs_is_asked_for(monkeypatch, capsys, files) -> None:
    policy = BrightnessPolicy()
    policy.camera_names = ('primary', 'wrist')
    line = fault(monkeypatch, capsys, files, loader=Loader(policy))
    assert 'sees by cameras primary, wrist, found primary in the configuration' in line


def test_policies_of_different_periods_are_not_compared(monkeypatch, capsys, files) -> None:
    loader = Loader(BrightnessPolicy(), BrightnessPolicy(period_s=0.1))
    line = fault(monkeypatch, capsys, files, '--against', 'other', loader=loader)
    assert 'actions of one period, found 0.2 s and 0.1 s' in line
    assert not (Path(files['out']) / 'summary.json').exists()


def test_what_is_no_bag_is_named_before_a_model_is_loaded(monkeypatch, capsys, files) -> None:
    loader = Loader()
    files['bag'] = files['bag'] + '_absent'
    assert 'expected a bag at' in fault(monkeypatch, capsys, files, loader=loader)
    files['bag'] = str(Path(files['config']).parent)
    assert 'expected a complete rosbag2' in fault(
        monkeypatch, capsys, files, loader=Loader(BrightnessPolicy()))


def test_a_missing_topic_is_named_before_a_model_is_loaded(monkeypatch, capsys, files) -> None:
    Path(files['config']).write_text(CONFIG.replace('/camera/image_raw', '/front'))
    line = fault(monkeypatch, capsys, files, loader=Loader())
    assert 'expected a topic /front, found /camera/image_raw' in line


def test_rrd_without_the_package_says_how_to_get_it(monkeypatch, capsys, files) -> None:
    monkeypatch.setitem(__import__('sys').modules, 'rerun', None)
    line = fault(monkeypatch, capsys, files, '--rrd', loader=Loader())
    assert line.endswith('pip install rerun-sdk, or leave --rrd out')


class FakeRerun:
    """Takes what is logged, as the package of that name does."""

    def __init__(self) -> None:
        """Start with nothing."""
        self.logged: list[tuple] = []
        self.Scalars = self
        self.columns_of = None

    def RecordingStream(self, name: str) -> 'FakeRerun':  # noqa: N802
        """Return itself."""
        return self

    def save(self, path: str) -> None:
        """Write something."""
        Path(path).write_text('rrd')

    def TimeColumn(self, name: str, timestamp: np.ndarray) -> np.ndarray:  # noqa: N802
        """Return the times."""
        return timestamp

    def columns(self, scalars: np.ndarray) -> np.ndarray:
        """Return the numbers."""
        return scalars

    def send_columns(self, entity: str, indexes: list, columns: np.ndarray) -> None:
        """Remember numbers."""
        self.logged.append((entity, indexes[0].astype(np.int64).tolist(), columns.tolist()))

    def set_time(self, name: str, timestamp: np.datetime64) -> None:
        """Remember the time."""
        self.now = timestamp.astype(np.int64)

    def Image(self, picture: np.ndarray) -> 'FakeRerun':  # noqa: N802
        """Remember the picture."""
        self.picture = picture
        return self

    def compress(self, jpeg_quality: int) -> int:
        """Return the brightness."""
        return int(self.picture[0, 0, 0])

    def log(self, entity: str, value: int) -> None:
        """Remember a picture."""
        self.logged.append((entity, int(self.now), value))

    def flush(self) -> None:
        """Do nothing."""

    disconnect = flush


def test_rrd_holds_actions_and_pictures_at_the_stamps(monkeypatch, files) -> None:
    rerun = FakeRerun()
    monkeypatch.setitem(__import__('sys').modules, 'rerun', rerun)
    assert run(monkeypatch, files, '--rrd') == 0
    assert (Path(files['out']) / 'replay.rrd').read_text() == 'rrd'
    numbers = {entry[0]: entry for entry in rerun.logged if isinstance(entry[2], list)}
    assert numbers['x/recorded'][2] == [0.01, 0.02, 0.03, 0.04]
    assert numbers['x/predicted'][2] == pytest.approx([0.01, 0.02, 0.03, 0.04], abs=5e-4)
    pictures = [entry for entry in rerun.logged if entry[0] == 'camera/primary']
    assert [entry[2] for entry in pictures] == [10, 20, 30, 40]
    assert [entry[1] for entry in pictures] == numbers['x/recorded'][1]


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_replay_writes_nothing(monkeypatch, files, capsys, number) -> None:
    class Interrupted(BrightnessPolicy):
        def infer(self, observation):
            signal.raise_signal(number)

    assert run(monkeypatch, files, loader=Loader(Interrupted())) == 130
    assert 'replay: interrupted, nothing was written' in capsys.readouterr().out
    assert not Path(files['out']).exists()


def test_actions_in_a_frame_of_another_name_are_warned_about(monkeypatch, files) -> None:
    Path(files['config']).write_text(CONFIG.replace(', frame: base', ''))
    policy = BrightnessPolicy(frame='base_link')
    assert run(monkeypatch, files, loader=Loader(policy)) == 0
    (warning,) = summary(files)['meta']['warnings']
    assert 'are in frame base, the policy acts in base_link' in warning


def test_an_output_that_cannot_be_written_is_told_before_a_model_is_loaded(
    monkeypatch, files, capsys,
) -> None:
    Path(files['out']).write_text('in the way')
    loader = Loader(BrightnessPolicy())
    assert run(monkeypatch, files, loader=loader) == 1
    assert loader.asked == []
    assert 'cannot write the folder: File exists' in capsys.readouterr().err


@pytest.mark.parametrize('change, line', [
    (('primary: /camera', 'primary: camera'), 'cameras.primary: String should match'),
    (('kind: chunk', 'kind: chunks'), "'kind' does not match any of the expected tags"),
    (('kind: chunk', 'kind: twist, topic: /twist'), 'do not say the gripper'),
    (('{text: pick up the red block}', '{}'), 'instruction: expected exactly one of topic, met'),
    (('select: chunks', 'selct: chunks'), 'frames.selct: Extra inputs are not permitted'),
    (('select: chunks', 'every: 0'), 'frames.every: Input should be greater than or equal to 1'),
    (('cameras: {', 'cameras: [{'), 'expected YAML'),
])
def test_a_wrong_configuration_is_one_line(tmp_path: Path, change, line: str) -> None:
    path = tmp_path / 'replay.yaml'
    path.write_text(CONFIG.replace(*change))
    with pytest.raises(ValueError, match='replay.yaml: ') as caught:
        load_config(path)
    assert line in str(caught.value)
    assert '\n' not in str(caught.value)


def test_metrics_are_measured_as_the_configuration_says(monkeypatch, files) -> None:
    Path(files['config']).write_text(
        CONFIG + 'metrics: {within_bins: [3], bootstrap_samples: 100, event_window_s: 0.5}\n')
    assert run(monkeypatch, files) == 0
    found = summary(files)
    assert found['settings']['event_window_s'] == 0.5
    assert found['settings']['min_translation_m'] == 1e-3
    assert found['interval']['samples'] == 100
    assert 'within_3_bins' in found['metrics']['policy']
    assert 'within_1_bins' not in found['metrics']['policy']


@pytest.mark.parametrize('metrics, line', [
    ('within_bins: [5, 1]', 'within_bins: expected distances in ascending order, found [5, 1]'),
    ('within_bins: [0]', 'metrics.within_bins.0: Input should be greater than or equal to 1'),
    ('event_window_s: -1', 'metrics.event_window_s: Input should be greater than or equal to 0'),
    ('bootstrap_samples: 3', 'metrics.bootstrap_samples: Input should be greater than or equal'),
    ('windows: 3', 'metrics.windows: Extra inputs are not permitted'),
])
def test_wrong_metrics_are_one_line(tmp_path: Path, metrics: str, line: str) -> None:
    path = tmp_path / 'replay.yaml'
    path.write_text(f'{CONFIG}metrics: {{{metrics}}}\n')
    with pytest.raises(ValueError) as caught:
        load_config(path)
    assert line in str(caught.value)


@pytest.mark.parametrize('actions, line', [
    ({'linear': {'axes': ['x', 'x', 'z']}}, 'axes must name x, y and z once each, not x, x, z'),
    ({'linear': {'scale': 0}}, 'scale must not be 0'),
    ({'linear': {'unit': 'ft'}}, "Input should be 'm', 'cm' or 'mm'"),
    ({'hold_s': 0}, 'Input should be greater than 0'),
    ({'kind': 'pose', 'angular': {'scale': 2}}, 'a quaternion has no scale'),
])
def test_wrong_signs_and_units_are_one_line(tmp_path: Path, actions, line: str) -> None:
    path = tmp_path / 'replay.yaml'
    path.write_text(json.dumps({    # JSON is YAML
        'cameras': {'primary': '/a'}, 'gripper': {'kind': 'none'},
        'actions': {'kind': 'twist', 'topic': '/t', **actions}}))
    with pytest.raises(ValueError) as caught:
        load_config(path)
    assert line in str(caught.value)


@pytest.mark.parametrize('name', ['demo', 'real_robot'])
def test_the_examples_are_valid(name: str) -> None:
    config = load_config(REPOSITORY / 'config' / 'replay' / f'{name}.yaml')
    assert config.instruction is not None


def test_the_example_shows_the_metrics_that_are_usual() -> None:
    text = (REPOSITORY / 'config' / 'replay' / 'real_robot.yaml').read_text()
    assert load_config(REPOSITORY / 'config' / 'replay' / 'real_robot.yaml').metrics == (
        MetricsSection())
    assert all(f'  {name}: ' in text for name in MetricsSection.model_fields)


def test_the_commented_alternatives_of_the_example_are_valid(tmp_path: Path) -> None:
    text = (REPOSITORY / 'config' / 'replay' / 'real_robot.yaml').read_text()
    lines = text[text.index('# actions:'):text.index('\ngripper:')].splitlines()
    pose = '\n'.join(line.removeprefix('# ') for line in lines)
    grippers = [line.removeprefix('# ') for line in text.splitlines()
                if line.startswith('# gripper:')]
    assert len(grippers) == 2
    for gripper in grippers:
        path = tmp_path / 'replay.yaml'
        path.write_text(f'cameras: {{primary: /a}}\n{pose}\n{gripper}\n')
        assert load_config(path).actions.kind == 'pose'


def test_the_job_draws_nothing_where_nobody_looks(files, tmp_path: Path) -> None:
    settings = load_config(Path(files['config']))
    one = job.Job(bags=[Path(files['bag'])], config=settings, out=tmp_path / 'o',
                  first=job.Contender(checkpoint='some', quantization='none'))
    found = job.ReplayJob(one, Console(quiet=True), load=Loader(BrightnessPolicy())).run()
    assert found['meta']['speed']['first']['frames_per_s'] > 0
