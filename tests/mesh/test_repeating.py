"""Invocations that are repeated: after errors, when they ask for it, and after their service died."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from datamesh import Context, Flow, IOVal, Retry, RetryLater, TaskFailedError, task
from tests.mesh.places import PATIENCE, Place, until
from tests.mesh.services import poisoned

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


def numbers(count: int) -> list[IOVal[int]]:
    return [IOVal("n", n) for n in range(count)]


async def test_a_task_that_asks_to_be_repeated_later_is_charged_no_attempt(place: Place) -> None:
    attempts: list[int] = []

    @task(outputs="twice", retry=Retry(attempts=1))
    async def poll(n: int, context: Context) -> int:
        attempts.append(context.attempt)
        if len(attempts) < 4:
            raise RetryLater(0.05)
        return 2 * n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(poll).resolve(), {"n": 4})
        assert await run["twice"].first() == 8
        assert (await run.wait()).tasks["poll"].failed == 0
    assert attempts == [1, 1, 1, 1]


async def test_a_synchronous_task_may_ask_for_it_too(place: Place) -> None:
    calls: list[int] = []

    @task(outputs="twice")
    def poll(n: int) -> int:
        calls.append(n)
        if len(calls) == 1:
            raise RetryLater(0)
        return 2 * n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(poll).resolve(), {"n": 4})
        assert await run["twice"].first() == 8
    assert calls == [4, 4]


async def test_skipped_and_dead_values_are_counted_in_the_result(place: Place) -> None:
    @task(outputs="even", on_error="skip")
    async def skipping(n: int) -> int:
        if n % 2:
            raise ValueError(n)
        return n

    @task(outputs="rest", on_error="dead")
    async def burying(even: int) -> int:
        if even == 4:
            raise ValueError(even)
        return even

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(skipping, burying).resolve(), numbers(10))
        result = await run.result()
    assert sorted(result["rest"]) == [0, 2, 6, 8]
    assert (result.skipped, result.dead) == (5, 1)


async def test_a_value_that_kills_whoever_runs_it_is_buried_and_nothing_else_is(place: Place) -> None:
    async with (
        place.service("poison", DATAMESH_LEASE="1.5") as first,
        place.service("poison", DATAMESH_LEASE="1.5") as second,
        place.service("poison", DATAMESH_LEASE="1.5") as third,
        place.supervisor(tasks=[]) as supervisor,
        asyncio.timeout(60),
    ):
        inputs = [IOVal("n", n) for n in range(300)]
        run = await supervisor.start_flow(Flow.from_tasks(poisoned.doubling).resolve(), inputs)
        result = await run.result()
        assert sorted(result["doubled"]) == sorted(2 * n for n in range(300) if n != poisoned.DEADLY)
        assert (result.dead, result.skipped) == (1, 0)
        await until(lambda: _ended(2, first, second, third), seconds=5)
        assert [p.returncode for p in (first, second, third)].count(-signal.SIGKILL) == 2


async def _ended(count: int, *processes: Any) -> bool:
    return sum(process.returncode is not None for process in processes) == count


@pytest.mark.parametrize("form", ["async", "sync"])
async def test_a_checkpoint_is_where_the_next_attempt_begins(place: Place, tmp_path: Path, form: str) -> None:
    begun: list[Any] = []

    async def count_async(n: int, context: Context) -> AsyncIterator[int]:
        begun.append(context.state)
        for value in range(context.state or 0, n):
            yield value
            if value % 4 == 3:
                await context.checkpoint(value + 1)
            if value == 9 and context.attempt < 3:
                raise OSError("half way")

    def count_sync(n: int, context: Context) -> Iterator[int]:
        begun.append(context.state)
        for value in range(context.state or 0, n):
            yield value
            if value % 4 == 3:
                context.checkpoint(value + 1)
            if value == 9 and context.attempt < 3:
                raise OSError("half way")

    declare = task(name="count", outputs="part", retry=Retry(attempts=3, backoff=0.01))
    chosen = declare(count_async) if form == "async" else declare(count_sync)
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(chosen).resolve(), {"n": 15})
        assert await run["part"].collect() == list(range(15))
        assert [v async for v in run["part"].stream(ordered=True)] == list(range(15))
    assert begun == [None, 8, 8]


async def test_a_function_that_gives_one_value_may_keep_a_state_too(place: Place) -> None:
    begun: list[Any] = []

    @task(outputs="total", retry=Retry(attempts=2, backoff=0.01))
    async def add_up(n: int, context: Context) -> int:
        state = context.state or {"at": 0, "sum": 0}
        begun.append(state["at"])
        while state["at"] < n:
            state = {"at": state["at"] + 1, "sum": state["sum"] + state["at"]}
            await context.checkpoint(state)
            if state["at"] == 5 and context.attempt == 1:
                raise OSError("half way")
        return int(state["sum"])

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(add_up).resolve(), {"n": 10})
        assert await run["total"].first() == 45
    assert begun == [0, 5]


async def test_what_follows_a_checkpoint_must_be_repeated_too(place: Place) -> None:
    calls = 0

    @task(outputs="part", retry=Retry(attempts=2, backoff=0.01))
    async def fickle(n: int, context: Context) -> AsyncIterator[int]:
        nonlocal calls
        calls += 1
        if context.state is None:
            yield 1
            await context.checkpoint("one")
        yield 10 * calls
        await asyncio.sleep(0.1)
        if calls == 1:
            raise OSError("half way")

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(fickle).resolve(), {"n": 1})
        with pytest.raises(TaskFailedError, match="NonDeterministicReplayError"):
            await run.result()


async def test_a_state_that_is_too_large_is_refused(place: Place) -> None:
    @task(outputs="said")
    async def hoard(n: int, context: Context) -> str:
        try:
            await context.checkpoint("x" * 70_000)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "kept"

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(hoard).resolve(), {"n": 1})
        said = await run["said"].first()
    assert said.startswith("PayloadTooLargeError: the state that task 'hoard' gives to checkpoint")


async def test_the_first_value_of_a_generator_has_to_come_in_time(place: Place) -> None:
    @task(outputs="slow", first_output_timeout=0.2, on_error="skip")
    async def slow(n: int) -> AsyncIterator[int]:
        await asyncio.sleep(60)
        yield n

    @task(outputs="long", first_output_timeout=0.2)
    async def long(n: int) -> AsyncIterator[int]:
        yield n
        await asyncio.sleep(0.5)
        yield n + 1

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        result = await (await supervisor.start_flow(Flow.from_tasks(slow, long).resolve(), {"n": 1})).result()
    assert (result["slow"], result["long"], result.skipped) == ([], [1, 2], 1)
