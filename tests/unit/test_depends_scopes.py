"""Values that outlast an invocation: built once, shared, and cleaned up when their scope ends."""

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from datamesh.depends import scopes as scopes_module
from datamesh.depends.markers import Depends
from datamesh.depends.plan import ArgumentPlan
from datamesh.depends.scopes import RunScope, ServiceScope
from datamesh.errors import ConfigurationError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def service() -> ServiceScope:
    return ServiceScope()


async def value_of(plan: ArgumentPlan, run: RunScope) -> Any:
    async with plan.solve(run) as arguments:
        return arguments["x"]


async def test_a_service_value_is_built_once_by_any_number_of_runs(service: ServiceScope) -> None:
    built: list[int] = []

    async def load() -> object:
        built.append(1)
        await anyio.sleep(0.01)
        return object()

    plan = ArgumentPlan(lambda x=Depends(load, scope="service"): x)
    values = await asyncio.gather(*(value_of(plan, RunScope(service, str(n))) for n in range(50)))
    assert built == [1]
    assert len(set(map(id, values))) == 1


async def test_a_run_value_is_one_for_each_run(service: ServiceScope) -> None:
    async def load() -> object:
        await anyio.sleep(0)
        return object()

    plan = ArgumentPlan(lambda x=Depends(load, scope="run"): x)
    one, other = RunScope(service, "1"), RunScope(service, "2")
    first, again, another = await asyncio.gather(value_of(plan, one), value_of(plan, one), value_of(plan, other))
    assert first is again
    assert first is not another


async def test_one_callable_has_a_value_in_each_scope(service: ServiceScope) -> None:
    def function(
        a: object = Depends(object_of, scope="service"),
        b: object = Depends(object_of, scope="run"),
        c: object = Depends(object_of),
    ) -> None: ...

    async with ArgumentPlan(function).solve(RunScope(service)) as arguments:
        assert len(set(map(id, arguments.values()))) == 3


def object_of() -> object:
    return object()


def get_thread() -> threading.Thread:
    return threading.current_thread()


async def test_all_who_wait_get_the_failure_and_the_next_tries_again(service: ServiceScope) -> None:
    attempts: list[int] = []

    async def load() -> str:
        attempts.append(1)
        await anyio.sleep(0.005)
        if len(attempts) == 1:
            raise OSError("no model yet")
        return "model"

    plan = ArgumentPlan(lambda x=Depends(load, scope="service"): x)
    run = RunScope(service)
    failed = await asyncio.gather(*(value_of(plan, run) for _ in range(5)), return_exceptions=True)
    assert [type(error) for error in failed] == [OSError] * 5
    assert len(set(map(id, failed))) == 1
    assert len(attempts) == 1
    assert await value_of(plan, run) == "model"


async def test_a_caller_that_is_cancelled_takes_nothing_from_the_others(service: ServiceScope) -> None:
    built: list[int] = []

    async def load() -> str:
        built.append(1)
        await anyio.sleep(0.03)
        return "model"

    plan = ArgumentPlan(lambda x=Depends(load, scope="service"): x)
    first = asyncio.create_task(value_of(plan, RunScope(service, "1")))
    await asyncio.sleep(0.005)
    second = asyncio.create_task(value_of(plan, RunScope(service, "2")))
    await asyncio.sleep(0.005)
    first.cancel()
    assert await second == "model"
    assert first.cancelled()
    assert built == [1]


async def test_a_slow_builder_in_a_thread_leaves_the_loop_free(service: ServiceScope) -> None:
    threads: list[int] = []

    def load() -> str:
        threads.append(threading.get_ident())
        time.sleep(0.1)
        return "model"

    plan = ArgumentPlan(lambda x=Depends(load, scope="service"): x)
    loading = asyncio.create_task(value_of(plan, RunScope(service)))
    ticks = 0
    while not loading.done():
        await asyncio.sleep(0.002)
        ticks += 1
    assert ticks > 10
    assert threads != [threading.get_ident()]


async def test_a_call_scoped_function_runs_in_the_thread_of_the_loop(service: ServiceScope) -> None:
    thread = await value_of(ArgumentPlan(lambda x=Depends(get_thread): x), RunScope(service))
    assert thread is threading.current_thread()


async def test_values_are_cleaned_up_in_the_reverse_order_of_building(service: ServiceScope) -> None:
    order: list[str] = []

    def config() -> Iterator[str]:
        order.append("+config")
        yield "config"
        order.append("-config")

    async def pool(config: str = Depends(config, scope="service")) -> AsyncIterator[str]:
        order.append("+pool")
        yield "pool"
        order.append("-pool")

    async def session(pool: str = Depends(pool, scope="service")) -> AsyncIterator[str]:
        order.append("+session")
        yield f"session of {pool}"
        order.append("-session")

    plan = ArgumentPlan(lambda x=Depends(session, scope="run"): x)
    run = RunScope(service)
    assert await value_of(plan, run) == "session of pool"
    await run.aclose()
    assert order == ["+config", "+pool", "+session", "-session"]
    await service.aclose()
    assert order[4:] == ["-pool", "-config"]


async def test_closing_the_service_closes_the_runs_first(service: ServiceScope) -> None:
    order: list[str] = []

    def noting(name: str) -> Any:
        def generator() -> Iterator[str]:
            yield name
            order.append(name)

        return generator

    def function(
        a: str = Depends(noting("run"), scope="run"), b: str = Depends(noting("service"), scope="service")
    ) -> None: ...

    async with ArgumentPlan(function).solve(RunScope(service)):
        pass
    await service.aclose()
    assert order == ["run", "service"]


async def test_a_closed_scope_builds_nothing(service: ServiceScope) -> None:
    plan = ArgumentPlan(lambda x=Depends(object_of, scope="run"): x)
    run = RunScope(service, "run-1")
    assert run.is_unused
    await value_of(plan, run)
    assert not run.is_unused
    await run.aclose()
    assert run.is_unused
    assert plan.solve_now(run) is None
    with pytest.raises(ConfigurationError, match="the scope of run 'run-1' is closed"):
        await value_of(plan, run)


async def test_closing_gives_up_what_is_being_built(service: ServiceScope) -> None:
    reached: list[str] = []

    async def load() -> str:
        try:
            await anyio.sleep(30)
        finally:
            reached.append("given up")
        return "model"

    plan = ArgumentPlan(lambda x=Depends(load, scope="service"): x)
    waiting = asyncio.create_task(value_of(plan, RunScope(service)))
    await asyncio.sleep(0.01)
    await service.aclose()
    with pytest.raises(ConfigurationError, match="the scope of the service is closed"):
        await waiting
    assert reached == ["given up"]


async def test_what_a_thread_is_building_is_still_cleaned_up(service: ServiceScope) -> None:
    order: list[str] = []

    def load() -> Iterator[str]:
        time.sleep(0.03)
        order.append("built")
        yield "model"
        order.append("closed")

    plan = ArgumentPlan(lambda x=Depends(load, scope="service"): x)
    waiting = asyncio.create_task(value_of(plan, RunScope(service)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await service.aclose()
    assert order == ["built", "closed"]


async def test_a_cleanup_that_fails_is_logged_and_the_others_go_on(
    service: ServiceScope, caplog: pytest.LogCaptureFixture
) -> None:
    closed: list[str] = []

    def good() -> Iterator[str]:
        yield "good"
        closed.append("good")

    def bad(good: str = Depends(good, scope="service")) -> Iterator[str]:
        yield "bad"
        raise OSError("cannot close")

    await value_of(ArgumentPlan(lambda x=Depends(bad, scope="service"): x), RunScope(service))
    with caplog.at_level(logging.ERROR, "datamesh.depends"):
        await service.aclose()
    assert closed == ["good"]
    assert "bad failed" in caplog.text
    assert "cannot close" in caplog.text


async def test_a_cleanup_that_hangs_is_left_behind(
    service: ServiceScope, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hanging() -> AsyncIterator[str]:
        yield "value"
        await anyio.sleep(30)

    monkeypatch.setattr(scopes_module, "CLEANUP_SECONDS", 0.02)
    await value_of(ArgumentPlan(lambda x=Depends(hanging, scope="service"): x), RunScope(service))
    await service.aclose()
    assert "hanging is not cleaned up after 0.02 seconds" in caplog.text
    await asyncio.sleep(0)


async def test_closing_inside_a_cancelled_scope_still_cleans_up(service: ServiceScope) -> None:
    closed: list[str] = []

    async def pool() -> AsyncIterator[str]:
        yield "pool"
        await anyio.sleep(0.005)
        closed.append("pool")

    await value_of(ArgumentPlan(lambda x=Depends(pool, scope="service"): x), RunScope(service))
    with anyio.CancelScope() as scope:
        scope.cancel()
        await service.aclose()
    assert closed == ["pool"]


async def test_a_task_group_may_live_as_long_as_the_service(service: ServiceScope) -> None:
    async def background() -> AsyncIterator[anyio.abc.TaskGroup]:
        async with anyio.create_task_group() as group:
            yield group
            group.cancel_scope.cancel()

    plan = ArgumentPlan(lambda x=Depends(background, scope="service"): x)
    group = await asyncio.create_task(value_of(plan, RunScope(service)))
    group.start_soon(anyio.sleep, 30)
    await service.aclose()


async def test_a_value_that_breaks_down_is_built_again(service: ServiceScope, caplog: pytest.LogCaptureFixture) -> None:
    async def background() -> AsyncIterator[anyio.abc.TaskGroup]:
        async with anyio.create_task_group() as group:
            yield group

    async def crash() -> None:
        raise OSError("connection lost")

    plan = ArgumentPlan(lambda x=Depends(background, scope="service"): x)
    run = RunScope(service)
    first = await value_of(plan, run)
    first.start_soon(crash)
    await asyncio.sleep(0.01)
    assert "connection lost" in caplog.text
    assert await value_of(plan, run) is not first
    await service.aclose()


async def test_a_builder_does_not_see_the_context_variables_of_who_asked_first(service: ServiceScope) -> None:
    variable = contextvars.ContextVar("variable", default="service")

    async def load() -> str:
        return variable.get()

    variable.set("request")
    assert await value_of(ArgumentPlan(lambda x=Depends(load, scope="service"): x), RunScope(service)) == "service"
