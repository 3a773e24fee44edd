"""A hundred thousand values through two tasks in another process: each once, and in order where that is asked for."""

from __future__ import annotations

import anyio
import pytest

from datamesh import Supervisor
from tests.faults import flows
from tests.faults.checks import PATIENCE, assert_once, numbers
from tests.faults.processes import services

pytestmark = [pytest.mark.anyio, pytest.mark.redis, pytest.mark.slow]

COUNT = 100_000


async def test_each_value_comes_once_and_in_order(redis_url: str, mesh: str) -> None:
    expected = [3 * (value + 1) for value in range(COUNT)]
    with services(2, redis_url, "increment", "triple", mesh=mesh):
        async with Supervisor(url=redis_url, mesh=mesh, tasks=[]) as supervisor:
            run = await supervisor.start_flow(flows.two_stages, inputs=numbers(COUNT))
            with anyio.fail_after(PATIENCE):
                arrived = await run["tripled"].collect()
                ordered = await run["tripled"].collect(ordered=True)
    assert_once(arrived, expected)
    assert ordered == expected
