"""Slow consumers slow their producers down; a run has no more than its quota."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from datamesh import Backpressure, Flow, FlowRun, IOVal, Quota, QuotaExceededError, RunState, Supervisor, task
from tests.mesh.places import PATIENCE, Place, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]


async def most_open(supervisor: Supervisor, run_id: str, task_name: str, until_done: asyncio.Task[object]) -> int:
    """The most values that were seen open at a task while something went on."""
    run, most = await supervisor.get_run(run_id), 0
    while not until_done.done():
        most = max(most, (await run.status()).tasks[task_name].open)
        await asyncio.sleep(0.005)
    return most


@pytest.mark.parametrize("form", ["async", "sync"])
async def test_a_generator_waits_for_a_slow_consumer_and_all_arrives(place: Place, form: str) -> None:
    async def count_async(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    def count_sync(n: int) -> Iterator[int]:
        yield from range(n)

    @task(outputs="twice", backpressure=Backpressure(high=500, low=200))
    async def slow(i: int) -> int:
        await asyncio.sleep(0.01)
        return 2 * i

    declare = task(name="count", outputs="i")
    count = declare(count_async) if form == "async" else declare(count_sync)
    async with place.supervisor(concurrency=8) as supervisor, asyncio.timeout(PATIENCE * 2):
        run = await supervisor.start_flow(Flow.from_tasks(count, slow).resolve(), {"n": 6000})
        collecting = asyncio.create_task(run["twice"].collect())
        most = await most_open(supervisor, run.id, "slow", collecting)
        assert sorted(await collecting) == [2 * i for i in range(6000)]
        status = await run.wait()
    # What was yielded before the first reply may be ahead: a room of 1,024 values, twice.
    assert most <= 500 + 2 * 1024 + 256
    assert (status.tasks["slow"].high, status.tasks["slow"].low) == (500, 200)


async def test_with_one_slot_a_chain_of_generators_goes_on(place: Place) -> None:
    marks = Backpressure(high=10, low=2)

    @task(outputs="a")
    async def first(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i
            await asyncio.sleep(0)

    @task(outputs="b", backpressure=marks)
    async def second(a: int) -> AsyncIterator[int]:
        for i in range(3):
            yield 3 * a + i

    @task(outputs="c", backpressure=marks)
    async def third(b: int) -> int:
        return b

    async with place.supervisor(concurrency=1) as supervisor, asyncio.timeout(PATIENCE * 2):
        run = await supervisor.start_flow(Flow.from_tasks(first, second, third).resolve(), {"n": 3000})
        assert sorted(await run["c"].collect()) == list(range(9000))


async def test_a_writer_of_an_open_input_waits_too(place: Place) -> None:
    @task(outputs="twice", backpressure=Backpressure(high=50, low=10))
    async def slow(n: int) -> int:
        await asyncio.sleep(0.005)
        return 2 * n

    async with place.supervisor(concurrency=4) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(slow).resolve(), open_inputs=True)
        began = time.perf_counter()
        for n in range(400):
            await run.inputs["n"].write(n)
        # 350 of them had to be through, four at a time.
        assert time.perf_counter() - began > 350 * 0.005 / 4
        await run.inputs["n"].complete()
        assert sorted(await run["twice"].collect()) == [2 * n for n in range(400)]


async def test_a_suspended_generator_is_shown_and_ends_with_its_run(place: Place) -> None:
    closed = asyncio.Event()

    @task(outputs="i")
    async def count(n: int) -> AsyncIterator[int]:
        try:
            for i in range(n):
                yield i
        finally:
            closed.set()

    @task(outputs="m", backpressure=Backpressure(high=20))
    async def stuck(i: int) -> int:
        await asyncio.sleep(60)
        return i

    async with place.supervisor(concurrency=2) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(count, stuck).resolve(), {"n": 100_000})
        await until(lambda: _is_full(supervisor, run.id))
        assert not closed.is_set()
        await run.cancel()
        await closed.wait()
        status = await run.status()
        assert status.state is RunState.CANCELLED
        assert status.tasks["stuck"].cancelled > 20


async def _is_full(supervisor: Supervisor, run_id: str) -> bool:
    return (await (await supervisor.get_run(run_id)).status()).tasks["stuck"].full


async def test_readers_of_a_run_over_its_quota_are_told_which(place: Place) -> None:
    @task(outputs="i")
    async def count(n: int) -> AsyncIterator[str]:
        while True:
            yield "x" * 1000

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        flow = Flow.from_tasks(count).resolve()
        run = await supervisor.start_flow(flow, {"n": 1}, quota=Quota(bytes=100_000))
        with pytest.raises(QuotaExceededError) as caught:
            await run["i"].collect()
        assert (caught.value.quota, caught.value.limit, caught.value.run_id) == ("bytes", 100_000, run.id)
        assert "quota=Quota(bytes=...)" in str(caught.value)
        assert "needs bytes=" in (await run.wait()).error
        run = await supervisor.start_flow(flow, {"n": 1}, quota=Quota(fan_out=50))
        with pytest.raises(QuotaExceededError, match="fan_out"):
            await run["i"].collect()


async def test_inputs_over_the_quota_are_refused_before_anything_is_written(place: Place) -> None:
    @task(outputs="m")
    async def echo(n: str) -> str:
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        flow = Flow.from_tasks(echo).resolve()
        with pytest.raises(QuotaExceededError, match="bytes"):
            await supervisor.start_flow(flow, {"n": "x" * 2000}, run_id="much", quota=Quota(bytes=1000))
        with pytest.raises(QuotaExceededError, match="open_values=3"):
            await supervisor.start_flow(flow, [IOVal("n", "x")] * 3, run_id="many", quota=Quota(open_values=2))
        for run_id in ("much", "many"):
            with pytest.raises(Exception, match="no run"):
                await supervisor.get_run(run_id)


async def test_a_writer_over_the_quota_is_told(place: Place) -> None:
    @task(outputs="m")
    async def echo(n: str) -> str:
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(echo).resolve(), open_inputs=True, quota=Quota(bytes=5000))
        with pytest.raises(QuotaExceededError):
            await _write_many(run, 20)


async def _write_many(run: FlowRun, count: int) -> None:
    for _ in range(count):
        await run.inputs["n"].write("x" * 1000)
