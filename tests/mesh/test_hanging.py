"""Functions that hang: the run goes on, and what cannot be stopped is not run beside its own repetition."""

import asyncio
import threading
import time

import pytest

from datamesh import Context, Flow, FlowTimeoutError, IOVal, LocalExecutor, Retry, TaskFailedError, task
from tests.mesh.places import PATIENCE, Place, until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


async def test_a_hung_thread_ends_by_its_timeout_and_keeps_its_slot(place: Place) -> None:
    go_on, begun = threading.Event(), []

    @task(outputs="m", timeout=0.2, on_error="skip")
    def hang(n: int) -> int:
        begun.append(n)
        go_on.wait(20)
        return n

    executor = LocalExecutor()
    async with place.supervisor(concurrency=2, executor=executor) as supervisor, asyncio.timeout(PATIENCE):
        flow = Flow.from_tasks(hang).resolve()
        hung = await supervisor.start_flow(flow, [IOVal("n", n) for n in range(2)])
        assert (await hung.result()).skipped == 2
        assert executor.abandoned == 2
        # Both slots are taken by what cannot be stopped.
        waiting = await supervisor.start_flow(flow, {"n": 2})
        await asyncio.sleep(0.5)
        assert begun == [0, 1]
        go_on.set()
        assert await waiting["m"].first() == 2
        assert executor.abandoned == 0


async def test_a_coroutine_that_hangs_is_interrupted_and_repeated(place: Place) -> None:
    attempts: list[int] = []

    @task(outputs="m", timeout=0.1, retry=Retry(attempts=2, backoff=0.01))
    async def hang(n: int, context: Context) -> int:
        attempts.append(context.attempt)
        if context.attempt == 1:
            await asyncio.sleep(60)
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(hang).resolve(), {"n": 3})
        assert await run["m"].first() == 3
    assert attempts == [1, 2]


async def test_a_thread_hears_that_its_run_is_over(place: Place) -> None:
    heard = threading.Event()

    @task(outputs="m")
    def patient(n: int, context: Context) -> int:
        until_then = time.monotonic() + 20
        while not context.cancelled and time.monotonic() < until_then:
            time.sleep(0.01)
        heard.set()
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(patient).resolve(), {"n": 3})
        await until(lambda: _is_running(run))
        await run.cancel()
        assert await asyncio.to_thread(heard.wait, 5)


async def _is_running(run: object) -> bool:
    status = await run.status()  # type: ignore[attr-defined]
    return bool(status.tasks["patient"].queued)


async def test_a_run_ends_by_its_deadline_whatever_its_code_does(place: Place) -> None:
    @task(outputs="m")
    async def hang(n: int) -> int:
        await asyncio.sleep(60)
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(hang).resolve(), {"n": 3}, deadline=0.3)
        with pytest.raises(FlowTimeoutError):
            await run.result()


async def test_a_timeout_says_what_it_was(place: Place) -> None:
    @task(outputs="m", timeout=0.05)
    async def hang(n: int) -> int:
        await asyncio.sleep(60)
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(hang).resolve(), {"n": 3})
        with pytest.raises(TaskFailedError, match="TimeoutError"):
            await run.result()
