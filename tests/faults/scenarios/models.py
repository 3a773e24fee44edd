"""What the tests of the protocol have: scripts against a model, simulated crashes, and digests after errors."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from tests.faults.board import Budget, Figures, NotMeasured, scenario
from tests.protocol.rig import Rig
from tests.protocol.simulation import simulate
from tests.servers import Server


@scenario("R5", seconds=200)
async def against_a_model(budget: Budget) -> Figures:
    machine = part("tests.protocol.machine")
    steps = budget.of(full=20_000, short=1_000, tiny=200)
    told: Mapping[str, Any] = await asyncio.to_thread(machine.run, steps, budget.seed)
    figures = Figures()
    figures.add("steps", int(told["steps"]), least=steps)
    figures.add("violations", int(told["violations"]), most=0)
    if told["failure"]:
        figures.add("such as", str(told["failure"])[:300])
    return figures


@scenario("R6", seconds=200)
async def simulated(budget: Budget) -> Figures:
    seeds = budget.of(full=500, short=15, tiny=5)
    figures = Figures()
    failed: list[str] = []
    with Server("valkey") as server:
        rig = Rig.on(server.client, server.url, "simulated")
        try:
            for seed in range(1000 * budget.seed, 1000 * budget.seed + seeds):
                server.client.flushall()
                rig.works.clear()
                try:
                    await simulate(rig, seed)
                except AssertionError as error:
                    failed.append(f"seed {seed}: {error!s:.100}")
        finally:
            await rig.close()
    figures.add("seeds", seeds, least=seeds)
    figures.add("violations", len(failed), most=0)
    if failed:
        figures.add("such as", "; ".join(failed[:3]))
    return figures


@scenario("R7", seconds=200)
async def digests(budget: Budget) -> Figures:
    cases = budget.of(full=200, short=12, tiny=4)
    told: Mapping[str, Any] = await asyncio.to_thread(part("tests.protocol.digests").run, cases, budget.seed)
    figures = Figures()
    figures.add("scripts", len(told["cases"]), least=19)
    figures.add("wrong calls, fewest a script", min(told["cases"].values()), least=cases)
    figures.add("refusals compared", sum(told["refused"].values()))
    figures.add("repetitions compared", sum(told["repeated"].values()))
    figures.add("digests changed", len(told["violations"]), most=0)
    return figures


def part(name: str) -> ModuleType:
    """A module of the tests of the protocol.

    Raises:
        NotMeasured: It is not there.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise NotMeasured(f"there is no {error.name}") from error
