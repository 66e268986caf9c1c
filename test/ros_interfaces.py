"""
Interfaces that only ROS installations have, for tests on machines without one.

Where moveit_msgs and control_msgs are installed, those are used. Elsewhere the few types that the
adapters speak are generated once, with the fields of the real ones, and kept in the build folder.
"""

import ctypes
import fcntl
import hashlib
import importlib.util
import json
import os
from pathlib import Path
import subprocess
import sys

FOLDER = Path(__file__).resolve().parent.parent / 'build' / 'test_interfaces'

_GRIPPER = 'float64 position\nfloat64 effort\nbool stalled\nbool reached_goal\n'
_DEFINITIONS = {
    'moveit_msgs': {
        'msg/ServoStatus.msg': 'int8 code\nstring message\n',
        'srv/ServoCommandType.srv': 'int8 command_type\n---\nbool success\n',
    },
    'control_msgs': {
        'msg/GripperCommand.msg': 'float64 position\nfloat64 max_effort\n',
        'action/GripperCommand.action':
            f'control_msgs/GripperCommand command\n---\n{_GRIPPER}---\n{_GRIPPER}',
        'action/ParallelGripperCommand.action':
            'sensor_msgs/JointState command\n---\nsensor_msgs/JointState state\nbool stalled\n'
            'bool reached_goal\n---\nsensor_msgs/JointState state\n',
    },
}

_PACKAGE = """<?xml version="1.0"?>
<package format="3">
  <name>{name}</name>
  <version>0.0.0</version>
  <description>Some interfaces of {name}, for tests.</description>
  <maintainer email="vla-policy-node@example.org">vla_policy_node maintainers</maintainer>
  <license>Apache-2.0</license>
  <member_of_group>rosidl_interface_packages</member_of_group>
  <export><build_type>ament_cmake</build_type></export>
</package>
"""
_CMAKE = """cmake_minimum_required(VERSION 3.20)
project({name})
find_package(ament_cmake REQUIRED)
find_package(rosidl_default_generators REQUIRED)
find_package(sensor_msgs REQUIRED)
rosidl_generate_interfaces({name} {files} DEPENDENCIES sensor_msgs)
ament_package()
"""


def provide() -> None:
    """Make moveit_msgs and control_msgs importable; the first time that takes a while."""
    missing = [name for name in _DEFINITIONS if importlib.util.find_spec(name) is None]
    if missing:
        folder = FOLDER / _digest()
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / 'lock').open('w') as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / 'done').exists():
                _build(folder)
        for name in missing:
            _load(folder / 'install' / name)


def _digest() -> str:
    text = json.dumps([_DEFINITIONS, _PACKAGE, _CMAKE, sys.version, sys.prefix])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _build(folder: Path) -> None:
    for name, files in _DEFINITIONS.items():
        package = folder / 'src' / name
        for path, text in files.items():
            (package / path).parent.mkdir(parents=True, exist_ok=True)
            (package / path).write_text(text)
        (package / 'package.xml').write_text(_PACKAGE.format(name=name))
        (package / 'CMakeLists.txt').write_text(_CMAKE.format(name=name, files=' '.join(files)))
    subprocess.run(
        [sys.executable, '-m', 'colcon', '--log-base', 'log', 'build', '--base-paths', 'src',
         '--cmake-args', '-DBUILD_TESTING=OFF', '-DCMAKE_C_FLAGS=-O0', '-DCMAKE_CXX_FLAGS=-O0'],
        cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (folder / 'done').touch()


def _load(prefix: Path) -> None:
    [packages] = prefix.glob('lib/python*/site-packages')
    sys.path.insert(0, str(packages))
    # Read anew whenever a type support is looked for; the linker read it at start only.
    for variable, path in (('AMENT_PREFIX_PATH', prefix), ('LD_LIBRARY_PATH', prefix / 'lib')):
        os.environ[variable] = f'{path}{os.pathsep}{os.environ.get(variable, "")}'
    _load_libraries(sorted((prefix / 'lib').glob('*.so')))


def _load_libraries(paths: list[Path]) -> None:
    """Load libraries that depend on each other, for whoever asks for them by name later."""
    while paths:
        left = [path for path in paths if not _loads(path)]
        assert len(left) < len(paths), f'expected to load {left}'
        paths = left


def _loads(path: Path) -> bool:
    try:
        ctypes.CDLL(str(path))
    except OSError:
        return False
    return True
