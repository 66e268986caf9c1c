"""A policy can be tuned on what bags were converted to."""

from pathlib import Path

from convert_fakes import actions
from convert_fakes import FakeEpisode
from convert_fakes import FakeRecorded
import pytest
import yaml

from vla_policy_node.training import cofinetune
from vla_policy_node.training.convert.to_lerobot import write_lerobot

ROOT = Path(__file__).resolve().parents[1]


def test_a_dry_run_reads_labels_of_a_converted_data_set_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:
    episodes = [FakeEpisode(actions(6, seed), size=(120, 160)) for seed in range(3)]
    write_lerobot(tmp_path / 'own', FakeRecorded(episodes), fps=5)
    content = {
        'recipe': 'finetune', 'name': 'own', 'base': str(ROOT / 'models/tabletop'),
        'sources': {'own': {
            'kind': 'lerobot', 'path': str(tmp_path / 'own'),
            'cameras': {'primary': 'observation.images.primary'},
            'actions': {'mode': 'delta', 'translation': {'indices': [0, 1, 2]},
                        'rotation': {'indices': [3, 4, 5]}, 'gripper': {'index': 6}}}},
        'action': {'scheme': 'added', 'period_s': 0.2}, 'mixture': {'temperature': 1.0},
        'tuning': {'method': 'lora', 'rank': 4, 'alpha': 8},
        'training': {'steps': 2, 'batch_size': 4, 'lr': 1e-3, 'precision': 'fp32', 'workers': 0},
        'validation': {'share': 0.0}}
    (tmp_path / 'own.yaml').write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('COLUMNS', '160')
    assert cofinetune.main(['--config', 'own.yaml', '--dry-run']) == 0, capsys.readouterr().err
    shown = capsys.readouterr().err
    assert 'own: the first prompt is' in shown
    assert 'pick up the red block' in shown
    assert ' mm' in shown
