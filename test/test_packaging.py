"""Both packages are found, complete and pinned, and the set-up tells what is missing."""

import ast
import configparser
import importlib.util
from pathlib import Path
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

ROOT = Path(__file__).resolve().parent.parent
SETUP_TEXT = (ROOT / 'setup.py').read_text()


def load_bootstrap():
    spec = importlib.util.spec_from_file_location('bootstrap', ROOT / 'tools' / 'bootstrap.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


bootstrap = load_bootstrap()


def package_version(path: Path) -> str:
    return ElementTree.parse(path).getroot().findtext('version')


def console_scripts() -> dict[str, str]:
    rows = re.findall(r"f'(\w+) = \{PACKAGE\}\.([\w.]+):main'", SETUP_TEXT)
    return dict(rows)


def requirement_lines() -> list[str]:
    texts = [path.read_text() for path in sorted((ROOT / 'requirements').glob('*.txt'))]
    lines = [line.strip() for text in texts for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith('#')]


def test_colcon_finds_both_packages_from_the_root():
    pytest.importorskip('colcon_core')
    command = [sys.executable, '-m', 'colcon', 'list', '--names-only']
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ['vla_msgs', 'vla_policy_node']


def test_the_versions_of_both_packages_and_of_setup_py_are_one():
    versions = {
        package_version(ROOT / 'package.xml'),
        package_version(ROOT / 'vla_msgs' / 'package.xml'),
        re.search(r"version='([^']+)'", SETUP_TEXT).group(1),
    }
    assert len(versions) == 1


def test_every_folder_with_modules_is_installed():
    rooms = re.search(r'ROOMS = (\(.*?\))', SETUP_TEXT, re.DOTALL).group(1)
    package = ROOT / 'vla_policy_node'
    folders = {'.'.join(path.parent.relative_to(package).parts)
               for path in package.glob('*/**/__init__.py')}
    assert set(ast.literal_eval(rooms)) == folders


def test_the_executables_are_the_ones_the_launch_files_and_the_readme_name():
    assert sorted(console_scripts()) == [
        'ask', 'cofinetune', 'controller_node', 'convert', 'demo', 'instruct', 'policy_node',
        'replay', 'simulator_node',
    ]


@pytest.mark.parametrize('script', sorted(console_scripts()))
def test_every_executable_has_a_main_function(script):
    path = ROOT / 'vla_policy_node' / (console_scripts()[script].replace('.', '/') + '.py')
    functions = [node for node in ast.parse(path.read_text()).body
                 if isinstance(node, ast.FunctionDef)]
    assert 'main' in [function.name for function in functions]


def test_executables_are_installed_where_ros2_run_looks_and_start_the_active_python():
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    assert config['install']['install_scripts'] == '$base/lib/vla_policy_node'
    assert config['develop']['script_dir'] == '$base/lib/vla_policy_node'
    assert config['build_scripts']['executable'] == '/usr/bin/env python3'


def test_every_requirement_is_pinned_and_names_no_place_to_download_from():
    for line in requirement_lines():
        assert re.fullmatch(r'[\w.-]+==[\w.]+(; python_version [<>]=? "3\.\d+")?', line), line


@pytest.mark.parametrize('version', [(3, 9), (3, 14), (4, 0)])
def test_a_python_without_wheels_is_refused_in_one_line(version):
    with pytest.raises(bootstrap.SetupError, match=r'expected Python 3\.10 to 3\.13, found'):
        bootstrap.check_python(version)


@pytest.mark.parametrize('version', [(3, 10), (3, 11), (3, 12), (3, 13)])
def test_every_supported_python_is_accepted(version):
    bootstrap.check_python(version)


def test_without_root_the_set_up_stops_with_the_apt_command():
    with pytest.raises(bootstrap.SetupError) as caught:
        bootstrap.provide_system_packages(['libegl1', 'build-essential'], is_root=False)
    assert 'sudo apt-get install -y --no-install-recommends libegl1 build-essential' in str(
        caught.value)
    assert '\n' not in str(caught.value)


def test_nothing_is_asked_for_where_nothing_is_missing():
    bootstrap.provide_system_packages([], is_root=False)


def test_the_exported_cmake_files_of_the_wheels_are_pointed_at_this_interpreter():
    text = ('set(a "/opt/python/cp311-cp311/include/python3.11;/opt/python/cp311-cp311/lib/'
            'python3.11/site-packages/numpy/_core/include;${_IMPORT_PREFIX}/include")')
    mended = bootstrap.mend_cmake_text(text, python='/usr/include/python3.11', numpy='/venv/np')
    assert mended == 'set(a "/usr/include/python3.11;/venv/np;${_IMPORT_PREFIX}/include")'


def test_a_changed_environment_has_another_key():
    assert bootstrap.setup_key('') != bootstrap.setup_key('jazzy')
