"""Connections that break after a command has run and before its reply is read: nothing is lost, nothing comes twice."""

from __future__ import annotations

import anyio
import pytest

from datamesh import Flow, Supervisor
from tests.faults import flows
from tests.faults.checks import LEASE, PATIENCE, assert_once, nothing, numbers, parts, run_with_fault
from tests.faults.processes import services
from tests.faults.proxy import lossy_proxy

pytestmark = [pytest.mark.anyio, pytest.mark.redis, pytest.mark.timeout(120)]

CASES: dict[str, tuple[Flow, int, str, list[int]]] = {
    "double": (flows.doubling, 3000, "doubled", [2 * value for value in range(3000)]),
    "scatter": (flows.scattering, 400, "part", parts(400)),
    "unroll": (flows.unrolling, 300, "part", parts(300)),
}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", list(CASES))
async def test_values_come_out_once_though_replies_are_lost(redis_url: str, mesh: str, name: str, seed: int) -> None:
    flow, count, output, expected = CASES[name]
    with lossy_proxy(redis_url, seed=seed, mean=20) as proxy:
        with services(2, proxy.url, name, mesh=mesh, lease=2.0):
            proxy.is_lossy = True
            reading = await run_with_fault(redis_url, mesh, flow, count, output=output, fault=nothing, at=0)
            proxy.is_lossy = False
        assert proxy.losses >= 1
    assert_once(reading.values, expected)


async def test_a_start_whose_reply_is_lost_is_one_run(redis_url: str, mesh: str) -> None:
    with services(1, redis_url, "double", mesh=mesh), lossy_proxy(redis_url, seed=3, mean=8) as proxy:
        async with Supervisor(url=proxy.url, mesh=mesh, tasks=[], lease=LEASE) as supervisor:
            proxy.is_lossy = True
            for _ in range(5):
                run = await supervisor.start_flow(flows.doubling, inputs=numbers(300))
                with anyio.fail_after(PATIENCE):
                    assert_once(await run["doubled"].collect(), [2 * value for value in range(300)])
            proxy.is_lossy = False
        assert proxy.losses >= 1
