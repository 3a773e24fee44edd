"""What the fault tests share: a run during which a fault happens, and the comparison of what came out."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

import anyio

from datamesh import IO, Flow, IOVal, Supervisor
from tests.faults import flows
from tests.faults.processes import Service

LEASE = 1.0
SLACK = 1.5
"""Seconds that a busy machine may add to what the protocol promises."""
PATIENCE = 50.0

Fault = Callable[[], Awaitable[None]]


def numbers(count: int) -> list[IOVal[int]]:
    return [IOVal(name="number", value=value) for value in range(count)]


def parts(count: int) -> list[int]:
    return list(range(flows.PARTS * count))


class Reading:
    """The values of a stream as they arrive, and the longest pause between two of them."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.longest_pause = 0.0

    async def read(self, stream: IO[Any], *, fault: Fault, at: int) -> None:
        """Read to the end; when `at` values are here, the fault happens, and pauses count from then on."""
        last: float | None = None
        async for value in stream:
            self.values.append(value)
            now = time.monotonic()
            if last is not None:
                self.longest_pause = max(self.longest_pause, now - last)
                last = now
            if len(self.values) == at:
                await fault()
                last = time.monotonic()


async def run_with_fault(
    url: str, mesh: str, flow: Flow, count: int, *, output: str, fault: Fault, at: int, tasks: Sequence[Any] = ()
) -> Reading:
    """Start a flow, let the fault happen when `at` values have arrived, and read on to the end."""
    reading = Reading()
    async with Supervisor(url=url, mesh=mesh, tasks=tasks, lease=LEASE) as supervisor:
        run = await supervisor.start_flow(flow, inputs=numbers(count))
        with anyio.fail_after(PATIENCE):
            await reading.read(run[output], fault=fault, at=at)
            status = await run.status()
        assert all(task.open == 0 for task in status.tasks.values())
    return reading


def assert_once(values: Iterable[Any], expected: Iterable[Any]) -> None:
    """Fail with what is missing and what came twice, instead of with two lists of thousands."""
    found, wanted = Counter(values), Counter(expected)
    assert not wanted - found, f"{(wanted - found).total()} lost, such as {list(wanted - found)[:10]}"
    assert not found - wanted, f"{(found - wanted).total()} doubled, such as {list(found - wanted)[:10]}"


async def nothing() -> None:
    """No fault at all."""


def killing(service: Service) -> Fault:
    async def fault() -> None:
        service.kill()

    return fault


def freezing(service: Service, seconds: float) -> Fault:
    """Stop a service, and let it go on after a while, behind the back of who reads."""

    async def fault() -> None:
        service.stop()
        asyncio.get_running_loop().call_later(seconds, service.resume)

    return fault
