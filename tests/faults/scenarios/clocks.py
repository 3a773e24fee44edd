"""What happens at a time: very many retries at once, and services whose clocks are wrong."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import Any

from datamesh import RunState, Supervisor
from tests.faults import flows
from tests.faults.arena import Arena
from tests.faults.board import Budget, Figures, scenario
from tests.faults.checks import numbers
from tests.faults.ledger import check

BACKOFF = 1.0
"""Of `tasks.flaky`."""


@scenario("R20")
async def storm(budget: Budget) -> Figures:
    count, ahead = budget.of(full=(100_000, 14.0), short=(5_000, 2.0), tiny=(500, 1.0))
    figures = Figures()
    async with Arena(budget) as arena:
        arena.client.config_set("slowlog-log-slower-than", 1000)
        arena.client.config_set("slowlog-max-len", 1000)
        await arena.fleet.start(2, "later", "echo", concurrency=100)
        async with arena.asker() as asker:
            due = int((time.monotonic() + ahead) * 1000)
            moments = [flows.value("moment", due * 1_000_000 + number) for number in range(count)]
            run = await asker.start_flow(flows.waiting, inputs=moments)
            await asyncio.sleep(max(0.0, due / 1000 - time.monotonic() - 0.5))
            open_before = (await run.status()).tasks["later"].retrying
            arena.client.slowlog_reset()
            watching = asyncio.create_task(latencies(asker))
            async with asyncio.timeout(100):
                await run.wait()
            watching.cancel()
            times = await watching
            late = await run["late"].collect()
        begun = [line.at - due / 1000 for line in arena.ledger.lines("later")]
        verdict = check(range(count), late, late)
        slow = [entry for entry in arena.client.slowlog_get(1000) if b"EVAL" in entry["command"][:8].upper()]
        figures.add("values", count)
        figures.add("in frames", open_before)
        figures.add("lost or doubled", verdict.wrong, most=0)
        figures.add("too early", sum(after < -0.05 for after in begun), most=0)
        figures.add("all begun after, s", max(begun, default=0.0))
        figures.add("another run's value meanwhile: p50, ms", 1000 * statistics.median(times))
        figures.add("p99, ms", 1000 * sorted(times)[int(len(times) * 0.99)], most=50)
        figures.add("longest script, ms", max((entry["duration"] for entry in slow), default=0) / 1000, most=5)
        await arena.audit(figures)
    return figures


async def latencies(asker: Supervisor) -> list[float]:
    """Seconds from the start of a run of one value to its result, again and again until cancelled."""
    times: list[float] = []
    try:
        while True:
            began = time.monotonic()
            run = await asker.start_flow(flows.echoing, inputs=[flows.value("word", 1)])
            await run["echoed"].first()
            times.append(time.monotonic() - began)
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        return times


@scenario("R21")
async def skewed(budget: Budget) -> Figures:
    count, deadlines = budget.of(full=(1000, 200), short=(200, 20), tiny=(20, 2))
    chance, figures = budget.chance("skew"), Figures()
    async with Arena(budget) as arena:
        await arena.fleet.start(1, "flaky", test_skew=600.0)
        others = (-600.0, chance.uniform(-600, 600), chance.uniform(-600, 600), 0.001)
        for skew in others[: budget.of(full=4, short=4, tiny=1)]:
            await arena.fleet.add(test_skew=skew)
        async with arena.asker() as asker:
            run = await asker.start_flow(flows.retrying, inputs=numbers(count), deadline=60.0)
            async with asyncio.timeout(60):
                steady = await run["steady"].collect()
            # Nobody serves these: the deadline alone ends them, and which service sees to it is left to chance.
            kept: list[Any] = [
                await asker.start_flow(flows.slowing, inputs=numbers(1), deadline=1.5) for _ in range(deadlines)
            ]
            began = time.monotonic()
            ended = [(await one.wait()) for one in kept]
        gaps = [after - before for before, after in arena.ledger.times("flaky").values()]
        lasted = [status.ended - status.started for status in ended if status.ended]
        verdict = check(range(count), steady, steady)
        figures.add("values", count)
        figures.add("lost or doubled", verdict.wrong, most=0)
        figures.add("executions", arena.ledger.executions("flaky").total(), least=2 * count, most=2 * count)
        figures.add("shortest wait for a retry, s", min(gaps), least=BACKOFF - 0.01)
        figures.add("longest, s", max(gaps), most=BACKOFF + 2.0)
        figures.add("runs not ended by their deadline", sum(s.state is not RunState.TIMEOUT for s in ended), most=0)
        figures.add("shortest deadline of 1.5 s, s", min(lasted), least=1.49)
        figures.add("longest, s", max(lasted), most=2.5)
        figures.add("waited for them, s", time.monotonic() - began)
        await arena.audit(figures)
    return figures
