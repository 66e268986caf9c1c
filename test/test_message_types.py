"""Bags can be written with and without an installed workspace."""

from pathlib import Path

import pytest

from vla_policy_node import message_types

ROOT = Path(__file__).resolve().parents[1]


def test_without_a_workspace_the_definitions_are_those_of_the_sources(monkeypatch):
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    assert message_types.interface_directory() == ROOT / 'vla_msgs/msg'


def test_an_installed_workspace_comes_first(monkeypatch, tmp_path):
    folder = tmp_path / 'share/vla_msgs/msg'
    folder.mkdir(parents=True)
    (folder / 'A.msg').write_text('bool a\n')
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'/nowhere:{tmp_path}')
    assert message_types.interface_directory() == folder


def test_our_messages_are_known_beside_the_common_ones():
    store = message_types.typestore()
    assert {'vla_msgs/msg/EndEffectorDeltaChunk', 'sensor_msgs/msg/Image'} <= set(store.types)


def test_without_definitions_the_error_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    monkeypatch.setattr(message_types, '__file__', str(tmp_path / 'a/b/message_types.py'))
    with pytest.raises(FileNotFoundError, match='build the workspace and source its setup file'):
        message_types.interface_directory()
