"""What many runs leave behind: nothing, once their retention is over."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import anyio
import pytest
import redis

from datamesh import Flow, FlowCancelledError, FlowRun, IOVal, Supervisor, Task, TaskFailedError
from datamesh.model.registry import registry
from datamesh.supervise import timers
from tests.servers import Server

pytestmark = [pytest.mark.anyio, pytest.mark.redis]

RETENTION = 1.0
RUNS = 1000
TOGETHER = 50

moody = Task(name="moody", inputs={"number": int}, outputs={"part": int})
total = Task(name="total", inputs={"part": int}, outputs={"sum": int})


@pytest.fixture
def implemented() -> object:
    """Implementations of the two tasks, which fail, hang or work as the number says."""
    with registry.isolated():

        @moody
        async def _moody(number: int) -> AsyncIterator[int]:
            yield number
            if number % 3 == 1:
                raise ValueError("a bad day")
            if number % 3 == 2:
                await anyio.sleep(60)

        @total
        async def _total(part: int) -> int:
            return part + 1

        yield


async def one(supervisor: Supervisor, flow: Flow, number: int) -> None:
    """Start a run and end it in the way that its number says, with large values in some."""
    run: FlowRun = await supervisor.start_flow(flow, inputs=[IOVal(name="number", value=number)])
    match number % 3:
        case 0:
            assert await run["sum"].collect() == [number + 1]
            await run.wait()
        case 1:
            with pytest.raises(TaskFailedError):
                await run["sum"].collect()
        case _:
            assert await run["sum"].first() == number + 1
            await run.cancel()
            with pytest.raises(FlowCancelledError):
                await run["sum"].collect()


def keys_of_runs(client: redis.Redis) -> list[bytes]:
    """Keys that belong to runs, and entries of the shard's keys that tell of some."""
    found = [key for key in client.scan_iter("*", count=1000) if b":run:" in key]
    for key in client.scan_iter("*", count=1000):
        name = key.rpartition(b":")[2]
        kind = client.type(key)
        if name in (b"runs", b"ended", b"due") and client.zcard(key):
            found.append(key)
        if name in (b"marks", b"later", b"waiting") and client.hlen(key):
            found.append(key)
        if kind == b"stream" and b":work:" in key and client.xlen(key):
            found.append(key)
    return found


async def until(condition: Callable[[], bool], *, seconds: float = 15.0) -> bool:
    """Look again until it holds; False: it does not within that time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(0.1)
    return True


def present() -> tuple[int, int]:
    """Threads and asyncio tasks of this process, but for the threads that an event loop keeps for `to_thread`."""
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("asyncio_")]
    return len(threads), len(asyncio.all_tasks())


def _at_most(before: tuple[int, int]) -> bool:
    return all(now <= then for now, then in zip(present(), before, strict=True))


@pytest.mark.slow
async def test_runs_of_every_end_leave_nothing_behind(
    server: Server, mesh: str, implemented: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timers, "_SWEEP_SECONDS", 0.5)
    flow = Flow.from_tasks(moody, total).resolve()
    async with Supervisor(
        url=server.url, mesh=mesh, tasks=[moody, total], retention=RETENTION, lease=1.0
    ) as supervisor:
        for number in range(3):
            await one(supervisor, flow, number)
        await asyncio.sleep(3)  # of no use to the test but that readers and threads of the first runs come to rest
        connections, before = len(server.client.client_list()), present()
        for first in range(0, RUNS, TOGETHER):
            async with asyncio.TaskGroup() as group:
                for number in range(first, min(RUNS, first + TOGETHER)):
                    group.create_task(one(supervisor, flow, number))
        assert await until(lambda: not keys_of_runs(server.client)), keys_of_runs(server.client)[:20]
        assert await until(lambda: _at_most(before)), (
            present(),
            before,
            [t.get_name() for t in asyncio.all_tasks()],
        )
        assert await until(lambda: len(server.client.client_list()) <= connections)
        assert not supervisor._session._scopes._scopes  # type: ignore[union-attr]


async def test_a_supervisor_that_was_closed_leaves_nothing_behind(server: Server, mesh: str) -> None:
    threads, tasks = present()
    connections = len(server.client.client_list())
    for _ in range(3):
        async with Supervisor(url=server.url, mesh=mesh, tasks=[]):
            assert len(server.client.client_list()) > connections
    assert await until(lambda: _at_most((threads, tasks)), seconds=5.0)
    assert await until(lambda: len(server.client.client_list()) == connections, seconds=5.0)
    assert not list(server.client.scan_iter("*:members"))
