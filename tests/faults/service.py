"""A service of the fault tests: `python -m tests.faults.service TASK...` serves these tasks until it is killed.

Where its Redis is and how it behaves comes from the environment, as for any service. It says `ready` when it works.
"""

import random
import sys
from collections.abc import AsyncIterator

import anyio

from datamesh import IO, Supervisor
from tests.faults import flows


@flows.double
async def double(number: int) -> int:
    await anyio.sleep(0.004)
    return 2 * number


@flows.scatter
async def scatter(number: int) -> AsyncIterator[int]:
    for part in range(flows.PARTS):
        yield flows.PARTS * number + part
        await anyio.sleep(random.random() * 0.03)


@flows.unroll
async def unroll(number: IO[int]) -> AsyncIterator[int]:
    async for value in number.stream(ordered=True):
        for part in range(flows.PARTS):
            yield flows.PARTS * value + part
        await anyio.sleep(random.random() * 0.004)


@flows.increment
async def increment(number: int) -> int:
    return number + 1


@flows.triple
def triple(incremented: int) -> int:
    return 3 * incremented


@flows.moody
async def moody(number: int) -> int:
    if number % 3 == 1:
        raise ValueError("a bad day")
    if number % 3 == 2:
        await anyio.sleep(30)
    return number


async def serve(names: list[str]) -> None:
    tasks = [getattr(flows, name) for name in names]
    async with Supervisor(tasks=tasks):
        print("ready", flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(serve, sys.argv[1:])
