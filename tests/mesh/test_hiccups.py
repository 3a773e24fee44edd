"""Redis refuses for a moment what it did a moment ago: work waits, and no attempt is charged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from datamesh import Context, Flow, IOVal, Supervisor, Task
from datamesh.model.registry import registry
from tests.faults.checks import assert_once
from tests.mesh.places import PATIENCE
from tests.servers import KINDS, Server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60), pytest.mark.parametrize("server", KINDS, indirect=True)]

COUNT = 120
HICCUP_SECONDS = 1.5

echo = Task("echo", inputs={"number": int}, outputs={"same": int})
Change = Callable[[redis.Redis], object]


@pytest.fixture
def attempts() -> list[int]:
    return []


@pytest.fixture
def flow(attempts: list[int]) -> Iterator[Flow]:
    with registry.isolated():

        @echo
        async def _echo(number: int, context: Context) -> int:
            attempts.append(context.attempt)
            await asyncio.sleep(0.02)
            return number

        yield Flow.from_tasks(echo).resolve()


def numbers(count: int) -> list[IOVal[int]]:
    return [IOVal("number", number) for number in range(count)]


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (lambda client: client.replicaof("127.0.0.1", 1), lambda client: client.replicaof("NO", "ONE")),
        (
            lambda client: client.config_set("min-replicas-to-write", 1),
            lambda client: client.config_set("min-replicas-to-write", 0),
        ),
        (lambda client: client.client_kill_filter(_type="normal", skipme=True), lambda client: None),
        (lambda client: client.client_pause(1000), lambda client: None),
    ],
    ids=["READONLY", "NOREPLICAS", "connections closed", "clients paused"],
)
async def test_work_goes_on_afterwards(
    server: Server, mesh: str, flow: Flow, attempts: list[int], begin: Change, end: Change
) -> None:
    async with Supervisor(url=server.url, mesh=mesh, tasks=[echo], concurrency=4) as supervisor:
        async with asyncio.timeout(PATIENCE):
            run = await supervisor.start_flow(flow, numbers(COUNT))
            values: list[int] = []
            async for value in run["same"]:
                values.append(value)
                if len(values) == 20:
                    await asyncio.to_thread(begin, server.client)
                    asyncio.get_running_loop().call_later(HICCUP_SECONDS, end, server.client)
    assert_once(values, range(COUNT))
    assert set(attempts) == {1}


async def test_scripts_that_the_server_forgets_all_the_time(server: Server, mesh: str, flow: Flow) -> None:
    async def forget() -> None:
        while True:
            await asyncio.to_thread(server.client.script_flush)
            await asyncio.sleep(0.01)

    async with Supervisor(url=server.url, mesh=mesh, tasks=[echo], concurrency=4) as supervisor:
        forgetting = asyncio.create_task(forget())
        async with asyncio.timeout(PATIENCE):
            run = await supervisor.start_flow(flow, numbers(COUNT))
            assert_once(await run["same"].collect(), range(COUNT))
        forgetting.cancel()
        await asyncio.gather(forgetting, return_exceptions=True)


async def test_a_work_stream_that_goes_while_it_is_waited_at(server: Server, mesh: str, flow: Flow) -> None:
    """Its group goes with it, and is made again from the first entry on."""
    async with Supervisor(url=server.url, mesh=mesh, tasks=[echo]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, numbers(1))
        assert await run["same"].collect() == [0]
        server.client.delete(f"{{{mesh}:0}}:work:echo@1")
        began = time.monotonic()
        again = await supervisor.start_flow(flow, numbers(3))
        assert sorted(await again["same"].collect()) == [0, 1, 2]
        assert time.monotonic() - began < 2.0
