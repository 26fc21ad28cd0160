"""Remembers what Beam finds out about DoFns by inspecting their methods.

Beam looks for state and timers in the signatures of all methods of a DoFn, some eight times for each step of a
pipeline, and again in each worker. In a run of two million rows on two cores that is a tenth of the time. What the
methods of a class take does not change.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.transforms import core, userstate

_inspected: Callable[[Any], tuple[list[str], list[Any]]] = core.get_function_args_defaults
_searched: Callable[[Any], tuple[set[Any], set[Any]]] = userstate.get_dofn_specs
_specs_by_class: WeakKeyDictionary[type, tuple[set[Any], set[Any]]] = WeakKeyDictionary()


def mend() -> None:
    """Makes Beam inspect each method, and search each class, once in this process. May be called again."""
    core.get_function_args_defaults = _arguments
    userstate.get_dofn_specs = _specs


def _arguments(function: Any) -> tuple[list[str], list[Any]]:
    """Returns the names of a function's arguments, and their defaults."""
    if not isinstance(function, MethodType) or not isinstance(function.__func__, FunctionType):
        return _inspected(function)
    names, defaults = _arguments_of_method(function.__func__)
    return list(names), list(defaults)


@functools.lru_cache(maxsize=4096)
def _arguments_of_method(function: FunctionType) -> tuple[list[str], list[Any]]:
    return _inspected(MethodType(function, function))


def _specs(dofn: Any) -> tuple[set[Any], set[Any]]:
    """Returns the state and the timers of a DoFn."""
    if any(isinstance(value, MethodType) for value in vars(dofn).values()):
        return _searched(dofn)  # it has methods that its class has not
    if type(dofn) not in _specs_by_class:
        _specs_by_class[type(dofn)] = _searched(dofn)
    states, timers = _specs_by_class[type(dofn)]
    return set(states), set(timers)
