"""What the benchmark asks of a mesh. Each load returns a rate, and fails where a value is missing or out of order."""

from __future__ import annotations

import time

import anyio

from datamesh import IOVal, Supervisor
from tests.faults.flows import two_stages


async def one_stream(supervisor: Supervisor, count: int) -> float:
    """Values per second, from the start of a run to its last value, read in order."""
    values = [IOVal(name="number", value=value) for value in range(count)]
    began = time.perf_counter()
    run = await supervisor.start_flow(two_stages, inputs=values)
    found = await run["tripled"].collect(ordered=True)
    seconds = time.perf_counter() - began
    assert found == [3 * (value + 1) for value in range(count)], "values are missing or out of order"
    return count / seconds


async def many_runs(supervisor: Supervisor, count: int, *, together: int) -> float:
    """Runs of one value per second, so many in flight."""
    left = iter(range(count))

    async def one_after_another() -> None:
        for number in left:
            run = await supervisor.start_flow(two_stages, inputs=[IOVal(name="number", value=number)])
            assert await run["tripled"].first() == 3 * (number + 1)

    began = time.perf_counter()
    async with anyio.create_task_group() as group:
        for _ in range(together):
            group.start_soon(one_after_another)
    return count / (time.perf_counter() - began)
