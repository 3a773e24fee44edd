"""Tasks over numbers, for tests that need them in another process."""

import asyncio
import os
import time
from collections.abc import AsyncIterator

from datamesh import IO, IOVal, Task
from tests.mesh.services.serving import serve

count = Task(name="numbers.count", inputs=["limit"], outputs=["number"])
stamp = Task(name="numbers.stamp", inputs=["tick"], outputs=["stamped"])
stamp_each = Task(name="numbers.stamp_each", inputs=["tick"], outputs=["stamped"])
halfway = Task(name="numbers.halfway", inputs=["limit"], outputs=["number"])
slow_square = Task(name="numbers.slow_square", inputs=["number"], outputs=["square"])
who = Task(name="numbers.who", inputs=["number"], outputs=["pid"])

stuck = Task(name="numbers.stuck", inputs=["seconds"], outputs=["began", "slept"])


@count
async def _count(limit: IO[int]) -> AsyncIterator[int]:
    for number in range(await limit.first()):
        yield number


@stamp
async def _stamp(tick: IO[int]) -> AsyncIterator[tuple[int, float]]:
    async for value in tick:
        yield value, time.time()


@stamp_each
async def _stamp_each(tick: int) -> tuple[int, float]:
    return tick, time.time()


@halfway
async def _halfway(limit: IO[int]) -> AsyncIterator[int]:
    last = await limit.first()
    for number in range(last):
        if number == last // 2:
            raise LookupError(f"number {number} is missing")
        yield number


@slow_square
async def _slow_square(number: int) -> int:
    await asyncio.sleep(0.02)
    return number * number


@who
def _who(number: int) -> int:
    return os.getpid()


@stuck
async def _stuck(seconds: float) -> AsyncIterator[IOVal[float]]:
    yield IOVal("began", seconds)
    await asyncio.sleep(seconds)
    yield IOVal("slept", seconds)


if __name__ == "__main__":
    serve(lease=1.0, grace=float(os.environ.get("GRACE", "5")))
