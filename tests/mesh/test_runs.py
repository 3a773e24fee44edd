"""Runs in the hands of whoever started them or asks for them."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping

import pytest

from datamesh import (
    IO,
    ConfigurationError,
    Context,
    Flow,
    FlowCancelledError,
    FlowTimeoutError,
    InvalidValueError,
    ReadOnlyIOError,
    StoreUnavailableError,
    Supervisor,
    Task,
    UnknownRunError,
    task,
)
from tests.mesh.places import PATIENCE, Place, running, until
from tests.mesh.services.numbers import count, slow_square
from tests.servers import Server

pytestmark = pytest.mark.anyio


def doubling() -> Flow:
    @task(outputs="twice")
    async def double(n: int) -> int:
        return 2 * n

    return Flow.from_tasks(double).resolve()


def echoing() -> Flow:
    @task(outputs="echo")
    async def echo(n: IO[int]) -> AsyncIterator[int]:
        async for value in n:
            yield value

    return Flow.from_tasks(echo).resolve()


async def test_a_run_is_a_mapping_of_its_streams(place: Place) -> None:
    flow = Flow.from_tasks(count, slow_square).resolve()
    async with place.supervisor(tasks=[count, slow_square]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"limit": 3})
        assert isinstance(run, Mapping)
        assert list(run) == ["square"]
        assert set(run.inputs) == {"limit"}
        with pytest.raises(KeyError, match="all_outputs=True"):
            _ = run["number"]
        full = await supervisor.start_flow(flow, {"limit": 3}, all_outputs=True)
        assert set(full) == {"limit", "number", "square"}
        assert await full["limit"].collect() == [3]
        assert await run.result() == {"square": [0, 1, 4]}


async def test_a_flow_starts_any_number_of_times(place: Place) -> None:
    flow = doubling()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        runs = [await supervisor.start_flow(flow, {"n": n}) for n in (1, 2)]
        assert [await run.result() for run in runs] == [{"twice": [2]}, {"twice": [4]}]


async def test_the_same_run_id_never_makes_a_second_run(place: Place) -> None:
    calls: list[int] = []

    @task(outputs="m")
    async def once(n: int) -> int:
        calls.append(n)
        return n

    flow = Flow.from_tasks(once).resolve()
    async with place.supervisor() as one, place.supervisor() as other, asyncio.timeout(PATIENCE):
        starts = [(one if n % 2 else other).start_flow(flow, {"n": n}, run_id="same") for n in range(10)]
        runs = await asyncio.gather(*starts)
        results = [await run.result() for run in runs]
        assert len({str(result) for result in results}) == 1
        again = await one.start_flow(flow, {"n": 99}, run_id="same")
        assert (again.id, await again.result()) == ("same", results[0])
        another_flow = doubling()
        assert await (await one.start_flow(another_flow, {"n": 5}, run_id="same")).result() == results[0]
    assert len(calls) == 1


async def test_get_run_in_another_process(place: Place) -> None:
    asker = (
        "import asyncio\nfrom datamesh import Supervisor\n"
        "async def main():\n"
        "    run = await Supervisor.instance.get_run('asked')\n"
        "    print(await run.result(), (await run.status()).state.value)\n"
        "Supervisor.attach(tasks=[])\nasyncio.run(main())\n"
    )
    flow = doubling()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        await supervisor.start_flow(flow, {"n": 21}, run_id="asked")
        async with running(["-c", asker], place.environment) as process:
            out, _ = await process.communicate()
        assert (out, process.returncode) == (b"{'twice': [42]} done\n", 0)
        with pytest.raises(UnknownRunError, match="nobody"):
            await supervisor.get_run("nobody")


async def test_the_status_tells_where_a_run_stands(place: Place) -> None:
    flow = Flow.from_tasks(count, slow_square).resolve()
    async with place.supervisor(tasks=[count, slow_square]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"limit": 30})
        began = await run.status()
        assert (began.id, began.state, began.ended) == (run.id, "open", None)
        assert set(began.tasks) == {"numbers.count", "numbers.slow_square"}
        ended = await run.wait()
        assert (ended.state, ended.missing, ended.error) == ("done", (), "")
        assert (ended.tasks["numbers.slow_square"].open, ended.tasks["numbers.slow_square"].done) == (0, 30)
        assert (ended.streams["square"].values, ended.streams["square"].closed) == (30, True)
        assert ended.ended is not None
        assert abs(time.time() - ended.ended) < 10
        assert ended.started <= ended.ended


async def test_events(place: Place) -> None:
    flow = echoing()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, open_inputs=True)
        events = []

        async def follow() -> None:
            events.extend([event async for event in run.events()])

        follower = asyncio.create_task(follow())
        await asyncio.sleep(0.1)
        await run.inputs["n"].write(1)
        await run.inputs["n"].complete()
        await follower
        kinds = [(event.kind, event.subject) for event in events]
        assert ("done", "echo") in kinds
        assert ("closed", "echo") in kinds
        assert kinds[-1] == ("done", run.id)
        assert [(event.kind, event.subject) async for event in run.events()] == [("done", run.id)]


async def test_cancelling_interrupts_what_runs(place: Place) -> None:
    events: list[str] = []

    @task(outputs="m")
    async def stuck(n: IO[int]) -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(60)
        finally:
            events.append("interrupted")

    @task(outputs="k")
    def stuck_thread(n: int, context: Context) -> int:
        while not context.cancelled:
            time.sleep(0.005)
        events.append("looked")
        return n

    flow = Flow.from_tasks(stuck, stuck_thread).resolve()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"n": 1})
        stream = run["m"].stream()
        assert await anext(stream) == 1
        waiting = asyncio.create_task(run["k"].first())
        status = await run.cancel()
        assert status.state == "cancelled"
        with pytest.raises(FlowCancelledError, match=run.id):
            await anext(stream)
        for read in (waiting, run.result(), run["m"].collect()):
            with pytest.raises(FlowCancelledError):
                await read
        assert (await run.wait()).state == "cancelled"
        await until(lambda: _are(events, {"interrupted", "looked"}))


async def _are(events: list[str], expected: set[str]) -> bool:
    return set(events) == expected


async def test_cancelling_a_run_that_has_ended_changes_nothing(place: Place) -> None:
    flow = doubling()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"n": 1})
        await run.wait()
        assert (await run.cancel()).state == "done"
        assert await run.result() == {"twice": [2]}


async def test_a_deadline(place: Place) -> None:
    @task(outputs="m")
    async def stuck(n: int) -> int:
        await asyncio.sleep(60)
        return n

    flow = Flow.from_tasks(stuck).resolve()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        began = time.monotonic()
        run = await supervisor.start_flow(flow, {"n": 1}, deadline=0.2)
        with pytest.raises(FlowTimeoutError, match=run.id):
            await run["m"].first()
        assert 0.15 < time.monotonic() - began < 3.0
        assert (await run.wait()).state == "timeout"
        with pytest.raises(FlowTimeoutError):
            await run.result()
        with pytest.raises(ConfigurationError, match="deadline"):
            await supervisor.start_flow(flow, {"n": 1}, deadline=0)


async def test_a_deadline_of_a_run_that_waits_for_its_tasks(place: Place) -> None:
    nobody = Flow.from_tasks(Task("nobody", inputs="n", outputs="m")).resolve()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(nobody, {"n": 1}, deadline=0.2)
        with pytest.raises(FlowTimeoutError):
            await run["m"].first()


async def test_open_inputs(place: Place) -> None:
    flow = echoing()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, open_inputs=True)
        echo = run["echo"].stream()
        for n in range(5):
            await run.inputs["n"].write(n)
            assert await anext(echo) == n
        with pytest.raises(InvalidValueError):
            await run.inputs["n"].write("text")
        await run.inputs["n"].complete()
        assert [value async for value in echo] == []
        with pytest.raises(ReadOnlyIOError, match=r"complete|over"):
            await run.inputs["n"].write(6)
        assert await run.inputs["n"].collect() == list(range(5))


async def test_open_inputs_with_first_values_written_from_two_places(place: Place) -> None:
    flow = doubling()
    async with place.supervisor() as supervisor, place.supervisor() as other, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"n": 0}, open_inputs=True)
        again = await other.get_run(run.id)
        for n in range(1, 11):
            await (run if n % 2 else again).inputs["n"].write(n)
        await again.inputs["n"].complete()
        assert await run["twice"].collect(ordered=True) == [2 * n for n in range(11)]


async def test_open_inputs_of_a_cancelled_run_cannot_be_written(place: Place) -> None:
    flow = echoing()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, open_inputs=True)
        await run.cancel()
        with pytest.raises(ReadOnlyIOError, match="over"):
            await run.inputs["n"].write(1)


async def test_a_run_waits_for_tasks_that_nobody_announced(place: Place) -> None:
    flow = Flow.from_tasks(count, slow_square).resolve()
    async with place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"limit": 4}, run_id="patient")
        cancelled = await supervisor.start_flow(flow, {"limit": 4})
        status = await run.status()
        assert (status.state, set(status.missing)) == ("waiting", {"numbers.count@1", "numbers.slow_square@1"})
        await cancelled.cancel()
        with pytest.raises(FlowCancelledError):
            await cancelled["square"].first()
        assert (await (await supervisor.get_run("patient")).status()).state == "waiting"
        again = await supervisor.start_flow(flow, {"limit": 9}, run_id="patient")
        assert list(await supervisor.get_run(cancelled.id)) == ["square"]
        async with place.supervisor(tasks=[count]):
            assert (await run.status()).missing == ("numbers.slow_square@1",)
            async with place.service("numbers"):
                for each in (run, again):
                    assert await each["square"].collect(ordered=True) == [0, 1, 4, 9]
        assert (await cancelled.status()).state == "cancelled"


async def test_a_waiting_run_takes_values_into_its_open_inputs(place: Place) -> None:
    echo = Task("echo", inputs={"n": int}, outputs={"echo": int})
    async with place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(echo).resolve(), {"n": 1}, open_inputs=True)

        async def write() -> None:
            await run.inputs["n"].write(2, 3)
            await run.inputs["n"].complete()

        writing = asyncio.create_task(write())

        @echo
        async def _echo(n: IO[int]) -> AsyncIterator[int]:
            async for value in n:
                yield value

        async with place.supervisor():
            assert await run["echo"].collect() == [1, 2, 3]
            await writing


async def test_a_run_of_an_announced_task_that_nobody_serves_now_says_so(place: Place) -> None:
    flow = doubling()
    async with place.supervisor():
        pass
    async with place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"n": 1})
        status = await run.status()
        assert (status.state, status.missing) == ("open", ("double@1",))
        async with place.supervisor():
            assert await run["twice"].first() == 2


async def test_a_forgotten_run_is_unknown(place: Place) -> None:
    flow = doubling()
    async with place.supervisor(retention=0.2) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"n": 1})
        assert await run.result() == {"twice": [2]}
        await asyncio.sleep(0.4)
        for ask in (run.status(), run.cancel(), run.wait(), supervisor.get_run(run.id)):
            with pytest.raises(UnknownRunError):
                await ask


async def test_in_memory() -> None:
    @task(outputs="a")
    async def upto(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @task(outputs="total", wait=True)
    async def add(a: IO[int]) -> int:
        return sum(await a.collect())

    async with Supervisor(url="memory://") as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(upto, add).resolve(), {"n": 10}, all_outputs=True)
        assert await run.result() == {"n": [10], "a": list(range(10)), "total": [45]}


async def test_a_write_that_redis_did_not_answer_may_be_repeated(place: Place, server: Server) -> None:
    @task(outputs="twice")
    async def double(n: int) -> int:
        return 2 * n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(double).resolve(), open_inputs=True)
        await run.inputs["n"].write(1)
        shard = (await supervisor.session()).shard_of(run.id)
        shard.protocol._patience = 0.1
        # What is refused for want of memory is not written, and what was written is not again.
        server.client.config_set("maxmemory", 1)
        try:
            for value in (2, 2, 3):
                with pytest.raises(StoreUnavailableError, match="maxmemory"):
                    await run.inputs["n"].write(value)
        finally:
            server.client.config_set("maxmemory", 0)
        await run.inputs["n"].write(3)
        await run.inputs["n"].complete()
        assert sorted(await run["twice"].collect()) == [2, 4, 6]
