"""Generators of scope "call": cleaned up however the invocation ended, and never in the way of its error."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

from datamesh.depends import plan as plan_module
from datamesh.depends.markers import Depends
from datamesh.depends.plan import ArgumentPlan
from datamesh.depends.scopes import RunScope, ServiceScope

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def run() -> RunScope:
    return RunScope(ServiceScope())


def sync_seeing(seen: list[Any]) -> Callable[..., Any]:
    def dependency() -> Iterator[int]:
        try:
            yield 1
        except BaseException as error:
            seen.append(error)
            raise
        finally:
            seen.append("closed")

    return dependency


def async_seeing(seen: list[Any]) -> Callable[..., Any]:
    async def dependency() -> AsyncIterator[int]:
        try:
            yield 1
        except BaseException as error:
            seen.append(error)
            raise
        finally:
            await anyio.sleep(0.001)
            seen.append("closed")

    return dependency


def swallowing() -> Iterator[int]:
    with contextlib.suppress(ValueError):
        yield 1


async def failing() -> AsyncIterator[int]:
    try:
        yield 1
    finally:
        raise RuntimeError("rollback failed")


@pytest.mark.parametrize("seeing", [sync_seeing, async_seeing])
async def test_a_generator_sees_the_error_and_the_error_goes_on(seeing: Any, run: RunScope) -> None:
    seen: list[Any] = []
    failure = ValueError("mine")
    dependency = seeing(seen)
    plan = ArgumentPlan(lambda x=Depends(dependency): x)
    with pytest.raises(ValueError, match="mine") as caught:
        async with plan.solve(run):
            raise failure
    assert caught.value is failure
    assert seen == [failure, "closed"]


async def test_a_generator_that_swallows_hides_nothing(run: RunScope) -> None:
    seen: list[Any] = []

    def function(outer: int = Depends(sync_seeing(seen)), inner: int = Depends(swallowing)) -> None: ...

    with pytest.raises(ValueError, match="mine"):
        async with ArgumentPlan(function).solve(run):
            raise ValueError("mine")
    assert [type(entry) for entry in seen] == [ValueError, str]


async def test_a_cleanup_that_fails_too_is_a_note_on_the_error(run: RunScope) -> None:
    seen: list[Any] = []

    def function(outer: int = Depends(async_seeing(seen)), inner: int = Depends(failing)) -> None: ...

    with pytest.raises(ValueError, match="mine") as caught:
        async with ArgumentPlan(function).solve(run):
            raise ValueError("mine")
    assert "rollback failed" in caught.value.__notes__[0]
    assert seen == [caught.value, "closed"]


async def test_a_cleanup_that_fails_alone_fails_the_invocation(run: RunScope) -> None:
    seen: list[Any] = []

    def function(outer: int = Depends(sync_seeing(seen)), inner: int = Depends(failing)) -> None: ...

    with pytest.raises(RuntimeError, match="rollback failed") as caught:
        async with ArgumentPlan(function).solve(run):
            pass
    assert seen == [caught.value, "closed"]


async def test_what_was_opened_is_closed_when_a_later_dependency_fails(run: RunScope) -> None:
    seen: list[Any] = []

    async def broken() -> int:
        raise OSError("no connection")

    def function(
        a: int = Depends(sync_seeing(seen)), b: int = Depends(async_seeing(seen)), c: int = Depends(broken)
    ) -> None: ...

    with pytest.raises(OSError, match="no connection") as caught:
        await ArgumentPlan(function).solve(run).__aenter__()
    assert seen == [caught.value, "closed", caught.value, "closed"]


async def test_a_task_that_is_cancelled_cleans_up_to_the_end(run: RunScope) -> None:
    seen: list[Any] = []
    dependency = async_seeing(seen)
    plan = ArgumentPlan(lambda x=Depends(dependency): x)

    async def invocation() -> None:
        async with plan.solve(run):
            await asyncio.sleep(30)

    running = asyncio.create_task(invocation())
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [type(entry) for entry in seen] == [asyncio.CancelledError, str]


async def test_a_cancelled_scope_around_the_invocation_does_not_cut_the_cleanup_short(run: RunScope) -> None:
    seen: list[Any] = []
    dependency = async_seeing(seen)
    plan = ArgumentPlan(lambda x=Depends(dependency): x)
    with anyio.move_on_after(0.01) as limit:
        async with plan.solve(run):
            await anyio.sleep(30)
    assert limit.cancelled_caught
    assert seen[-1] == "closed"


async def test_a_task_group_may_be_a_dependency(run: RunScope) -> None:
    done: list[str] = []

    async def background() -> AsyncIterator[anyio.abc.TaskGroup]:
        async with anyio.create_task_group() as group:
            yield group

    async def work() -> None:
        await anyio.sleep(0.001)
        done.append("work")

    async with ArgumentPlan(lambda group=Depends(background): group).solve(run) as arguments:
        arguments["group"].start_soon(work)
    assert done == ["work"]


async def test_a_cleanup_that_hangs_is_ended(run: RunScope, monkeypatch: pytest.MonkeyPatch) -> None:
    async def hanging() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await anyio.sleep(30)

    monkeypatch.setattr(plan_module, "CLEANUP_SECONDS", 0.01)
    plan = ArgumentPlan(lambda x=Depends(hanging): x)
    with pytest.raises(TimeoutError, match=r"cleaning dependencies up took over 0.01 seconds"):
        async with plan.solve(run):
            pass
    with pytest.raises(ValueError, match="mine"):
        async with plan.solve(run):
            raise ValueError("mine")


async def test_a_generator_that_does_not_yield_is_an_error(run: RunScope) -> None:
    never = False

    async def empty() -> AsyncIterator[int]:
        if never:
            yield 1

    with pytest.raises(RuntimeError, match="didn't yield"):
        async with ArgumentPlan(lambda x=Depends(empty): x).solve(run):
            pass
