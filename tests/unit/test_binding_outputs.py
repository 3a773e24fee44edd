"""Outputs: what the return annotation promises, and which output a value goes to."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterable, Iterator
from typing import Annotated, Any, Never

import pytest

from datamesh.depends.binding import Binding, bind
from datamesh.errors import ContractMismatchError, DependencyError, MismatchedIOError
from datamesh.model.task import Task
from datamesh.model.values import IOVal

ONE = Task("one", inputs=["foo"], outputs=["bar"])
TWO = Task("two", inputs=["foo"], outputs=["a", "b"])
NONE = Task("none", inputs=["foo"])


def returning(task: Task, annotation: Any = ...) -> Binding:
    def function(foo: int): ...  # type: ignore[no-untyped-def]

    if annotation is not ...:
        function.__annotations__["return"] = annotation
    return bind(task, function)


def yielding(task: Task, annotation: Any = ...) -> Binding:
    async def function(foo: int):  # type: ignore[no-untyped-def]
        yield foo

    if annotation is not ...:
        function.__annotations__["return"] = annotation
    return bind(task, function)


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (AsyncIterator[IOVal[int]], int),
        (AsyncIterator[int], int),
        (AsyncGenerator[IOVal[int], None], int),
        (AsyncGenerator[int, None], int),
        (Iterator[int], int),
        (Generator[int, None, None], int),
        (Iterable[IOVal[int] | IOVal[str]], int | str),
        (AsyncIterator[IOVal[int] | str], int | str),
        (AsyncIterator[tuple[int, str]], tuple[int, str]),
        (AsyncIterator[int | None], int | None),
        (AsyncIterator[Annotated[IOVal[int], "x"]], int),
        (AsyncIterator, Any),
        (AsyncIterator[IOVal], Any),  # type: ignore[type-arg]
        (Any, Any),
        (..., Any),
    ],
)
def test_what_a_generator_with_one_output_gives(annotation: Any, expected: Any) -> None:
    assert yielding(ONE, annotation).output_types == {"bar": expected}


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, int),
        (IOVal[int], int),
        (IOVal[int] | None, int),
        (int | None, int | None),
        (tuple[IOVal[int], IOVal[str]], int | str),
        (tuple[IOVal[int], ...], int),
        (list[IOVal[int] | IOVal[str]], int | str),
        (tuple[int, str], tuple[int, str]),
        (list[int], list[int]),
        (Iterable[int], Iterable[int]),
        (IOVal[Any] | IOVal[int], Any),
        (None, Any),
        (Any, Any),
        (..., Any),
    ],
)
def test_what_a_function_with_one_output_gives(annotation: Any, expected: Any) -> None:
    assert returning(ONE, annotation).output_types == {"bar": expected}


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [(AsyncIterator[IOVal[int]], int), (AsyncIterator[IOVal[int] | IOVal[str]], int | str), (AsyncIterator[Any], Any)],
)
def test_with_several_outputs_each_may_get_all_that_is_promised(annotation: Any, expected: Any) -> None:
    assert yielding(TWO, annotation).output_types == {"a": expected, "b": expected}


def test_declared_output_types_count_more_and_may_be_among_those_promised() -> None:
    task = Task("t", inputs=["foo"], outputs={"a": int, "b": str})
    assert yielding(task, AsyncIterator[IOVal[int] | IOVal[str]]).output_types == {"a": int, "b": str}
    assert yielding(task).output_types == {"a": int, "b": str}


def test_a_declared_output_type_must_agree() -> None:
    task = Task("t", inputs=["foo"], outputs={"a": int, "b": str})
    with pytest.raises(ContractMismatchError, match="expected str for output 'b', which task 't' declares, found int"):
        yielding(task, AsyncIterator[IOVal[int]])


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (lambda: yielding(ONE, int), r"expected AsyncIterator\[\.\.\.\], found int"),
        (lambda: yielding(ONE, None), "found None"),
        (lambda: returning(ONE, Iterator[int]), "Only a generator fans out"),
        (lambda: returning(ONE, AsyncIterator[int]), "Only a generator fans out"),
        (lambda: returning(TWO, int), r"expected IOVal\[\.\.\.\], found int. Task 'two' has the outputs a, b"),
        (lambda: yielding(TWO, AsyncIterator[int | IOVal[str]]), "found int"),
        (lambda: returning(NONE, int), "expected None, found int. Task 'none' declares no output"),
    ],
)
def test_annotations_that_cannot_work_are_refused(bound: Any, message: str) -> None:
    with pytest.raises(ContractMismatchError, match=message):
        bound()


def test_a_return_annotation_that_does_not_resolve_is_refused() -> None:
    with pytest.raises(DependencyError, match=r"'return'.*'Nowhere' does not resolve"):
        returning(ONE, "Nowhere")


@pytest.mark.parametrize("annotation", [None, Never])
def test_a_function_annotated_none_emits_nothing(annotation: Any) -> None:
    bound = returning(ONE, annotation)
    assert not bound.emits
    assert bound.outputs_of(None) == []
    assert bound.outputs_of(3) == []


def test_a_function_of_a_task_without_outputs_emits_nothing() -> None:
    bound = returning(NONE)
    assert not bound.emits
    assert bound.outputs_of(None) == []
    with pytest.raises(MismatchedIOError):
        bound.outputs_of(3)
    with pytest.raises(MismatchedIOError, match="gave a value for 'x'"):
        bound.outputs_of(IOVal("x", 3))


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (3, [("bar", 3)]),
        (IOVal("bar", 3), [("bar", 3)]),
        (None, [("bar", None)]),
        ([1, 2], [("bar", [1, 2])]),
        ((), [("bar", ())]),
        ([], [("bar", [])]),
        ((IOVal("bar", 1), IOVal("bar", 2)), [("bar", 1), ("bar", 2)]),
        ([IOVal("bar", 1)], [("bar", 1)]),
    ],
)
def test_what_is_returned_with_one_output(result: Any, expected: Any) -> None:
    assert returning(ONE).outputs_of(result) == expected


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (IOVal("b", 3), [("b", 3)]),
        ([IOVal("b", 1), IOVal("a", None)], [("b", 1), ("a", None)]),
        (None, []),
        ([], []),
        ((), []),
    ],
)
def test_what_is_returned_with_several_outputs(result: Any, expected: Any) -> None:
    assert returning(TWO).outputs_of(result) == expected


@pytest.mark.parametrize("result", [3, [1, 2], [IOVal("a", 1), 2], {}])
def test_a_bare_value_with_several_outputs_is_refused(result: Any) -> None:
    with pytest.raises(MismatchedIOError, match="gave a bare value though it has 2 outputs"):
        returning(TWO).outputs_of(result)


def test_none_beside_iovals_is_nothing_and_beside_values_a_value() -> None:
    assert returning(ONE, IOVal[int] | None).outputs_of(None) == []
    assert returning(ONE, tuple[IOVal[int], ...] | None).outputs_of(None) == []
    assert returning(ONE, int | None).outputs_of(None) == [("bar", None)]


@pytest.mark.parametrize("given", [3, None, [1, 2], (IOVal("bar", 1),)])
def test_a_bare_value_yielded_goes_to_the_one_output(given: Any) -> None:
    assert yielding(ONE).output_of(given) == ("bar", given)


def test_what_is_yielded_by_name() -> None:
    assert yielding(TWO).output_of(IOVal("b", 3)) == ("b", 3)
    with pytest.raises(MismatchedIOError, match=r"gave a value for 'c'.*outputs are a, b") as caught:
        yielding(TWO).output_of(IOVal("c", 3))
    assert caught.value.output == "c"
    with pytest.raises(MismatchedIOError, match="bare value"):
        yielding(TWO).output_of(3)
