"""R10: Redis is killed and started again, while runs go on; every write was on disk before it was acknowledged."""

from __future__ import annotations

import asyncio
import random
import time

from tests.faults.board import Budget, Figures, scenario
from tests.faults.processes import services
from tests.faults.server_faults.load import LEASE, Load, Verdict
from tests.faults.server_faults.stages import MODULE
from tests.servers import KINDS, Server


@scenario("R10")
async def restarts(budget: Budget) -> Figures:
    """Kill and restart each kind of server in turn."""
    cycles = budget.of(full=10, short=2, tiny=1)
    total, stall = Verdict(), 0.0
    for kind in budget.of(full=KINDS, short=KINDS, tiny=KINDS[:1]):
        verdict, longest = await _restart(kind, cycles, budget.chance(f"restarts of {kind}"))
        total, stall = total + verdict, max(stall, longest)
    figures = Figures()
    figures.add("restarts", cycles * budget.of(full=2, short=2, tiny=1))
    total.report(figures)
    figures.add("longest stall s", stall, most=10)
    return figures


async def _restart(kind: str, cycles: int, chance: random.Random) -> tuple[Verdict, float]:
    mesh = f"restarts-{kind}"
    with Server(kind, persist=True) as server, services(2, server.url, module=MODULE, mesh=mesh, lease=LEASE):
        async with Load(url=server.url, mesh=mesh, chance=chance) as load:
            stall = 0.0
            for _ in range(cycles):
                await asyncio.sleep(chance.uniform(0.3, 1.2))
                stall = max(stall, await _once(server, load, chance))
            return await load.finish(), stall


async def _once(server: Server, load: Load, chance: random.Random) -> float:
    """Restart, and return the seconds from when it could be reached until a value came and a start was acknowledged."""
    await asyncio.to_thread(server.stop, kill=True)
    await asyncio.sleep(chance.uniform(0.0, 0.5))
    await asyncio.to_thread(server.start)
    back = time.monotonic()
    return await load.moved(since=back)
