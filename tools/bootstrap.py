"""Set up .venv for this repository, on a bare machine or beside a sourced ROS 2.

Run by `make`; standard library only. Checks the interpreter and the system libraries, creates the
virtual environment, installs the pinned requirements and mends the ROS wheels. Does nothing, in
well under a second, while the environment is as these files ask.
"""

from __future__ import annotations

import ctypes
import glob
import hashlib
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import sysconfig

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / '.venv'
VENV_PYTHON = VENV / 'bin' / 'python'
# Holds the key of the finished set-up; `make` rebuilds the packages when it changes.
STAMP = VENV / '.ready'
OLDEST, NEWEST = (3, 10), (3, 13)
# Folders of the machine the ROS wheels were built on, named in their exported CMake files.
FOREIGN_PYTHON = re.compile(r'/opt/python/cp\d+-cp\d+/include/python3\.\d+')
FOREIGN_NUMPY = re.compile(
    r'/opt/python/cp\d+-cp\d+/lib/python3\.\d+/site-packages/numpy/_core/include'
)


class SetupError(Exception):
    """What is missing and the command that mends it, in one line."""


def main() -> int:
    distro = os.environ.get('ROS_DISTRO', '')
    try:
        check_python(sys.version_info[:2])
        if is_ready(distro):
            return 0
        provide_system_packages(missing_system_packages(distro), is_root=os.geteuid() == 0)
        create_venv(distro)
        install_requirements(distro)
        if not distro:
            mend_ros_wheels(VENV)
    except SetupError as error:
        print(f'set-up: {error}', file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f'set-up: `{" ".join(error.cmd)}` failed; see its output above', file=sys.stderr)
        return 1
    STAMP.write_text(setup_key(distro))
    return 0


def check_python(version: tuple[int, int]) -> None:
    """Refuse a Python that the pinned requirements have no wheels for."""
    if not OLDEST <= version <= NEWEST:
        raise SetupError(
            f'expected Python 3.10 to 3.13, found {version[0]}.{version[1]} at {sys.executable}; '
            'name another one: make PYTHON=python3.12'
        )


def requirement_files(distro: str) -> list[Path]:
    names = ['tools.txt', 'runtime.txt'] + ([] if distro else ['ros-wheels.txt'])
    return [ROOT / 'requirements' / name for name in names]


def environment_key(distro: str) -> str:
    """Name what a virtual environment cannot change after it was made."""
    return f'{distro or "wheels"} {sys.version_info[0]}.{sys.version_info[1]} {VENV}'


def setup_key(distro: str) -> str:
    """Name everything the set-up depends on: environment_key, then a hash of the files."""
    digest = hashlib.sha256()
    for path in [*requirement_files(distro), Path(__file__)]:
        digest.update(path.read_bytes())
    return f'{environment_key(distro)}\n{digest.hexdigest()}\n'


def is_ready(distro: str) -> bool:
    return STAMP.exists() and STAMP.read_text() == setup_key(distro) and VENV_PYTHON.exists()


def can_load(*libraries: str) -> bool:
    """Tell whether any of the shared libraries loads."""
    for name in libraries:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def has_offscreen_gl() -> bool:
    """Tell whether MuJoCo can render without a display: EGL with a driver, or OSMesa."""
    mesa = can_load('libEGL_mesa.so.0') and bool(
        glob.glob('/usr/lib/*/dri/*_dri.so') + glob.glob('/usr/lib*/dri/*_dri.so')
    )
    egl = can_load('libEGL.so.1') and (mesa or can_load('libEGL_nvidia.so.0'))
    return (egl and can_load('libOpenGL.so.0', 'libGL.so.1')) or can_load('libOSMesa.so.8')


def has_module(name: str) -> bool:
    """Tell whether this interpreter imports a module, in a process of its own."""
    command = [sys.executable, '-c', f'import {name}']
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def missing_system_packages(distro: str) -> list[str]:
    """List the apt packages to install, by what the machine cannot do without them."""
    python = f'python{sys.version_info[0]}.{sys.version_info[1]}'
    missing = []
    if not has_offscreen_gl():
        missing += ['libegl1', 'libegl-mesa0', 'libgl1', 'libgl1-mesa-dri', 'libopengl0']
    if not (shutil.which('cc') and shutil.which('c++')):
        missing.append('build-essential')
    if not Path(sysconfig.get_paths()['include'], 'Python.h').exists():
        missing.append(f'{python}-dev')
    if not (has_module('venv') and has_module('ensurepip')):
        missing.append(f'{python}-venv')
    if distro:
        missing += missing_ros_packages(distro)
    return missing


def missing_ros_packages(distro: str) -> list[str]:
    """List what a ROS installation lacks; elsewhere wheels stand in for these."""
    if not has_module('rclpy'):
        raise SetupError(
            f'ROS 2 {distro} is sourced but {sys.executable} cannot import rclpy; '
            'use the interpreter ROS was built for: make PYTHON=/usr/bin/python3'
        )
    packages = {
        'cv2': 'python3-opencv',
        'cv_bridge': f'ros-{distro}-cv-bridge',
        'launch_ros': f'ros-{distro}-launch-ros',
    }
    missing = [package for module, package in packages.items() if not has_module(module)]
    return missing + ([] if shutil.which('cmake') else ['cmake'])


def provide_system_packages(packages: list[str], *, is_root: bool) -> None:
    """Install apt packages as root; otherwise stop with the command to run."""
    if not packages:
        return
    if not (is_root and shutil.which('apt-get')):
        raise SetupError(
            f'missing system packages; run: sudo apt-get update && '
            f'sudo apt-get install -y --no-install-recommends {" ".join(packages)}'
        )
    environment = {**os.environ, 'DEBIAN_FRONTEND': 'noninteractive'}
    install = ['apt-get', 'install', '-y', '--no-install-recommends', *packages]
    subprocess.run(['apt-get', 'update'], check=True, env=environment)
    subprocess.run(install, check=True, env=environment)


def create_venv(distro: str) -> None:
    """Create .venv, anew where the interpreter, the ROS or the place is another one.

    A virtual environment without a stamp is one whose set-up was interrupted: it is kept.
    """
    made_for = STAMP.read_text().splitlines()[0] if STAMP.exists() else environment_key(distro)
    if made_for != environment_key(distro):
        print(f'set-up: {made_for!r} is not {environment_key(distro)!r}: starting afresh')
        for folder in (VENV, ROOT / 'build', ROOT / 'install'):
            shutil.rmtree(folder, ignore_errors=True)
    if not VENV_PYTHON.exists():
        print(f'set-up: creating {VENV}', flush=True)
        options = ['--system-site-packages'] if distro else []
        subprocess.run([sys.executable, '-m', 'venv', *options, str(VENV)], check=True)
    (VENV / 'COLCON_IGNORE').touch()


def output_of(code: str) -> str:
    """Run a line of Python in the virtual environment and return what it prints."""
    command = [str(VENV_PYTHON), '-c', code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def install_requirements(distro: str) -> None:
    """Install the pinned requirements; a ROS installation keeps its own NumPy."""
    command = [str(VENV_PYTHON), '-m', 'pip', 'install', '--disable-pip-version-check']
    for path in requirement_files(distro):
        command += ['-r', str(path)]
    if distro:
        # cv_bridge is compiled against the NumPy of the installation.
        constraints = VENV / 'constraints.txt'
        constraints.write_text(f'numpy=={output_of("import numpy; print(numpy.__version__)")}\n')
        command += ['-c', str(constraints)]
    print('set-up: installing the requirements, minutes on the first run', flush=True)
    subprocess.run(command, check=True)


def mend_cmake_text(text: str, *, python: str, numpy: str) -> str:
    """Replace the build machine's include folders by these two."""
    return FOREIGN_NUMPY.sub(numpy, FOREIGN_PYTHON.sub(python, text))


def mend_ros_wheels(venv: Path) -> None:
    """Point the wheels' exported CMake files at this interpreter's include folders."""
    numpy = output_of('import numpy; print(numpy.get_include())')
    python = sysconfig.get_paths()['include']
    for path in sorted(venv.glob('share/**/cmake/*.cmake')):
        text = path.read_text()
        mended = mend_cmake_text(text, python=python, numpy=numpy)
        if mended != text:
            path.write_text(mended)


if __name__ == '__main__':
    sys.exit(main())
