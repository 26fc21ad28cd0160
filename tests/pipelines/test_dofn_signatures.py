"""What Beam finds out about DoFns is remembered for their classes, and is still right."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms import core, userstate
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from pipelines.beam_fixes import signatures


@pytest.fixture(autouse=True)
def _mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "get_function_args_defaults", core.get_function_args_defaults)
    monkeypatch.setattr(userstate, "get_dofn_specs", userstate.get_dofn_specs)
    signatures.mend()
    signatures.mend()


_TOTAL = beam.DoFn.StateParam(ReadModifyWriteStateSpec("total", VarIntCoder()))
_SEEN = beam.DoFn.StateParam(ReadModifyWriteStateSpec("seen", VarIntCoder()))


class Sum(beam.DoFn):
    def process(self, element: tuple[str, int], total: Any = _TOTAL) -> Iterator[int]:
        total.write((total.read() or 0) + element[1])
        yield total.read()


class Plain(beam.DoFn):
    def process(self, element: int, factor: int = 2) -> Iterator[int]:
        yield element * factor


def test_state_is_found_for_the_class_that_has_it_alone() -> None:
    for _ in range(2):
        assert [spec.name for spec in userstate.get_dofn_specs(Sum())[0]] == ["total"]
        assert userstate.get_dofn_specs(Plain()) == (set(), set())


def test_what_is_remembered_is_not_changed_by_who_gets_it() -> None:
    userstate.get_dofn_specs(Sum())[0].clear()
    names, defaults = core.get_function_args_defaults(Plain().process)
    names.clear()
    defaults.clear()
    assert userstate.is_stateful_dofn(Sum())
    assert core.get_function_args_defaults(Plain().process) == (["element", "factor"], [2])


def test_methods_that_the_same_class_wraps_are_not_taken_for_each_other() -> None:
    wrapped = [core.CallableWrapperDoFn(method) for method in (Plain().process, Sum().process, Plain().process)]
    assert [userstate.is_stateful_dofn(dofn) for dofn in wrapped] == [False, True, False]


def test_a_method_that_only_one_object_has_is_seen() -> None:
    assert not userstate.is_stateful_dofn(Plain())
    one = Plain()
    one.process = Sum().process  # type: ignore[method-assign]
    assert userstate.is_stateful_dofn(one)


def test_a_method_is_inspected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    class New(beam.DoFn):
        def process(self, element: Any) -> None:
            """Does nothing."""

    inspected: list[str] = []
    signature: Callable[..., inspect.Signature] = inspect.signature

    def counted(function: Any, **options: Any) -> inspect.Signature:
        inspected.append(getattr(function, "__qualname__", ""))
        return signature(function, **options)

    monkeypatch.setattr(inspect, "signature", counted)
    for _ in range(3):
        userstate.validate_stateful_dofn(New())
    assert len([name for name in inspected if name.endswith("New.process")]) == 1


def test_pipelines_with_and_without_state_run() -> None:
    with beam.Pipeline("FnApiRunner", PipelineOptions([])) as pipeline:
        totals = pipeline | beam.Create([("a", 1), ("a", 2), ("b", 5)]) | beam.ParDo(Sum())
        doubled = totals | beam.ParDo(Plain())
        assert_that(doubled, equal_to([2, 6, 10]))
