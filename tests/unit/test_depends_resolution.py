"""What a parameter can ask for, and what it gets."""

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from datamesh.depends.context import Context
from datamesh.depends.markers import Depends
from datamesh.depends.plan import ArgumentPlan
from datamesh.depends.scopes import RunScope, ServiceScope

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def run() -> RunScope:
    return RunScope(ServiceScope(), "run-1")


async def arguments_of(function: Any, run: RunScope, context: Context | None = None) -> dict[str, Any]:
    async with ArgumentPlan(function).solve(run, context) as arguments:
        return arguments


def get_two() -> int:
    return 2


async def get_three() -> int:
    return 3


def gen_four() -> Iterator[int]:
    yield 4


async def agen_five() -> AsyncIterator[int]:
    yield 5


class Six:
    def __init__(self, two: Annotated[int, Depends(get_two, scope="service")]) -> None:
        self.value = two * 3

    def method(self) -> int:
        return 7

    async def __call__(self, two: int = Depends(get_two, scope="service")) -> int:
        return two + 6


@dataclass
class Unhashable:
    values: list[int]

    def __call__(self) -> int:
        return sum(self.values)


def add(one: int, two: Annotated[int, Depends(get_two, scope="service")]) -> int:
    return one + two


@contextlib.contextmanager
def managed() -> Iterator[int]:
    yield 11


@contextlib.asynccontextmanager
async def amanaged() -> AsyncIterator[int]:
    yield 12


@functools.lru_cache
def cached() -> int:
    return 13


def _through(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


six = Six(2)

WAYS = {
    "function": (get_two, 2),
    "coroutine function": (get_three, 3),
    "generator": (gen_four, 4),
    "async generator": (agen_five, 5),
    "bound method": (six.method, 7),
    "object with async __call__": (six, 8),
    "partial with a dependency left": (functools.partial(add, one=7), 9),
    "object without a hash": (Unhashable([4, 6]), 10),
    "contextmanager": (managed, 11),
    "asynccontextmanager": (amanaged, 12),
    "lru_cache": (cached, 13),
    "lambda": (lambda: 14, 14),
    "wrapped async generator": (_through(agen_five), 5),
    "wrapped coroutine function": (_through(get_three), 3),
}


@pytest.mark.parametrize("scope", ["call", "run", "service"])
@pytest.mark.parametrize(("call", "expected"), WAYS.values(), ids=WAYS.keys())
async def test_every_callable_gives_its_value_in_every_scope(
    call: Any, expected: int, scope: Any, run: RunScope
) -> None:
    def function(x: Annotated[int, Depends(call, scope=scope)], y: int = Depends(call, scope=scope)) -> None: ...

    assert await arguments_of(function, run) == {"x": expected, "y": expected}
    await run.service.aclose()


async def test_a_class_is_called_and_may_stand_for_itself(run: RunScope) -> None:
    def function(
        named: Annotated[Any, Depends(Six)], itself: Annotated[Six, Depends()], old: Six = Depends()
    ) -> None: ...

    arguments = await arguments_of(function, run)
    assert arguments["named"].value == 6
    assert arguments["named"] is arguments["itself"] is arguments["old"]


async def test_what_is_left_to_defaults_and_inputs_is_not_given(run: RunScope) -> None:
    def function(foo: Any, x: Annotated[int, Depends(get_two)], y: int = 9, *, z: str = "z") -> None: ...

    plan = ArgumentPlan(function, ["foo"])
    assert plan.solve_now(run) == {"x": 2}


async def test_a_function_with_inputs_only_has_an_empty_plan(run: RunScope) -> None:
    def function(foo: Any, y: int = 9) -> None: ...

    plan = ArgumentPlan(function, ["foo"])
    assert plan.is_empty
    assert plan.solve_now(run) == {}
    assert not ArgumentPlan(lambda x=Depends(get_two): x).is_empty


async def test_one_invocation_shares_a_value_unless_told_otherwise(run: RunScope) -> None:
    calls: list[str] = []

    def counted() -> int:
        calls.append("called")
        return len(calls)

    def middle(value: int = Depends(counted)) -> int:
        return value

    def function(
        a: int = Depends(counted),
        b: int = Depends(middle),
        c: int = Depends(counted, use_cache=False),
        d: int = Depends(counted, use_cache=False),
    ) -> None: ...

    plan = ArgumentPlan(function)
    assert plan.solve_now(run) == {"a": 1, "b": 1, "c": 2, "d": 3}
    assert plan.solve_now(run) == {"a": 4, "b": 4, "c": 5, "d": 6}


async def test_dependencies_are_built_before_what_needs_them_and_cleaned_up_after(run: RunScope) -> None:
    order: list[str] = []

    async def pool() -> AsyncIterator[str]:
        order.append("+pool")
        yield "pool"
        order.append("-pool")

    def session(pool: Annotated[str, Depends(pool)]) -> Iterator[str]:
        order.append("+session")
        yield f"session of {pool}"
        order.append("-session")

    def function(session: Annotated[str, Depends(session)], pool: Annotated[str, Depends(pool)]) -> None: ...

    async with ArgumentPlan(function).solve(run) as arguments:
        order.append("function")
        assert arguments == {"session": "session of pool", "pool": "pool"}
    assert order == ["+pool", "+session", "function", "-session", "-pool"]


async def test_fastapis_own_marker_is_understood(run: RunScope) -> None:
    calls: list[int] = []

    def counted() -> int:
        calls.append(1)
        return len(calls)

    fastapi = pytest.importorskip("fastapi")

    def function(
        a: Annotated[int, fastapi.Depends(counted)],
        six: Annotated[Six, fastapi.Depends()],
        b: int = fastapi.Depends(counted),
        c: int = fastapi.Depends(counted, use_cache=False, scope="request"),
        secure: int = fastapi.Security(get_two),
    ) -> None: ...

    arguments = await arguments_of(function, run)
    assert isinstance(arguments.pop("six"), Six)
    assert arguments == {"a": 1, "b": 1, "c": 2, "secure": 2}


async def test_the_context_is_given_by_its_type_also_to_dependencies(run: RunScope) -> None:
    def get_run_id(context: Context) -> str:
        return context.run_id

    def function(
        ctx: Context,
        tagged: Annotated[Context, "mine"],
        maybe: Context | None = None,
        run_id: str = Depends(get_run_id),
    ) -> None: ...

    context = Context(run_id="run-1", task="foobar")
    plan = ArgumentPlan(function)
    assert plan.wants_context
    assert plan.solve_now(run, context) == {"ctx": context, "tagged": context, "maybe": context, "run_id": "run-1"}


async def test_a_context_below_a_dependency_is_wanted_too() -> None:
    def get_run_id(context: Context) -> str:
        return context.run_id

    assert ArgumentPlan(lambda x=Depends(get_run_id): x).wants_context
    assert not ArgumentPlan(lambda x=Depends(get_two): x).wants_context


async def test_solve_now_declines_what_must_wait_or_be_cleaned_up(run: RunScope) -> None:
    def needs_model(model: int = Depends(get_two, scope="service")) -> int:
        return model

    for call in (get_three, gen_four, agen_five):
        assert ArgumentPlan(lambda x=Depends(call): x).solve_now(run) is None
    plan = ArgumentPlan(lambda x=Depends(needs_model): x)
    assert plan.solve_now(run) is None
    async with plan.solve(run) as arguments:
        assert arguments == {"x": 2}
    assert plan.solve_now(run) == {"x": 2}
    await run.service.aclose()


async def test_an_inherited_constructor_is_read_in_its_own_module(run: RunScope) -> None:
    class Seven(Six):
        pass

    def function(seven: Annotated[Seven, Depends()]) -> None: ...

    assert type((await arguments_of(function, run))["seven"]) is Seven


async def test_a_wide_diamond_compiles_in_no_time(run: RunScope) -> None:
    def layer(below: Any) -> Any:
        def call(a: int = Depends(below), b: int = Depends(below)) -> int:
            return a + b

        return call

    top: Any = get_two
    for _ in range(60):
        top = layer(top)
    assert ArgumentPlan(lambda x=Depends(top): x).solve_now(run) == {"x": 2**61}
