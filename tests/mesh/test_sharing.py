"""What runs share: slots, threads and the order in which they get them, without starving or blocking each other."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from datamesh import IO, Flow, IOVal, LocalExecutor, task
from tests.mesh.places import PATIENCE, Place

pytestmark = pytest.mark.anyio


async def test_priority_goes_first(place: Place) -> None:
    order: list[int] = []

    @task(outputs="m", concurrency=1)
    async def slow(n: int) -> int:
        await asyncio.sleep(0.005)
        order.append(n)
        return n

    flow = Flow.from_tasks(slow).resolve()
    async with place.supervisor(concurrency=1) as supervisor, asyncio.timeout(PATIENCE):
        bulk = await supervisor.start_flow(flow, [IOVal("n", n) for n in range(200)], priority=-1)
        urgent = await supervisor.start_flow(flow, {"n": 1000}, priority=5)
        assert await urgent["m"].first() == 1000
        assert len(order) < 150
        await bulk.cancel()


@pytest.mark.parametrize("concurrency", [8, 100])
async def test_one_value_does_not_wait_behind_two_hundred_thousand(place: Place, concurrency: int) -> None:
    """A window of values goes before it. The best of a few counts: the machine has other things to do too."""

    @task(outputs="twice")
    async def double(n: int) -> int:
        return 2 * n

    flow = Flow.from_tasks(double).resolve()
    async with place.supervisor(concurrency=concurrency) as supervisor, asyncio.timeout(PATIENCE):
        bulk = await supervisor.start_flow(flow, [IOVal("n", n) for n in range(200_000)])
        times: list[float] = []
        while (await bulk.status()).state == "open" and len(times) < 5:
            began = time.perf_counter()
            single = await supervisor.start_flow(flow, {"n": 7})
            assert await single["twice"].first() == 14
            times.append(time.perf_counter() - began)
        assert min(times) < 0.1
        await bulk.cancel()


async def test_one_slot_is_enough_for_a_chain_of_tasks(place: Place) -> None:
    @task(outputs="a", concurrency=1)
    async def source(n: IO[int]) -> AsyncIterator[int]:
        for i in range(await n.first()):
            yield i

    @task(outputs="b", concurrency=1)
    async def through(a: IO[int]) -> AsyncIterator[int]:
        async for value in a:
            yield value

    @task(outputs="c", concurrency=1)
    def in_thread(b: int) -> int:
        return b

    @task(outputs="d", concurrency=1)
    def last(c: IO[int]) -> int:
        return len(c.collect())  # type: ignore[arg-type]  # in a thread, the same methods wait

    flow = Flow.from_tasks(last, in_thread, through, source).resolve()
    executor = LocalExecutor(threads=1)
    async with place.supervisor(concurrency=1, executor=executor) as supervisor, asyncio.timeout(PATIENCE):
        runs = [await supervisor.start_flow(flow, {"n": 300}) for _ in range(4)]
        assert [await run.result() for run in runs] == [{"d": [300]}] * 4


async def test_threads_that_read_and_threads_that_write(place: Place) -> None:
    """More sync stream tasks at once than there are threads: those that wait must not keep those that write out."""

    @task(outputs="a")
    def source(n: int) -> list[int]:
        time.sleep(0.01)
        return list(range(n))

    @task(outputs="b")
    def read(a: IO[list[int]]) -> int:
        values: list[list[int]] = a.collect()  # type: ignore[assignment]  # in a thread, the same methods wait
        return sum(map(sum, values))

    flow = Flow.from_tasks(read, source).resolve()
    async with place.supervisor(concurrency=2) as supervisor, asyncio.timeout(PATIENCE):
        runs = [await supervisor.start_flow(flow, {"n": 10}) for _ in range(80)]
        assert [await run.result() for run in runs] == [{"b": [45]}] * 80


async def test_a_task_that_is_implemented_too_late_is_told_of(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):

        @task(outputs="m")
        async def late(n: int) -> int:
            return n

        run = await supervisor.start_flow(Flow.from_tasks(late).resolve(), {"n": 1})
        assert (await run.status()).missing == ("late@1",)
        assert "a run waits for late@1: implemented here" in caplog.text
        await run.cancel()
