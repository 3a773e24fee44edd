"""Values that kill their process, and code that blocks its event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from datamesh import FlowRun, RunState
from datamesh.errors import RunError
from tests.faults import flows
from tests.faults.arena import Arena
from tests.faults.board import Budget, Figures, scenario
from tests.faults.checks import numbers
from tests.faults.ledger import check

CAP = 3
"""Deaths that `tasks.poisoned` allows."""


@scenario("R17", seconds=120)
async def poisoned(budget: Budget) -> Figures:
    lease, figures = 0.5, Figures()
    async with Arena(budget, lease=lease) as arena:
        await arena.fleet.start(2, "poisoned", concurrency=10)
        keeping = asyncio.create_task(arena.fleet.keep(2))
        try:
            async with arena.asker() as asker:
                run = await asker.start_flow(flows.poisoning, inputs=numbers(1000))
                with suppress(TimeoutError):
                    async with asyncio.timeout(40):
                        await run.wait()
                await run.cancel()  # of no effect where it has ended
                values = await what_came_out(run)
                status = await run.status()
        finally:
            keeping.cancel()
        task = status.tasks["poisoned"]
        ran = arena.ledger.executions("poisoned")
        others = [number for number in range(1000) if number != flows.POISON]
        services = sum(service.returncode is not None for service in arena.fleet.services)
        verdict = check(others, values, values, unfinished=task.open)
        figures.add("deaths", ran["poisoned", flows.POISON], least=CAP, most=CAP)
        figures.add("of them services", services, most=CAP - 1)
        figures.add("buried", task.dead, least=1, most=1)
        figures.add("innocents lost, doubled or buried", verdict.wrong, most=0)
        figures.add("runs that did not end", int(status.state is not RunState.DONE), most=0)
        await arena.audit(figures)
    return figures


async def what_came_out(run: FlowRun) -> list[int]:
    """Read the values of a run, whether or not it ended well."""
    values: list[int] = []
    with suppress(RunError):
        async for value in run["survived"]:
            values.append(value)
    return values


@scenario("R18")
async def blocked(budget: Budget) -> Figures:
    lease, count = budget.of(full=1.0, short=0.5, tiny=0.5), budget.of(full=4, short=2, tiny=1)
    figures = Figures()
    async with Arena(budget, lease=lease) as arena:
        await arena.fleet.start(2, "blocking", concurrency=4)
        async with arena.asker() as asker:
            inputs = [int(3000 * lease) + number for number in range(count)]
            run = await asker.start_flow(flows.blocks, inputs=[flows.value("number", number) for number in inputs])
            async with asyncio.timeout(10 + 3 * lease * count):
                values = await run["unblocked"].collect()
            await arena.ended(run)
        figures.add("blocked, s", 3 * lease * count)
        figures.add("executions", arena.ledger.executions().total(), least=count, most=count)
        figures.add("lost or doubled", check(inputs, values, values).wrong, most=0)
        await arena.audit(figures)
    return figures
