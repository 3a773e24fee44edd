"""Draining: a service that is told to end finishes or gives back what it has, and nothing is lost."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest

from datamesh import IO, Flow, IOVal, task
from tests.mesh.places import PATIENCE, Place
from tests.mesh.services.numbers import slow_square, stuck, who

pytestmark = pytest.mark.anyio


async def test_sigterm_ends_a_service_with_nothing_lost(place: Place) -> None:
    flow = Flow.from_tasks(slow_square).resolve()
    async with (
        place.supervisor(tasks=[]) as supervisor,
        place.service("numbers") as first,
        place.service("numbers"),
        asyncio.timeout(PATIENCE),
    ):
        run = await supervisor.start_flow(flow, [IOVal("number", n) for n in range(2000)])
        await run["square"].first()
        first.terminate()
        assert first.stdout is not None
        assert await first.stdout.readline() == b"drained\n"
        assert await first.wait() == 0
        assert await run["square"].collect(ordered=True) == [n * n for n in range(2000)]
        status = (await run.wait()).tasks["numbers.slow_square"]
        assert (status.done, status.failed) == (2000, 0)


async def test_a_draining_service_takes_nothing_new(place: Place) -> None:
    async with place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        async with place.service("numbers", GRACE="10") as first:
            busy = await supervisor.start_flow(Flow.from_tasks(stuck).resolve(), {"seconds": 1.0})
            assert await busy["began"].first() == 1.0
            first.send_signal(signal.SIGINT)
            await asyncio.sleep(0.3)
            waiting = await supervisor.start_flow(Flow.from_tasks(who).resolve(), {"number": 1})
            assert await busy["slept"].first() == 1.0
            assert await first.wait() == 0
            assert (await waiting.status()).missing == ("numbers.who@1",)
        async with place.service("numbers") as second:
            assert await waiting["pid"].first() == second.pid


async def test_what_outlives_the_grace_is_given_back(place: Place) -> None:
    flow = Flow.from_tasks(stuck).resolve()
    async with place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        async with place.service("numbers", GRACE="0.2") as first:
            run = await supervisor.start_flow(flow, {"seconds": 3.0})
            await run["began"].first()
            began = time.monotonic()
            first.terminate()
            assert await first.wait() == 0
            assert time.monotonic() - began < 2.5
            status = await run.status()
            assert (status.state, status.tasks["numbers.stuck"].failed) == ("open", 0)
        async with place.service("numbers"):
            assert await run.result() == {"began": [3.0], "slept": [3.0]}


async def test_a_second_signal_ends_it_at_once(place: Place) -> None:
    async with place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        async with place.service("numbers", GRACE="20") as first:
            run = await supervisor.start_flow(Flow.from_tasks(stuck).resolve(), {"seconds": 15.0})
            await run["began"].first()
            first.terminate()
            await asyncio.sleep(0.3)
            assert first.returncode is None
            first.terminate()
            assert await first.wait() != 0
        await run.cancel()


async def test_leaving_the_context_drains(place: Place) -> None:
    @task(outputs="m")
    async def nap(n: int) -> int:
        await asyncio.sleep(0.2)
        return n

    @task(outputs="k")
    async def doze(n: IO[int]) -> AsyncIterator[int]:
        async for value in n:
            await asyncio.sleep(0.2)
            yield value

    flow = Flow.from_tasks(nap, doze).resolve()
    async with place.supervisor(tasks=[]) as reader, asyncio.timeout(PATIENCE):
        async with place.supervisor() as supervisor:
            run = await supervisor.start_flow(flow, {"n": 1}, run_id="drained")
            await asyncio.sleep(0.1)
        result = await (await reader.get_run(run.id)).result()
        assert result == {"m": [1], "k": [1]}


async def test_it_may_be_entered_again(place: Place) -> None:
    @task(outputs="m")
    async def echo(n: int) -> int:
        return n

    supervisor = place.supervisor()
    flow = Flow.from_tasks(echo).resolve()
    for n in range(2):
        async with supervisor, asyncio.timeout(PATIENCE):
            assert await (await supervisor.start_flow(flow, {"n": n}))["m"].first() == n
