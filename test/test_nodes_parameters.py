"""Every value of a parameter file is checked before a node does anything."""

import math
from pathlib import Path

import pytest
import yaml

pytest.importorskip('rclpy')

from nodes_bench import overrides  # noqa: E402
import rclpy  # noqa: E402
from rclpy.node import Node  # noqa: E402

from vla_policy_node.nodes import controller_parameters  # noqa: E402
from vla_policy_node.nodes import parameters  # noqa: E402
from vla_policy_node.nodes import policy_parameters  # noqa: E402
from vla_policy_node.nodes import simulator_parameters  # noqa: E402
from vla_policy_node.nodes.parameters import Declared  # noqa: E402
from vla_policy_node.nodes.parameters import ParameterError  # noqa: E402

CONFIG = Path(__file__).resolve().parents[1] / 'config'
TABLES = {
    'policy_node': policy_parameters.PARAMETERS,
    'controller_node': controller_parameters.PARAMETERS,
    'simulator_node': simulator_parameters.PARAMETERS,
}
TABLE = (
    Declared(name='speed_mps', default=0.5, description='Speed [m/s].', minimum=0.0, maximum=1.0),
    Declared(name='steps', default=3, description='Steps.', minimum=1, maximum=9),
    Declared(name='mode', default='a', description='Mode.', choices=('', 'a', 'b')),
    Declared(name='corner_m', default=[0.0, 0.0, 0.0], description='Corner [m].', size=3,
             minimum=-1.0, maximum=1.0),
)


@pytest.fixture
def declare():
    rclpy.init()
    nodes = []

    def declare(**values):
        nodes.append(Node('n', parameter_overrides=overrides(**values)))
        return parameters.declare(nodes[-1], TABLE)
    declare.nodes = nodes
    yield declare
    for node in nodes:
        node.destroy_node()
    rclpy.try_shutdown()


def test_defaults_hold_where_nothing_is_given(declare):
    values = declare()
    assert (values.speed_mps, values.steps, values.mode) == (0.5, 3, 'a')
    assert values.corner_m == [0.0, 0.0, 0.0]


def test_given_values_replace_the_defaults(declare):
    values = declare(speed_mps=0.25, mode='b', corner_m=[0.1, 0.2, 0.3])
    assert (values.speed_mps, values.mode, values.corner_m) == (0.25, 'b', [0.1, 0.2, 0.3])


def test_a_whole_number_is_accepted_for_a_float(declare):
    values = declare(speed_mps=1, corner_m=[0, 0, 1])
    assert values.speed_mps == 1.0
    assert values.corner_m == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(('values', 'message'), [
    ({'sped_mps': 0.1}, "'sped_mps' is unknown to this node; did you mean 'speed_mps'"),
    ({'zzz': 0.1}, 'known: corner_m, mode, speed_mps, steps'),
    ({'speed_mps': 1.5}, 'speed_mps: expected 0.0 to 1.0, found 1.5'),
    ({'speed_mps': math.nan}, 'speed_mps: expected 0.0 to 1.0, found nan'),
    ({'speed_mps': 'fast'}, "speed_mps: expected a number such as 0.5, found 'fast'"),
    ({'steps': 0}, 'steps: expected 1 to 9, found 0'),
    ({'steps': 2.5}, 'steps: expected an integer such as 3, found 2.5'),
    ({'mode': 'c'}, "mode: expected one of '', a, b, found 'c'"),
    ({'corner_m': [0.1, 0.2]}, 'corner_m: expected 3 values, found 2'),
    ({'corner_m': [0.1, 0.2, 5.0]}, 'corner_m: expected -1.0 to 1.0, found 5.0'),
])
def test_a_bad_parameter_is_refused_with_one_line(declare, values, message):
    with pytest.raises(ParameterError) as error:
        declare(**values)
    assert message in str(error.value)
    assert '\n' not in str(error.value)


def test_parameters_cannot_be_changed_later_and_describe_themselves(declare):
    declare()
    node = declare.nodes[0]
    [outcome] = node.set_parameters(overrides(speed_mps=0.75))
    assert not outcome.successful
    assert node.describe_parameter('speed_mps').description == 'Speed [m/s].'
    assert node.describe_parameter('speed_mps').floating_point_range[0].to_value == 1.0


@pytest.mark.parametrize('name', TABLES)
def test_the_yaml_file_holds_the_defaults_of_the_code(name):
    written = yaml.safe_load((CONFIG / f'{name}.yaml').read_text())['/**']['ros__parameters']
    declared = {entry.name: entry.default for entry in TABLES[name]}
    assert written == declared
    assert {key: type(value) for key, value in written.items()} == {
        key: type(value) for key, value in declared.items()}


@pytest.mark.parametrize('name', TABLES)
def test_every_default_is_within_its_own_range(name):
    for entry in TABLES[name]:
        entry.check(entry.default)


def test_every_limit_of_the_controller_is_a_parameter():
    from dataclasses import fields

    from vla_policy_node.control import ControlParameters
    derived = {'command_period_s', 'pose_output'}
    limits = {entry.name for entry in fields(ControlParameters)} - derived
    assert limits <= {entry.name for entry in controller_parameters.PARAMETERS}
