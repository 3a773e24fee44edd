"""Streams while they are made: interlaced, failing half-way, empty, and many at once."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from datamesh import IO, EmptyIOError, Flow, IOVal, StreamCursor, Task, TaskFailedError, task
from tests.mesh.places import PATIENCE, Place, gather_until_error
from tests.mesh.services.numbers import count, halfway, stamp, stamp_each

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("consumer", [stamp, stamp_each], ids=["stream", "each"])
async def test_a_consumer_elsewhere_follows_its_producer(place: Place, consumer: Task) -> None:
    made: dict[int, float] = {}

    @task(outputs="tick")
    async def clock(ticks: int) -> AsyncIterator[int]:
        for n in range(ticks):
            made[n] = time.time()
            yield n
            await asyncio.sleep(0.01)

    flow = Flow.from_tasks(clock, consumer).resolve()
    async with place.service("numbers"), place.supervisor(tasks=[clock]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"ticks": 60}, all_outputs=True)
        handled = dict(await run["stamped"].collect())
        assert await run["tick"].collect() == list(range(60))
    assert sorted(handled) == list(range(60))
    late = [n for n in range(58) if handled[n] >= made[n + 2]]
    assert len(late) <= 6, f"handled only after two more were made: {late}"  # none, on a machine of one's own


async def test_a_task_that_fails_half_way(place: Place) -> None:
    flow = Flow.from_tasks(halfway).resolve()
    async with place.service("numbers"), place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"limit": 10})
        found: list[int] = []
        with pytest.raises(TaskFailedError) as caught:
            await gather_until_error(run["number"], found)
        assert found == [0, 1, 2, 3, 4]
        error = caught.value
        assert (error.task, error.attempt, error.remote_type.rpartition(".")[2]) == (
            "numbers.halfway",
            1,
            "LookupError",
        )
        assert error.message == "number 5 is missing"
        assert "_halfway" in error.remote_traceback
        assert "raise LookupError" in error.remote_traceback
        for read in (run["number"].collect(), run.result()):
            with pytest.raises(TaskFailedError):
                await read
        status = await run.wait()
        assert status.state == "failed"
        assert "number 5 is missing" in status.error
        assert await run["number"].first() == 0
        assert await run["number"].latest() == 4


async def test_the_failure_reaches_readers_of_other_streams(place: Place) -> None:
    @task(outputs="never")
    async def waits(number: IO[int]) -> AsyncIterator[int]:
        async for _ in number:
            if False:
                yield 0

    flow = Flow.from_tasks(halfway, waits).resolve()
    async with place.service("numbers"), place.supervisor(tasks=[waits]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"limit": 4})
        with pytest.raises(TaskFailedError, match="halfway"):
            await run["never"].first()


async def test_empty_streams(place: Place) -> None:
    flow = Flow.from_tasks(count).resolve()
    async with place.service("numbers"), place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"limit": 0})
        assert [value async for value in run["number"]] == []
        with pytest.raises(EmptyIOError, match="number"):
            await run["number"].first()
        with pytest.raises(EmptyIOError):
            await run["number"].latest()
        assert [value async for value in run["number"].stream(StreamCursor.FROM_LATEST)] == []
        assert await run["number"].is_complete()


async def test_fifty_starts_at_once_are_independent(place: Place) -> None:
    flow = Flow.from_tasks(count).resolve()
    async with place.service("numbers"), place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        runs = await asyncio.gather(*(supervisor.start_flow(flow, {"limit": n}) for n in range(50)))
        assert len({run.id for run in runs}) == 50
        results = await asyncio.gather(*(run.result() for run in runs))
        assert results == [{"number": list(range(n))} for n in range(50)]


async def test_an_input_ends_after_its_last_value(place: Place) -> None:
    @task(outputs="total")
    async def add(number: IO[int]) -> int:
        return sum([value async for value in number])

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(add).resolve(), [IOVal("number", n) for n in range(1000)])
        assert await run["total"].first() == sum(range(1000))


async def test_a_stream_task_may_stop_before_its_input_ends(place: Place) -> None:
    @task(outputs="number")
    async def many(limit: int) -> AsyncIterator[int]:
        for n in range(limit):
            yield n

    @task(outputs="head")
    async def head(number: IO[int]) -> int:
        return await number.first()

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(many, head).resolve(), {"limit": 5000})
        assert await run.result() == {"head": [0]}


async def test_two_consumers_each_see_every_value(place: Place) -> None:
    @task(outputs="double")
    async def doubled(number: int) -> int:
        return 2 * number

    @task(outputs="total")
    async def add(number: IO[int]) -> int:
        return sum(await number.collect())

    flow = Flow.from_tasks(count, doubled, add).resolve()
    async with (
        place.service("numbers"),
        place.supervisor(tasks=[doubled, add]) as supervisor,
        asyncio.timeout(PATIENCE),
    ):
        run = await supervisor.start_flow(flow, {"limit": 100})
        result = await run.result()
        assert sorted(result["double"]) == [2 * n for n in range(100)]
        assert result["total"] == [4950]
