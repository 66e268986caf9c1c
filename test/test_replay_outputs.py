"""Results are there completely or not at all, also when the disk is full."""

import errno
from pathlib import Path

import pytest
from replay_fakes import BrightnessPolicy
from replay_fakes import CONFIG
from replay_fakes import write_bag
from rich.console import Console

from vla_policy_node.evaluation.replay import cli
from vla_policy_node.evaluation.replay import job
from vla_policy_node.evaluation.replay.outputs import OutputError
from vla_policy_node.evaluation.replay.outputs import Outputs


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files_appear_together_at_the_end(tmp_path: Path) -> None:
    with Outputs(tmp_path / 'new' / 'out') as outputs:
        outputs.text('a.txt', 'one')
        with outputs.draft('b.bin') as path:
            path.write_bytes(b'two')
        assert not (outputs.folder / 'a.txt').exists()
        assert not (outputs.folder / 'b.bin').exists()
    assert names(tmp_path / 'new' / 'out') == ['a.txt', 'b.bin']
    assert (tmp_path / 'new' / 'out' / 'b.bin').read_bytes() == b'two'


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / 'a.txt').write_text('before')
    with pytest.raises(KeyError), Outputs(tmp_path) as outputs:
        outputs.text('a.txt', 'after')
        raise KeyError('oops')
    assert names(tmp_path) == ['a.txt']
    assert (tmp_path / 'a.txt').read_text() == 'before'


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, Outputs(tmp_path) as outputs:
        outputs.text('a.txt', 'after')
        with outputs.draft('b.txt') as path:
            path.symlink_to('/dev/full')
            path.write_text('two')
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.strerror == (
        f'{tmp_path}: cannot write b.txt: No space left on device; no result was replaced or left '
        'half-written, free some space and run again')
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    with pytest.raises(OutputError, match='give another folder with --out'), \
            Outputs(tmp_path / 'file' / 'out'):
        raise AssertionError('never entered')


@pytest.mark.parametrize('name', ['summary.json', 'report.html', 'predictions.mcap'])
def test_a_replay_onto_a_full_disk_keeps_the_earlier_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, name: str,
) -> None:
    (tmp_path / 'replay.yaml').write_text(CONFIG)
    bag = write_bag(tmp_path / 'bag', [10, 20])
    out = tmp_path / 'out'
    out.mkdir()
    (out / name).write_text('earlier')
    full = _FullFor(name)
    monkeypatch.setattr(Path, 'write_text', full.guard(Path.write_text))
    monkeypatch.setattr(job, 'write_predictions', full.guard(job.write_predictions))
    monkeypatch.setattr(cli, 'ReplayJob', lambda asked, _: job.ReplayJob(
        asked, Console(quiet=True), load=lambda *_, **__: BrightnessPolicy()))
    status = cli.main([str(bag), '--checkpoint', 'c', '--config', str(tmp_path / 'replay.yaml'),
                       '--out', str(out)])
    assert status == 1
    line = capsys.readouterr().err.strip()
    assert line.startswith(f'replay: {out}: cannot write {name}: No space left on device;')
    assert '\n' not in line
    assert names(out) == [name]
    assert (out / name).read_bytes() == b'earlier'


class _FullFor:
    """A disk that has no room for one file."""

    def __init__(self, name: str) -> None:
        self._name = name

    def guard(self, write):
        def guarded(path: Path, *arguments, **options):
            if path.name == self._name:
                path.write_bytes(b'half')
                raise OSError(errno.ENOSPC, 'No space left on device', str(path))
            return write(path, *arguments, **options)
        return guarded
