"""Services that are killed, frozen and restarted in the middle of a long run."""

from __future__ import annotations

import asyncio
import itertools
import random
import statistics
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from datamesh import FlowRun
from tests.faults import flows
from tests.faults.arena import Arena
from tests.faults.board import Budget, Figures, scenario
from tests.faults.checks import numbers
from tests.faults.fleet import Fall
from tests.faults.ledger import Ledger, Verdict, check

NAMES = ("split", "refine", "gather")
GRACE = 5.0


@dataclass
class Outcome:
    """A run of three stages that has come to its end."""

    verdict: Verdict
    sum_is_right: bool
    executions: int
    values: int
    replays: int


async def three_stages(
    arena: Arena, count: int, faults: AbstractAsyncContextManager[Any], *, seconds: float
) -> Outcome:
    """Run the flow under faults, read it while it is written, and compare when all has come to rest."""
    async with arena.asker() as asker:
        run = await asker.start_flow(flows.three_stages, inputs=numbers(count))
        async with asyncio.timeout(seconds), faults:
            first = [value async for value in run["kept"]]
        await arena.ended(run)
        again, sums = await run["kept"].collect(), await run["sum"].collect()
        unfinished = sum(task.open for task in (await run.status()).tasks.values())
    pieces = flows.PIECES * count
    ran = arena.ledger.executions()
    by_piece = {id: times for (task, id), times in ran.items() if task == "refine"}
    verdict = check(range(pieces), first, again, unfinished=unfinished, ran=by_piece, wanted=range(pieces))
    return Outcome(
        verdict,
        sums == [pieces * (pieces - 1) // 2],
        executions=sum(times for (task, _), times in ran.items() if task != "gather"),
        values=count + pieces,
        replays=ran["gather", 0] - 1,
    )


def tell(figures: Figures, outcome: Outcome, row: str = "") -> None:
    """What must be zero, in each scenario of this kind."""
    verdict = outcome.verdict
    figures.add("values", outcome.values, row=row)
    for name in ("lost", "doubled", "phantom", "early", "unfinished", "unheard"):
        figures.add(name, getattr(verdict, name), most=0, row=row)
    if verdict.example:
        figures.add("such as", verdict.example, row=row)
    figures.add("wrong sums", int(not outcome.sum_is_right), most=0, row=row)


@scenario("R1", "R2", seconds=280)
async def killed(budget: Budget) -> Figures:
    count, wanted = budget.of(full=(100_000, 40), short=(4_000, 2), tiny=(2_000, 1))
    pause = budget.of(full=(1.0, 3.0), short=(1.0, 2.0), tiny=(0.3, 0.5))
    figures = Figures()
    async with Arena(budget) as arena:
        await arena.fleet.start(budget.of(full=4, short=4, tiny=2), *NAMES, concurrency=25, test_pace=0.02)
        killing = arena.fleet.under(
            arena.fleet.kill_one, budget.chance("kill"), pause, most=budget.of(full=1000, short=1000, tiny=1)
        )
        outcome = await three_stages(arena, count, killing, seconds=240)
        tell(figures, outcome)
        figures.add("kills", len(arena.fleet.toll.kills), least=wanted)
        figures.add("streams begun again", outcome.replays)
        figures.add("executions", outcome.executions, row="R2")
        figures.add("for each value", outcome.executions / outcome.values, most=1.05, row="R2")
        await arena.audit(figures)
    return figures


@scenario("R3", seconds=240)
async def frozen(budget: Budget) -> Figures:
    count, wanted = budget.of(full=(25_000, 40), short=(3_000, 3), tiny=(1_000, 1))
    lease, figures = 1.0, Figures()
    async with Arena(budget, lease=lease) as arena:
        await arena.fleet.start(6, *NAMES, concurrency=20, test_pace=0.04)
        async with AsyncExitStack() as stack:
            for number in range(3):
                freezing = arena.fleet.freezing(0.5 * lease, 3 * lease)
                chance = budget.chance(f"freeze {number}")
                await stack.enter_async_context(arena.fleet.under(freezing, chance, (0.05, 0.3)))
            outcome = await three_stages(arena, count, AsyncExitStack(), seconds=200)
        zombies = [seconds for seconds in arena.fleet.toll.freezes if seconds > lease]
        fenced = sum(service.log().count("fenced in shard") for service in arena.fleet.services)
        figures.add("zombies", len(zombies), least=wanted)
        figures.add("that heard they were fenced", fenced)
        figures.add("settlements accepted", outcome.verdict.doubled + outcome.verdict.phantom, most=0)
        tell(figures, outcome)
        figures.add("executions for each value", outcome.executions / outcome.values)
        await arena.audit(figures)
    return figures


@asynccontextmanager
async def rolling(arena: Arena, times: int) -> AsyncIterator[None]:
    """Restart all services one after another, so many times, while the context lasts, and wait for the end of it."""

    async def roll() -> None:
        for _ in range(times):
            await arena.fleet.restart_all(grace=GRACE)

    task = asyncio.create_task(roll())
    try:
        yield
        await task
    finally:
        task.cancel()


@scenario("R22")
async def restarted(budget: Budget) -> Figures:
    count, times = budget.of(full=(35_000, 2), short=(6_000, 1), tiny=(2_000, 1))
    figures = Figures()
    async with Arena(budget) as arena:
        await arena.fleet.start(
            budget.of(full=4, short=3, tiny=2), *NAMES, concurrency=25, test_pace=0.015, grace=GRACE
        )
        outcome = await three_stages(arena, count, rolling(arena, times), seconds=120)
        tell(figures, outcome)
        exits = arena.fleet.toll.exits
        figures.add("restarts", len(exits), least=2)
        figures.add("bad exits", sum(code != 0 for code, _ in exits), most=0)
        figures.add("longest exit, s", max(seconds for _, seconds in exits), most=GRACE + 1)
        figures.add("executions for each value", outcome.executions / outcome.values, most=1.001)
        await arena.audit(figures)
    return figures


@scenario("R26", in_short=False)
async def recovered(budget: Budget) -> Figures:
    wanted = budget.of(full=(9, 3), short=(3, 1), tiny=(1, 0))
    figures = Figures()
    async with Arena(budget, lease=1.0) as arena:
        await arena.fleet.start(3, "slow", concurrency=20)
        async with arena.asker() as asker:
            for kills, name, rate in zip(wanted, ("", "all slots in use: "), (60, 400), strict=True):
                run = await asker.start_flow(flows.slowing, inputs=numbers(1), open_inputs=True)
                feeding = asyncio.create_task(feed(run, rate))
                gaps = await pauses(arena, kills, budget.chance(f"kill {name}"))
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
                await run.cancel()
                figures.add(f"{name}kills", kills)
                figures.add("values that ran again", len(gaps), least=kills)
                if gaps:
                    figures.add("p50, leases", statistics.median(gaps))
                    figures.add("p99, leases", sorted(gaps)[int(len(gaps) * 0.99)], most=1.5)
        await arena.audit(figures)
    return figures


async def feed(run: FlowRun, rate: int) -> None:
    """Write so many values a second, each another one; 3 services of 20 slots do 240."""
    start = next(_starts)
    for number in itertools.count(start * 1_000_000):
        await run.inputs["number"].write(number)
        await asyncio.sleep(1 / rate)


_starts = itertools.count(1)


async def pauses(arena: Arena, kills: int, chance: random.Random) -> list[float]:
    """Kill services, one at a time, and measure in leases until what they ran was run again."""
    falls = len(arena.fleet.toll.kills)
    pause = (2.2 * arena.lease, 2.6 * arena.lease)
    async with arena.fleet.under(arena.fleet.kill_one, chance, pause) as toll:
        while len(toll.kills) < falls + kills:
            await asyncio.sleep(0.05)
    await asyncio.sleep(2 * arena.lease)
    new = arena.fleet.toll.kills[falls:]
    return [gap / arena.lease for fall in new for gap in pauses_after(arena.ledger, fall)]


def pauses_after(ledger: Ledger, fall: Fall) -> list[float]:
    """Seconds from a kill until each value that was running there ran again."""
    begun = {line.id for line in ledger.lines() if line.pid == fall.pid}
    return [
        min(after) - fall.at
        for id, times in ledger.times("slow").items()
        if id in begun and (after := [at for at in times if at > fall.at])
    ]
