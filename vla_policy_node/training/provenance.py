"""What a run was made with: package versions and the processor."""

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
import platform


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Return the versions of Python and of installed packages."""
    return {'python': platform.python_version(), **{name: version(name) for name in packages}}


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.machine()
