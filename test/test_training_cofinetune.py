"""The whole recipe at its smallest size: from a YAML file to a folder that drives a robot."""

import json
import os
from pathlib import Path
import stat

import numpy as np
import pytest
from test_training_config import CONFIGURATIONS
import yaml

from vla_policy_node.policy import load_policy
from vla_policy_node.policy import Observation
from vla_policy_node.training.cofinetune import main
from vla_policy_node.training.config import load_config
from vla_policy_node.training.dry_run import stages_table
from vla_policy_node.vla_config import VlaConfig

SMOKE = CONFIGURATIONS / 'smoke.yaml'


@pytest.fixture(scope='module')
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp('smoke')
    out, work = folder / 'checkpoint', folder / 'work'
    assert main(['--config', str(SMOKE), '--out', str(out), '--work', str(work)]) == 0
    return out, work


def _records(work: Path) -> list[dict]:
    return [json.loads(line) for line in (work / 'log.jsonl').read_text().splitlines()]


@pytest.mark.integration
def test_the_losses_fall(trained: tuple[Path, Path]) -> None:
    steps = [record for record in _records(trained[1]) if 'step' in record]
    aligned = [r['loss']['alignment'] for r in steps if r['stage'] == 'align']
    robot = [r['loss']['robot'] for r in steps if r['stage'] == 'mix']
    assert aligned[-1] < aligned[0]
    assert robot[-1] < robot[0]


@pytest.mark.integration
@pytest.mark.parametrize('quantization', ['none', 'nf4'])
def test_the_folder_loads_and_acts(trained: tuple[Path, Path], quantization: str) -> None:
    policy = load_policy(trained[0], quantization=quantization)
    picture = np.full((480, 640, 3), 120, np.uint8)
    chunk = policy.infer(Observation(
        images={'primary': picture}, instruction='pick up the red block'))
    assert chunk.actions.shape == (1, 7) and np.isfinite(chunk.actions).all()
    assert chunk.plan
    policy.close()


@pytest.mark.integration
def test_the_folder_says_where_it_comes_from(trained: tuple[Path, Path]) -> None:
    out, _ = trained
    provenance = json.loads((out / 'provenance.json').read_text())
    assert provenance['seed'] == 0 and len(provenance['frames_sha256']) == 64
    assert load_config(out / 'training_config.yaml') == load_config(SMOKE)
    config = VlaConfig.load(out)
    config.verify_weights(out)
    assert config.norm_stats['smoke'].num_transitions == 56
    assert stat.S_IMODE(os.stat(out / 'model.safetensors').st_mode) == 0o644


@pytest.mark.integration
def test_a_finished_run_is_not_trained_again(trained: tuple[Path, Path]) -> None:
    out, work = trained
    before = len([r for r in _records(work) if 'step' in r])
    assert main(['--config', str(SMOKE), '--out', str(out), '--work', str(work)]) == 0
    assert len([r for r in _records(work) if 'step' in r]) == before


@pytest.mark.integration
def test_a_run_is_not_resumed_with_another_model(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = yaml.safe_load(SMOKE.read_text())
    other = tmp_path / 'other.yaml'
    other.write_text(yaml.safe_dump({**content, 'seed': 5}))
    arguments = ['--config', str(other), '--out', str(tmp_path / 'out'), '--work', str(trained[1])]
    assert main(arguments) == 2
    assert 'another configuration' in ' '.join(capsys.readouterr().err.split())
    assert not (tmp_path / 'out').exists()


@pytest.mark.integration
def test_the_report_shows_what_the_policy_uses(trained: tuple[Path, Path]) -> None:
    page = (trained[1] / 'report.html').read_text()
    for row in ('pictures shuffled', 'colour word swapped', 'commonest bin', 'where side'):
        assert row in page


@pytest.mark.parametrize('recipe', [None, 'cooking'])
def test_a_recipe_is_required(
    recipe: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / 'config.yaml'
    config.write_text(yaml.safe_dump({'recipe': recipe, 'name': 'x'}))
    assert main(['--config', str(config)]) == 2
    error = ' '.join(capsys.readouterr().err.split())
    assert f'recipe: expected one of curriculum, finetune, found {recipe!r}' in error


def test_a_dry_run_reads_labels_back_and_trains_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('COLUMNS', '160')
    assert main(['--config', str(SMOKE.resolve()), '--dry-run']) == 0
    shown = capsys.readouterr().err
    assert 'where is the' in shown and ' mm, gripper ' in shown
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_configuration_is_one_line_and_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(['--config', str(tmp_path / 'no.yaml'), '--out', str(tmp_path / 'out')]) == 2
    error = ' '.join(capsys.readouterr().err.split())
    assert 'no.yaml: expected a configuration, found No such file' in error
    assert not (tmp_path / 'out').exists()


def test_the_mixture_is_shown_before_training() -> None:
    table = stages_table(load_config(SMOKE))
    assert list(table.columns[0].cells) == [
        'align', 'point', 'more-scenes', 'own-states', 'mix']
    assert 'robot 60%, questions 40%' in list(table.columns[5].cells)
