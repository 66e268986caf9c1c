"""
Parameters declared from a table, with every value checked before a node does anything.

rclpy ignores an unknown parameter of a YAML file without a word; a mistyped limit would then
keep its default. Here it is an error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
import difflib
from types import SimpleNamespace
from typing import Any

from rcl_interfaces.msg import FloatingPointRange
from rcl_interfaces.msg import IntegerRange
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

# Overrides that rclpy itself reads.
_ROS_PREFIXES = ('qos_overrides.', 'start_type_description_service')


class ParameterError(ValueError):
    """A parameter that the node does not know or whose value it refuses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """
    One parameter of a node.

    :param name: as in the YAML file.
    :param default: the value where nothing else is given; its type is the parameter's type.
    :param description: what it does, with the unit in square brackets.
    :param minimum: smallest value, inclusive; None for parameters without a range.
    :param maximum: largest value, inclusive.
    :param choices: the only strings allowed; empty for any.
    :param size: the number of elements of an array; None for any.
    """

    name: str
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    size: int | None = None

    def descriptor(self) -> ParameterDescriptor:
        """Return the text and range that `ros2 param describe` shows; all are read-only."""
        descriptor = ParameterDescriptor(description=self.description, read_only=True)
        if self.choices:
            descriptor.additional_constraints = 'one of ' + self._choices_text()
        if self.minimum is not None and isinstance(self.default, (int, float)):
            if isinstance(self.default, float):
                descriptor.floating_point_range = [FloatingPointRange(
                    from_value=float(self.minimum), to_value=float(self.maximum), step=0.0)]
            else:
                descriptor.integer_range = [IntegerRange(
                    from_value=int(self.minimum), to_value=int(self.maximum), step=1)]
        return descriptor

    def check(self, value: Any) -> None:
        """Raise ParameterError unless the value is of this parameter's type and range."""
        if type(value) is not type(self.default):
            raise ParameterError(
                f'parameter {self.name}: expected {_type_text(self.default)} such as'
                f' {self.default!r}, found {value!r}')
        if self.choices and value not in self.choices:
            raise ParameterError(
                f'parameter {self.name}: expected one of {self._choices_text()}, found {value!r}')
        if self.size is not None and len(value) != self.size:
            raise ParameterError(
                f'parameter {self.name}: expected {self.size} values, found {len(value)}')
        if self.minimum is not None:
            self._check_range(value if isinstance(value, list) else [value])

    def _choices_text(self) -> str:
        return ', '.join(choice or "''" for choice in self.choices)

    def _check_range(self, values: Sequence[float]) -> None:
        for value in values:
            # The comparison is written so that NaN is refused too.
            if not self.minimum <= value <= self.maximum:
                raise ParameterError(
                    f'parameter {self.name}: expected {self.minimum} to {self.maximum},'
                    f' found {value}')


def declare(node: Node, table: Sequence[Declared]) -> SimpleNamespace:
    """
    Declare every parameter of the table and return the values by name.

    :raises ParameterError: one line naming the parameter, what was expected and what was found.
    """
    overrides = node._parameter_overrides
    _check_known(overrides, {entry.name for entry in table})
    values = SimpleNamespace()
    for entry in table:
        if entry.name in overrides:
            value = _as_declared(overrides[entry.name].value, entry.default)
            entry.check(value)
            overrides[entry.name] = Parameter(entry.name, value=value)
        try:
            parameter = node.declare_parameter(entry.name, entry.default, entry.descriptor())
        except (InvalidParameterTypeException, InvalidParameterValueException) as error:
            raise ParameterError(f'parameter {entry.name}: {error}') from error
        value = parameter.value
        setattr(values, entry.name, value if isinstance(value, str) else _plain(value))
    return values


def _plain(value: Any) -> Any:
    return list(value) if hasattr(value, 'tolist') else value


def _as_declared(value: Any, default: Any) -> Any:
    """Return arrays as lists, and whole numbers as floats where a float is declared."""
    value = _plain(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, list) and isinstance(value, list):
        return [_as_declared(item, default[0]) for item in value]
    return value


def _check_known(overrides: dict[str, Any], declared: set[str]) -> None:
    for name in overrides:
        if name == 'use_sim_time' or name in declared or name.startswith(_ROS_PREFIXES):
            continue
        near = difflib.get_close_matches(name, declared, n=1)
        hint = f'did you mean {near[0]!r}?' if near else f'known: {", ".join(sorted(declared))}'
        raise ParameterError(f'parameter {name!r} is unknown to this node; {hint}')


def _type_text(value: Any) -> str:
    names = {bool: 'a boolean', int: 'an integer', float: 'a number', str: 'a string',
             list: 'a list'}
    return names[type(value)]
