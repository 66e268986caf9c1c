"""
What a checkpoint folder may consist of, looked at before any of its files is opened.

A checkpoint comes from somebody else: it is data, it is all in one place, and it is of a size
that can be read. Knows nothing of torch.
"""

from collections.abc import Iterator
import os
from pathlib import Path

from vla_policy_node.policy.types import PolicyError

# Unpickling runs code of whoever wrote the file, so these are refused even beside safetensors.
PICKLE_SUFFIXES = ('.bin', '.ckpt', '.joblib', '.pickle', '.pkl', '.pt', '.pth')
# Read as a whole. The largest tokenizers have about 35 MB.
_TEXT_SUFFIXES = ('.jinja', '.json', '.model', '.txt')
_MOST_TEXT_BYTES = 128 << 20


def check_folder(directory: Path) -> None:
    """
    Raise PolicyError naming the first thing that no checkpoint has.

    These are pickles, links that lead out of the folder (but for those of the hub's cache, which
    lead to its own blobs), entries that are neither files nor folders, and oversized text.
    Nothing is said of a folder that is not there.
    """
    if not directory.is_dir():
        return
    pickles = [path.name for path in directory.iterdir()
               if path.suffix.lower() in PICKLE_SUFFIXES]
    if pickles:
        raise PolicyError(
            f'{directory} holds pickle files ({", ".join(sorted(pickles))}), which can run code '
            'when loaded; convert the weights to safetensors and remove these files'
        )
    homes = _homes(directory.resolve())
    for path in _entries(directory):
        if path.is_symlink():
            _check_link(path, homes)
        _check_entry(path)


def _homes(directory: Path) -> tuple[Path, ...]:
    """Return where files of a resolved folder may be: in it, or where the hub's cache has them."""
    if directory.parent.name == 'snapshots':
        return directory, directory.parent.parent / 'blobs'
    return (directory,)


def _entries(directory: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(directory):
        for name in sorted(folders + files):
            yield Path(parent, name)


def _check_link(path: Path, homes: tuple[Path, ...]) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:  # Before Python 3.13 a loop is a RuntimeError.
        raise PolicyError(f'{path} is a link that leads nowhere; copy the file it stands for '
                          'into the folder') from error
    if not any(target.is_relative_to(home) for home in homes):
        raise PolicyError(f'{path} is a link out of the folder, to {str(target)[:200]}; copy '
                          'what it stands for into the folder')


def _check_entry(path: Path) -> None:
    if path.is_dir():
        return
    if not path.is_file():
        raise PolicyError(f'expected {path} to be a file or a folder, found a pipe, a device or '
                          'the like; remove it')
    size = path.stat().st_size
    if path.suffix in _TEXT_SUFFIXES and size > _MOST_TEXT_BYTES:
        raise PolicyError(f'expected {path} to have at most {_MOST_TEXT_BYTES} bytes, found '
                          f'{size}; copy or download it again')
