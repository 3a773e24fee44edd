"""A mesh on a primary that sentinels watch: it moves to the replica, and nobody has to be told."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import redis.asyncio.sentinel
import redis.sentinel

from datamesh import Flow, IOVal, StoreUnavailableError, Supervisor, Task
from datamesh.model.registry import registry
from datamesh.store.durability import Durability, confirm
from datamesh.store.link import Link
from datamesh.store.sentinel import Sentinel
from tests.faults.checks import assert_once
from tests.mesh.places import until
from tests.sentinel import SERVICE, Watched, assert_none_lost
from tests.servers import KINDS, program, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

RECOVERY_SECONDS = 10.0
COUNT, AT = 600, 50
"""Values of a run, and those that are there when the fault happens."""

double = Task("double", inputs={"number": int}, outputs={"doubled": int})


@pytest.fixture
def flow() -> Iterator[Flow]:
    with registry.isolated():

        @double
        async def _double(number: int) -> int:
            await asyncio.sleep(0.02)
            return 2 * number

        yield Flow.from_tasks(double).resolve()


@pytest.fixture(params=KINDS)
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    if program(request.param) is None:
        pytest.skip(f"there is no {request.param} server on this machine")
    with Watched(request.param) as found:
        yield found


def numbers(count: int) -> list[IOVal[int]]:
    return [IOVal("number", number) for number in range(count)]


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_work_goes_on_at_the_replica(watched: Watched, mesh: str, flow: Flow, fault: str) -> None:
    values: list[int] = []
    times: list[float] = []
    service = Supervisor(url=watched.url, mesh=mesh, tasks=[double], lease=2.0, concurrency=4)
    starter = Supervisor(url=watched.url, mesh=mesh, tasks=[], lease=2.0)
    async with service, starter, asyncio.timeout(60):
        run = await starter.start_flow(flow, numbers(COUNT))
        await confirm((await starter.session()).store, run.id, Durability.REPLICATED)
        async for value in run["doubled"]:
            values.append(value)
            times.append(time.monotonic())
            if len(values) == AT and fault == "kill":
                watched.primary.stop(kill=True)
            elif len(values) == AT:
                watched.primary.pause()
        longest = max(after - before for before, after in pairwise(times))
        assert_none_lost(values, [2 * number for number in range(COUNT)], at=AT)
        assert_once(await run["doubled"].collect(), [2 * number for number in range(COUNT)])
        assert longest < RECOVERY_SECONDS, f"{longest:.1f} s without a value"
        assert (await run.wait()).state == "done"
        if fault == "pause":
            watched.primary.resume()
            is_demoted = functools.partial(watched.has, watched.primary, "role", "slave")
            await asyncio.to_thread(wait_until, is_demoted, seconds=25)
        again = await starter.start_flow(flow, numbers(3))
        assert sorted(await again["doubled"].collect()) == [0, 2, 4]
    assert watched.replica.client.exists(f"{{{mesh}:0}}:run:{again.id}")


async def test_idle_connections_leave_the_primary_that_was(mesh: str, flow: Flow) -> None:
    with Watched("redis", sentinels=1) as watched:
        async with Supervisor(url=watched.url, mesh=mesh, tasks=[double]) as supervisor, asyncio.timeout(40):
            links = _links((await supervisor.session()).store.endpoint)
            await asyncio.to_thread(watched.fail_over)
            await asyncio.to_thread(watched.wait_for_promotion)
            # The one before takes writes for some seconds more, until the sentinels demote it.
            assert watched.has(watched.primary, "role", "master")

            async def have_left() -> bool:
                return all(_port(link) in (watched.replica.port, None) for link in links)

            await until(have_left, seconds=5)
            run = await supervisor.start_flow(flow, numbers(5))
            assert sorted(await run["doubled"].collect()) == [0, 2, 4, 6, 8]
            assert watched.replica.client.exists(f"{{{mesh}:0}}:run:{run.id}")


def _links(endpoint: Any) -> list[Link]:
    assert isinstance(endpoint, Sentinel)
    return list(endpoint._links)


def _port(link: Link) -> int | None:
    connection: Any = link._connection
    return None if connection is None else int(connection.port)


async def test_other_sentinels_are_learned(mesh: str, flow: Flow) -> None:
    with Watched("redis") as watched:
        first = watched.sentinels[0]
        url = f"redis+sentinel://127.0.0.1:{first.port}/{SERVICE}"
        async with Supervisor(url=url, mesh=mesh, tasks=[double]) as supervisor, asyncio.timeout(40):
            await supervisor.start_flow(flow, numbers(1))
            first.kill()
            watched.primary.stop(kill=True)
            run = await supervisor.start_flow(flow, numbers(5))
            assert sorted(await run["doubled"].collect()) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("module", [redis.asyncio.sentinel, redis.sentinel])
async def test_clients_and_passwords(mesh: str, flow: Flow, module: Any) -> None:
    with Watched("redis", sentinels=1, password="p@ss", sentinel_password="other") as watched:
        known = [("127.0.0.1", watched.sentinels[0].port)]
        manager = module.Sentinel(known, sentinel_kwargs={"password": "other"}, password="p@ss")
        async with asyncio.timeout(40):
            for options in ({"url": watched.url.replace("p@ss", "p%40ss")}, {"client": manager.master_for(SERVICE)}):
                async with Supervisor(**options, mesh=mesh, tasks=[double]) as supervisor:
                    run = await supervisor.start_flow(flow, numbers(2))
                    assert sorted(await run["doubled"].collect()) == [0, 2]
            with pytest.raises(StoreUnavailableError, match="other-service"):
                await Supervisor(url=watched.url.replace("p@ss", "p%40ss").replace("/main", "/other-service")).session()
            with pytest.raises(StoreUnavailableError, match=r"(?i)auth"):
                await Supervisor(url=watched.url.partition("?")[0].replace("p@ss", "p%40ss")).session()


async def test_no_sentinel_answers() -> None:
    with pytest.raises(StoreUnavailableError, match="no sentinel answers"):
        await Supervisor(url="redis+sentinel://127.0.0.1:1,127.0.0.1:2/main").session()
