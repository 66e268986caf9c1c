"""Configuration files: what is wrong with one is a line that names it."""

import pytest

from vla_policy_node.yaml_file import read_mapping


def test_keys_and_values_are_read(tmp_path):
    path = tmp_path / 'run.yaml'
    path.write_text('name: drawer\nseed: 3\n')
    assert read_mapping(path, examples='config/training') == {'name': 'drawer', 'seed': 3}


@pytest.mark.parametrize(('content', 'found'), [
    (None, 'expected a configuration, found No such file'),
    ('a: [', 'expected YAML, found'),
    ('- a\n- b\n', 'expected keys and values, found list; see config/training'),
])
def test_what_is_no_configuration_is_one_line(tmp_path, content, found):
    path = tmp_path / 'run.yaml'
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=found) as caught:
        read_mapping(path, examples='config/training')
    assert str(caught.value).startswith(f'{path}: ')
    assert '\n' not in str(caught.value)
