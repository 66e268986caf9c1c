"""A file system without a free byte, seen by one process only and gone with it."""

from pathlib import Path
import shutil
import subprocess

# The namespace belongs to the process: no mount is left, whatever ends it.
_SCRIPT = ('mkdir -p "$0" && mount -t tmpfs -o size=16k tmpfs "$0" && '
           '{ head -c 1M /dev/zero > "$0/filler" 2>/dev/null || true; } && exec "$@"')
_WAYS = (('unshare', '--mount'), ('unshare', '--map-root-user', '--mount'))


def full_disk_prefix(folder: Path) -> list[str]:
    """
    Return what to put before a command for which `folder` is on a full disk.

    :raises OSError: neither root nor a name space of its own is allowed to mount here.
    """
    if shutil.which('unshare'):
        for way in _WAYS:
            prefix = [*way, 'sh', '-c', _SCRIPT, str(folder)]
            if subprocess.run([*prefix, 'true'], capture_output=True).returncode == 0:
                return prefix
    raise OSError('expected the right to mount a file system for one process, found none: run as'
                  ' root or allow user name spaces')
