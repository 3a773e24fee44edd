"""What outlives its surroundings: a run outlives the process that started it, and a Redis that is restarted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import anyio
import pytest

from datamesh import Supervisor
from tests.faults import flows
from tests.faults.checks import LEASE, PATIENCE, Reading, assert_once, nothing, numbers, parts
from tests.faults.processes import Service, services
from tests.servers import Server

pytestmark = [pytest.mark.anyio, pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.fixture
def lasting() -> Iterator[Server]:
    """A server that keeps every write."""
    with Server("valkey", persist=True) as server:
        yield server


async def test_a_run_goes_on_when_the_process_that_started_it_is_killed(redis_url: str, mesh: str) -> None:
    with services(1, redis_url, "double", mesh=mesh):
        starter = Service(redis_url, "starter-run", "500", module="tests.faults.starter", mesh=mesh)
        try:
            assert starter.wait_for_line() == "started"
            starter.kill()
        finally:
            starter.end()
        async with Supervisor(url=redis_url, mesh=mesh, tasks=[]) as supervisor:
            with anyio.fail_after(PATIENCE):
                values = await (await supervisor.get_run("starter-run"))["doubled"].collect()
    assert_once(values, [2 * value for value in range(500)])


@pytest.mark.parametrize("name", ["double", "scatter", "unroll"])
async def test_a_run_goes_on_when_redis_was_restarted(lasting: Server, mesh: str, name: str) -> None:
    flow, count, output = {
        "double": (flows.doubling, 5000, "doubled"),
        "scatter": (flows.scattering, 300, "part"),
        "unroll": (flows.unrolling, 300, "part"),
    }[name]
    expected = parts(count) if output == "part" else [2 * value for value in range(count)]
    reading = Reading()
    with services(2, lasting.url, name, mesh=mesh, lease=2.0):
        async with Supervisor(url=lasting.url, mesh=mesh, tasks=[], lease=LEASE) as supervisor:
            run = await supervisor.start_flow(flow, inputs=numbers(count))

            async def restart() -> None:
                await asyncio.to_thread(lasting.stop, kill=True)
                await asyncio.sleep(0.5)
                await asyncio.to_thread(lasting.start)

            with anyio.fail_after(PATIENCE):
                await reading.read(run[output], fault=restart, at=len(expected) // 4)
    assert_once(reading.values, expected)


async def test_values_that_nobody_serves_wait_for_a_service(redis_url: str, mesh: str) -> None:
    with services(1, redis_url, "double", mesh=mesh, lease=0.4) as (first,):
        async with Supervisor(url=redis_url, mesh=mesh, tasks=[], lease=LEASE) as supervisor:
            run = await supervisor.start_flow(flows.doubling, inputs=numbers(2000))
            reading = Reading()

            async def die() -> None:
                first.kill()

            with anyio.move_on_after(1.0):
                await reading.read(run["doubled"], fault=die, at=100)
            assert len(reading.values) < 2000
            with services(1, redis_url, "double", mesh=mesh), anyio.fail_after(PATIENCE):
                again = Reading()
                await again.read(run["doubled"], fault=nothing, at=0)
    assert_once(again.values, [2 * value for value in range(2000)])
