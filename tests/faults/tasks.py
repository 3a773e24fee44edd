"""Implementations of the tasks in `flows.py`. Where the ledger is asked for, each execution is noted there."""

import os
import random
import signal
import time
from collections.abc import AsyncIterator

import anyio

from datamesh import IO, Context, IOVal, Retry
from datamesh.model.policies import RetryLater
from tests.faults import flows
from tests.faults.ledger import Pen

pen = Pen()
pace = float(os.environ.get("DATAMESH_TEST_PACE", "0.002"))
"""Seconds that `refine` takes, which makes a run last long enough."""
long_lived = Retry(deaths=100)
"""Of tasks whose services are killed all the time, for no fault of theirs."""


@flows.double
async def double(number: int) -> int:
    pen.note("double", number)
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


@flows.split(retry=long_lived)
async def split(number: int, context: Context) -> AsyncIterator[int]:
    pen.note("split", number, context.attempt)
    for piece in range(flows.PIECES):
        yield flows.PIECES * number + piece


@flows.refine(retry=long_lived)
async def refine(piece: int, context: Context) -> int:
    pen.note("refine", piece, context.attempt)
    await anyio.sleep(pace)
    return piece


@flows.gather(retry=long_lived)
async def gather(refined: IO[int], context: Context) -> AsyncIterator[IOVal[int]]:
    pen.note("gather", 0, context.attempt)
    total = 0
    async for value in refined.stream():
        total += value
        yield IOVal(name="kept", value=value)
    yield IOVal(name="sum", value=total)


@flows.slow(retry=long_lived)
async def slow(number: int) -> int:
    pen.note("slow", number)
    await anyio.sleep(0.25)
    return number


@flows.poisoned(on_error="dead", retry=Retry(deaths=3))
async def poisoned(number: int) -> int:
    pen.note("poisoned", number)
    if number == flows.POISON:
        os.kill(os.getpid(), signal.SIGKILL)
    await anyio.sleep(0.002)
    return number


@flows.blocking
async def blocking(number: int) -> int:
    pen.note("blocking", number)
    time.sleep(number / 1000)  # noqa: ASYNC251 - this is what is under test
    return number


@flows.flaky(retry=Retry(attempts=2, backoff=1.0, jitter=0.0))
async def flaky(number: int, context: Context) -> int:
    pen.note("flaky", number, context.attempt)
    if context.attempt == 1:
        raise ValueError("not at once")
    return number


@flows.later
async def later(moment: int) -> int:
    number, due = moment % 1_000_000, moment // 1_000_000
    left = due / 1000 - time.monotonic()
    if left > 0:
        raise RetryLater(left)
    pen.note("later", number)
    return number


@flows.echo
async def echo(word: int) -> int:
    return word


@flows.large
async def large(size: int) -> bytes:
    return bytes(size)


@flows.weigh
async def weigh(load: bytes) -> int:
    return len(load)


@flows.endless
async def endless(start: int) -> AsyncIterator[int]:
    while True:
        yield start
        await anyio.sleep(0.005)
