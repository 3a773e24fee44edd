"""`wait=True`: a task that starts when all its inputs are complete."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from datamesh import IO, ConfigurationError, Flow, IOVal, Task, task
from tests.mesh.places import PATIENCE, Place

pytestmark = pytest.mark.anyio


async def test_second_over_first(place: Place) -> None:
    ended: list[float] = []
    first = Task("first", inputs=["go"], outputs=["number"])
    second = Task("second", inputs=["number"], outputs=["total"], wait=True)

    @first
    async def _first(go: IO[int]) -> AsyncIterator[int]:
        for n in range(10):
            yield n
            await asyncio.sleep(0.005)
        ended.append(time.monotonic())

    @second
    async def _second(number: IO[int]) -> int:
        assert ended, "it was started before its input was complete"
        assert await number.is_complete()
        return sum(await number.collect())

    flow = Flow.from_tasks(first, second).resolve()
    assert list(flow.execution_plan.partitions) == [{first}, {second}]
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"go": 1})
        assert await run["total"].first() == 45


async def test_two_waiting_tasks_of_one_level_run_at_the_same_time(place: Place) -> None:
    met = asyncio.Barrier(2)

    @task(outputs="number")
    async def source(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @task(outputs="least", wait=True)
    async def least(number: IO[int]) -> int:
        await met.wait()
        return min(await number.collect())

    @task(outputs="most", wait=True)
    async def most(number: IO[int]) -> int:
        await met.wait()
        return max(await number.collect())

    flow = Flow.from_tasks(source, least, most).resolve()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"n": 7})
        assert await run.result() == {"least": [0], "most": [6]}


async def test_it_waits_for_every_input(place: Place) -> None:
    @task(outputs="sum", wait=True)
    async def add(a: IO[int], b: IO[int]) -> int:
        return sum(await a.collect()) + sum(await b.collect())

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(add).resolve(), open_inputs=True)
        await run.inputs["a"].write(1, 2)
        await run.inputs["a"].complete()
        await run.inputs["b"].write(3)
        await asyncio.sleep(0.1)
        assert not await run["sum"].is_complete()
        assert (await run.status()).tasks["add"].done == 0
        await run.inputs["b"].complete()
        assert await run["sum"].first() == 6


async def test_a_sync_function_may_wait_too(place: Place) -> None:
    @task(outputs="count", wait=True)
    def number(word: IO[str]) -> int:
        return len(word.collect())  # type: ignore[arg-type]  # in a thread, the same methods wait

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        inputs = [IOVal("word", word) for word in ["to", "be", "or", "not", "to", "be"]]
        assert await (await supervisor.start_flow(Flow.from_tasks(number).resolve(), inputs)).result() == {"count": [6]}


async def test_it_starts_on_an_empty_input(place: Place) -> None:
    @task(outputs="number")
    async def nothing(go: int) -> AsyncIterator[int]:
        for _ in range(0):
            yield 0

    @task(outputs="count", wait=True)
    async def counted(number: IO[int]) -> int:
        return len(await number.collect())

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(nothing, counted).resolve(), {"go": 1})
        assert await run.result() == {"count": [0]}


def test_value_by_value_contradicts_it() -> None:
    with pytest.raises(ConfigurationError, match="wait=True"):

        @task(outputs="m", wait=True)
        async def wrong(n: int) -> int:
            return n
