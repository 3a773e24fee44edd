"""Services that die or freeze in the middle of their work: every value still comes out once, and soon."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import anyio
import pytest

from datamesh import Supervisor
from tests.faults import flows
from tests.faults.checks import (
    LEASE,
    PATIENCE,
    SLACK,
    assert_once,
    freezing,
    killing,
    nothing,
    numbers,
    parts,
    run_with_fault,
)
from tests.faults.processes import services

pytestmark = [pytest.mark.anyio, pytest.mark.redis, pytest.mark.timeout(120)]


@pytest.mark.slow
async def test_values_of_a_killed_service_come_out_once_within_two_leases(redis_url: str, mesh: str) -> None:
    with services(2, redis_url, "double", mesh=mesh, lease=LEASE, concurrency=20) as (first, _):
        reading = await run_with_fault(
            redis_url, mesh, flows.doubling, 20_000, output="doubled", fault=killing(first), at=4000
        )
    assert_once(reading.values, [2 * value for value in range(20_000)])
    assert reading.longest_pause < 2 * LEASE + SLACK


@pytest.mark.slow
async def test_values_of_a_frozen_service_come_out_once_though_it_wakes_up(redis_url: str, mesh: str) -> None:
    with services(2, redis_url, "double", mesh=mesh, lease=LEASE, concurrency=20) as (first, _):
        reading = await run_with_fault(
            redis_url, mesh, flows.doubling, 30_000, output="doubled", fault=freezing(first, 2 * LEASE), at=4000
        )
        assert first.returncode is None
    assert_once(reading.values, [2 * value for value in range(30_000)])
    assert reading.longest_pause < 2 * LEASE + SLACK


async def test_a_service_that_woke_up_works_on_under_a_new_name(redis_url: str, mesh: str) -> None:
    with services(1, redis_url, "double", mesh=mesh, lease=0.4) as (only,):
        await run_with_fault(redis_url, mesh, flows.doubling, 200, output="doubled", fault=freezing(only, 0.8), at=50)
        again = await run_with_fault(redis_url, mesh, flows.doubling, 200, output="doubled", fault=nothing, at=0)
    assert_once(again.values, [2 * value for value in range(200)])


@pytest.mark.parametrize("name", ["scatter", "unroll"])
async def test_a_generator_that_dies_while_it_yields_is_repeated_without_doubles(
    redis_url: str, mesh: str, name: str
) -> None:
    flow = {"scatter": flows.scattering, "unroll": flows.unrolling}[name]
    with ExitStack() as stack:
        doomed = stack.enter_context(services(2, redis_url, name, mesh=mesh, lease=LEASE))

        async def fault() -> None:
            # Nobody knows which of them has the stream: both die, and a third takes over.
            stack.enter_context(services(1, redis_url, name, mesh=mesh, lease=LEASE))
            for service in doomed:
                service.kill()

        reading = await run_with_fault(redis_url, mesh, flow, 300, output="part", fault=fault, at=400)
    assert_once(reading.values, parts(300))


@pytest.mark.parametrize("name", ["scatter", "unroll"])
async def test_a_generator_that_freezes_while_it_yields_is_overtaken_without_doubles(
    redis_url: str, mesh: str, name: str
) -> None:
    flow = {"scatter": flows.scattering, "unroll": flows.unrolling}[name]
    with services(2, redis_url, name, mesh=mesh, lease=0.5) as pair:
        faults = [freezing(service, 1.0) for service in pair]

        async def fault() -> None:
            # Nobody knows which of them has the stream: stop one after the other.
            await faults[0]()
            asyncio.get_running_loop().call_later(1.5, pair[1].stop)
            asyncio.get_running_loop().call_later(2.5, pair[1].resume)

        reading = await run_with_fault(redis_url, mesh, flow, 300, output="part", fault=fault, at=400)
    assert_once(reading.values, parts(300))


async def test_a_stream_is_in_order_again_after_a_crash(redis_url: str, mesh: str) -> None:
    with services(2, redis_url, "scatter", mesh=mesh, lease=LEASE) as (first, _):
        values: list[int] = []
        async with Supervisor(url=redis_url, mesh=mesh, tasks=[], lease=LEASE) as supervisor:
            run = await supervisor.start_flow(flows.scattering, inputs=numbers(200))
            asyncio.get_running_loop().call_later(0.3, first.kill)
            with anyio.fail_after(PATIENCE):
                values = [value async for value in run["part"].stream(ordered=True)]
    assert values == parts(200)
