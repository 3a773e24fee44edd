"""Binding: what is known, and what is refused, when a function is registered for a task."""

import functools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest

from datamesh.depends.binding import Binding, bind
from datamesh.depends.context import Context
from datamesh.depends.markers import Depends
from datamesh.depends.scopes import RunScope, ServiceScope
from datamesh.errors import ConfigurationError, ContractMismatchError, DependencyError
from datamesh.model.io import IO
from datamesh.model.modes import Form, Mode
from datamesh.model.policies import Batch, Retry
from datamesh.model.task import Task
from datamesh.model.values import IOVal


def get_multiplier() -> int:
    return 2


foobar = Task(name="foobar", inputs=["foo"], outputs=["bar"])


async def first_program(foo: IO[int], multiplier: Annotated[int, Depends(get_multiplier)]) -> AsyncIterator[IOVal[int]]:
    for i in range(await foo.first()):
        yield IOVal(name="bar", value=i * multiplier)


async def coroutine(foo: int) -> int:
    return foo


def generator(foo: int) -> Iterator[int]:
    yield foo


def plain(foo: int) -> int:
    return foo


class Callable_:
    async def __call__(self, foo: int) -> int:
        return foo

    def method(self, foo: int) -> Iterator[int]:
        yield foo


def test_the_first_program() -> None:
    bound = bind(foobar, first_program)
    assert (bound.mode, bound.form) == (Mode.STREAM, Form.ASYNC_GENERATOR)
    assert bound.function is first_program
    assert bound.input_types == {"foo": int}
    assert bound.output_types == {"bar": int}
    assert bound.plan.solve_now(RunScope(ServiceScope())) == {"multiplier": 2}
    assert bound.ref == "foobar@1"
    assert bound.describe() == f"task foobar@1 by {__name__}.first_program (stream, async generator)"


@pytest.mark.parametrize(
    ("function", "form"),
    [
        (first_program, Form.ASYNC_GENERATOR),
        (coroutine, Form.COROUTINE),
        (generator, Form.GENERATOR),
        (plain, Form.FUNCTION),
        (Callable_(), Form.COROUTINE),
        (Callable_().method, Form.GENERATOR),
        (functools.partial(coroutine), Form.COROUTINE),
        (lambda foo: foo, Form.FUNCTION),
    ],
)
def test_every_form(function: Any, form: Form) -> None:
    if function.__class__.__name__ == "function" and function.__name__ == "<lambda>":
        function.__annotations__ = {"foo": int}
    bound = bind(foobar, function)
    assert bound.form is form
    assert bound.function is function


@pytest.mark.parametrize(
    ("annotation", "mode", "kind"),
    [
        (IO[int], Mode.STREAM, int),
        (IO[list[str]], Mode.STREAM, list[str]),
        (IO, Mode.STREAM, Any),
        (Annotated[IO[int], "doc"], Mode.STREAM, int),
        (int, Mode.EACH, int),
        (list[int], Mode.EACH, list[int]),
        (int | None, Mode.EACH, int | None),
        (Any, Mode.EACH, Any),
    ],
)
def test_the_annotation_of_an_input_gives_the_mode(annotation: Any, mode: Mode, kind: Any) -> None:
    def function(foo: annotation) -> None: ...

    bound = bind(foobar, function)
    assert bound.mode is mode
    assert bound.input_types == {"foo": kind}


def test_a_task_without_inputs_runs_once_per_run() -> None:
    def source() -> Iterator[int]:
        yield 1

    assert bind(Task("source", outputs="bar"), source).mode is Mode.STREAM


def test_streams_may_be_several() -> None:
    def function(a: IO[int], b: IO[str]) -> None: ...

    bound = bind(Task("t", inputs=["a", "b"]), function)
    assert bound.mode is Mode.STREAM
    assert bound.input_types == {"a": int, "b": str}


def test_an_input_may_have_a_default_and_its_neighbours_be_anything() -> None:
    def function(context: Context, foo: int = 3, *, times: int = 2) -> int:
        return foo * times

    bound = bind(foobar, function)
    assert bound.mode is Mode.EACH
    assert bound.plan.wants_context


def _mixed(a: IO[int], b: int) -> None: ...


def _joined(a: int, b: int) -> None: ...


def _unannotated(foo) -> None: ...  # type: ignore[no-untyped-def]


def _either(foo: IO[int] | int) -> None: ...


def _two_inputs() -> Task:
    return Task("t", inputs=["a", "b"])


def test_joins_are_refused_for_now() -> None:
    with pytest.raises(ConfigurationError, match=r"not supported yet. Annotate `b: IO\[\.\.\.\]`"):
        bind(_two_inputs(), _mixed)
    with pytest.raises(ConfigurationError, match=r"Annotate `a: IO\[\.\.\.\]`, `b: IO\[\.\.\.\]`"):
        bind(_two_inputs(), _joined)


def test_waiting_for_single_values_is_refused() -> None:
    task = Task("t", inputs=["foo"], outputs=["bar"], wait=True)
    with pytest.raises(ConfigurationError, match=r"annotate `foo: IO\[\.\.\.\]`, or drop wait=True"):
        bind(task, plain)
    assert bind(task, first_program).task.wait


@pytest.mark.parametrize("function", [_unannotated, _either])
def test_an_input_that_does_not_say_how_it_is_bound_is_refused(function: Any) -> None:
    with pytest.raises(
        DependencyError, match=r"Annotate it `foo: IO\[T\]` for the whole stream, or `foo: T`"
    ) as caught:
        bind(foobar, function)
    assert caught.value.parameter == "foo"


def test_what_cannot_be_resolved_is_refused() -> None:
    with pytest.raises(DependencyError, match=r"'foo'.*no such parameter"):
        bind(foobar, lambda: 0)


@pytest.mark.parametrize(
    ("declared", "annotation", "bound"),
    [(int, IO[int], int), (int, int, int), (int, Any, int), (Any, int, int), (Annotated[int, "x"], int, None)],
)
def test_declared_input_types_count_more(declared: Any, annotation: Any, bound: Any) -> None:
    def function(foo: annotation) -> None: ...

    expected = declared if bound is None else bound
    assert bind(Task("t", inputs={"foo": declared}), function).input_types == {"foo": expected}


def test_a_declared_input_type_must_agree() -> None:
    with pytest.raises(
        ContractMismatchError, match=r"parameter 'foo'.*expected str, which task 't' declares, found int"
    ):
        bind(Task("t", inputs={"foo": str}, outputs="bar"), plain)


def test_the_contract_is_ready_for_json() -> None:
    task = Task("t", inputs={"foo": int}, outputs={"bar": str, "rest": Any}, version=3)

    async def function(foo: int) -> AsyncIterator[IOVal[str]]:
        yield IOVal("bar", str(foo))

    assert json.loads(json.dumps(bind(task, function).contract())) == {
        "task": "t",
        "version": 3,
        "mode": "each",
        "wait": False,
        "inputs": {"foo": {"kind": "each", "type": "int"}},
        "outputs": {"bar": "str", "rest": "str"},
    }


def test_options_are_kept() -> None:
    retry = Retry(attempts=3)
    bound = bind(foobar, plain, retry=retry, timeout=5, concurrency=2, executor="gpu", on_error="dead", requires="gpu")
    options = bound.options
    assert (options.retry, options.timeout, options.concurrency, options.executor) == (retry, 5, 2, "gpu")
    assert (options.on_error, options.requires, options.batch, options.cache) == ("dead", "gpu", None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"retries": 3},
            "task 'foobar' has no option 'retries': do you mean 'retry'.*There are retry, timeout, .*cache",
        ),
        ({"zzz": 3}, "task 'foobar' has no option 'zzz': There are retry"),
        ({"retry": 3}, r"task 'foobar': option retry=3: give a Retry, like `Retry\(attempts=3\)`"),
        ({"timeout": 0}, "option timeout=0: give seconds, more than 0"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"timeout": "5"}, "timeout='5'"),
        ({"concurrency": 0}, "concurrency=0: give a whole number, 1 or more"),
        ({"concurrency": True}, "concurrency=True"),
        ({"concurrency": 1.5}, "concurrency=1.5"),
        ({"executor": ""}, "an executor, or the name of one"),
        ({"on_error": "ignore"}, "on_error='ignore': give one of fail, skip, dead"),
        ({"requires": 3}, "requires=3"),
        ({"batch": 3}, "batch=3: give a Batch"),
        ({"batch": Batch()}, "batches are not supported in this version"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        bind(foobar, plain, **options)


def test_a_binding_shows_what_it_is() -> None:
    assert repr(bind(foobar, plain)) == f"<Binding task foobar@1 by {__name__}.plain (each, function)>"
    assert isinstance(bind(foobar, plain), Binding)
