"""Redis forgets: its scripts, the groups of work streams, and all that it has."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from datamesh import DatameshError, Supervisor
from tests.faults import flows
from tests.faults.arena import Arena, until
from tests.faults.board import Budget, Figures, scenario
from tests.faults.checks import numbers
from tests.faults.ledger import Verdict, check

LOST = "has lost its data"
"""What a service logs."""


@scenario("R15")
async def forgotten(budget: Budget) -> Figures:
    count, figures = budget.of(full=8000, short=2000, tiny=300), Figures()
    async with Arena(budget) as arena:
        await arena.fleet.start(2, "double", concurrency=20)
        async with arena.asker() as asker:
            verdict, _ = await under(asker, count, arena.client.script_flush, pause=0.1)
            figures.add("SCRIPT FLUSH every 0.1 s: lost or doubled", verdict.wrong, most=0)
            verdict, stall = await under(asker, count, lambda: destroy_groups(arena), pause=1.0)
            figures.add("groups destroyed every second: lost or doubled", verdict.wrong, most=0)
            figures.add("longest pause of the reader, s", stall, most=2.0)
            await arena.audit(figures)
            await flushed(arena, asker, count, figures)
    return figures


async def under(asker: Supervisor, count: int, fault: Callable[[], object], *, pause: float) -> tuple[Verdict, float]:
    """Run a flow while a fault is repeated; returns what came out, and the longest time without a value."""
    async with repeating(fault, pause):
        run = await asker.start_flow(flows.doubling, inputs=numbers(count))
        values, stall, last = [], 0.0, time.monotonic()
        async with asyncio.timeout(60):
            async for value in run["doubled"]:
                values.append(value)
                stall, last = max(stall, time.monotonic() - last), time.monotonic()
    again = await run["doubled"].collect()
    unfinished = sum(task.open for task in (await run.status()).tasks.values())
    return check((2 * number for number in range(count)), values, again, unfinished=unfinished), stall


@contextlib.asynccontextmanager
async def repeating(fault: Callable[[], object], pause: float) -> AsyncIterator[None]:
    """Let a fault happen in a thread, again and again while the context lasts."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(pause)
            await asyncio.to_thread(fault)

    task = asyncio.create_task(repeat())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def destroy_groups(arena: Arena) -> None:
    """Take the group from every work stream."""
    for work in arena.client.scan_iter("*}:work:*"):
        arena.client.xgroup_destroy(work, "g")


async def flushed(arena: Arena, asker: Supervisor, count: int, figures: Figures) -> None:
    """Empty the server in mid-run: the loss is told, readers are released, and new runs are served."""
    run = await asker.start_flow(flows.doubling, inputs=numbers(count))
    reading = asyncio.create_task(run["doubled"].collect())
    await run["doubled"].first()
    began = time.monotonic()
    await asyncio.to_thread(arena.client.flushall)
    telling = asyncio.create_task(told_of_loss(arena))
    try:
        async with asyncio.timeout(10):
            await reading
        figures.add("readers that saw no loss", 1, most=0)
    except DatameshError as error:
        figures.add("reader released with", type(error).__name__)
    except TimeoutError:
        figures.add("readers that hang", 1, most=0)
    figures.add("released after, s", time.monotonic() - began, most=5.0)
    with contextlib.suppress(AssertionError):
        figures.add("told after, s", await telling, most=5.0)
    began = time.monotonic()
    again = await asker.start_flow(flows.doubling, inputs=numbers(10))
    async with asyncio.timeout(15):
        await again["doubled"].first()
        figures.add("a new run's first value after, s", time.monotonic() - began, most=2.0)
        values = await again["doubled"].collect()
    figures.add("of a new run lost or doubled", check(range(0, 20, 2), values, values).wrong, most=0)


async def told_of_loss(arena: Arena) -> float:
    """Seconds until every service has said that the data are gone."""
    return await until(lambda: all(LOST in service.log() for service in arena.fleet.alive), seconds=10.0)
