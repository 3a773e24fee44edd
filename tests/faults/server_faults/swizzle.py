"""X1: the ways between services and Redis are clogged one after another, and unclogged in another order.

Source:
    FoundationDB's tests call this a swizzle: it finds more than faults that come and go together.
"""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import ExitStack

from tests.faults.board import Budget, Figures, scenario
from tests.faults.processes import services
from tests.faults.server_faults.clogging import Way, ways
from tests.faults.server_faults.load import LEASE, Load
from tests.faults.server_faults.stages import MODULE
from tests.servers import Server

_MESH = "swizzle"


@scenario(
    "X1",
    title="the ways to Redis clogged one by one, unclogged in another order; delays, half-open connections",
    target="0 lost or doubled, moving again within 5 s",
)
async def swizzle(budget: Budget) -> Figures:
    """Clog the ways of three services, and of who starts runs."""
    rounds = budget.of(full=6, short=2, tiny=1)
    chance = budget.chance("swizzle")
    with Server("valkey") as server, ExitStack() as stack:
        *theirs, ours = made = stack.enter_context(ways(server.url, 4))
        for way in theirs:
            stack.enter_context(services(1, way.url, module=MODULE, mesh=_MESH, lease=LEASE))
        async with Load(url=ours.url, mesh=_MESH, chance=chance, starters=6) as load:
            longest = 0.0
            for number in range(rounds):
                await load.moved(since=time.monotonic())
                await _round(made, chance, is_slow=number % 2 == 1)
                longest = max(longest, await load.moved(since=time.monotonic()))
            verdict = await load.finish()
    figures = Figures()
    figures.add("rounds", rounds)
    verdict.report(figures)
    figures.add("moving again s", longest, most=5)
    return figures


async def _round(made: list[Way], chance: random.Random, *, is_slow: bool) -> None:
    """Clog all, one by one, over three leases; open them in another order, one of them by breaking its connections."""
    for way in chance.sample(made, len(made)):
        way.delay = chance.uniform(0.0, 0.05) if is_slow else 0.0
        way.clog()
        await asyncio.sleep(chance.uniform(0.0, 0.75 * LEASE))
    for place, way in enumerate(chance.sample(made, len(made))):
        if place == 1:
            way.cut()
        way.unclog()
        await asyncio.sleep(chance.uniform(0.0, 0.75 * LEASE))
    for way in made:
        way.delay = 0.0
