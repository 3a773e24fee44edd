"""R19: Redis runs out of memory while runs go on, and is given more later."""

from __future__ import annotations

import asyncio
import time

from datamesh import StoreError, StoreUnavailableError, Supervisor
from tests.faults.board import Budget, Figures, scenario
from tests.faults.processes import services
from tests.faults.server_faults.load import LEASE, Load, Order
from tests.faults.server_faults.stages import MODULE, stages
from tests.servers import KINDS, Server

_SECONDS = 20.0


@scenario("R19")
async def memory_full(budget: Budget) -> Figures:
    """Take the memory away for longer than a start is patient."""
    figures = Figures()
    for kind in budget.of(full=KINDS, short=KINDS[:1], tiny=KINDS[:1]):
        await _episode(kind, budget, figures)
    return figures


async def _episode(kind: str, budget: Budget, figures: Figures) -> None:
    mesh = f"full-{kind}"
    with Server(kind) as server, services(2, server.url, module=MODULE, mesh=mesh, lease=LEASE) as pair:
        async with Load(url=server.url, mesh=mesh, chance=budget.chance("memory"), open_share=0.0) as load:
            await load.moved(since=time.monotonic())
            under_way = [order for order in load.orders if order.acknowledged is not None and not order.is_read]
            server.client.config_set("maxmemory", 1)
            refusal = await _refusal(server, mesh)
            finished = await _count_finished(under_way)
            server.client.config_set("maxmemory", 0)
            back = await load.moved(since=time.monotonic())
            verdict = await load.finish()
        down = sum(service.returncode is not None for service in pair)
    figures.add(f"under way, {kind}", len(under_way), least=1)
    figures.add("finished without memory", finished, least=len(under_way))
    figures.add("a start was told", refusal)
    figures.add("refused clearly", int("OOM" in refusal or "memory" in refusal), least=1)
    figures.add("back s", back, most=5)
    figures.add("services down", down, most=0)
    verdict.report(figures)


async def _refusal(server: Server, mesh: str) -> str:
    """What a start says while there is no memory."""
    try:
        async with Supervisor(url=server.url, mesh=mesh, tasks=[], lease=LEASE) as supervisor:
            await supervisor.start_flow(stages, inputs={"number": 1})
    except StoreUnavailableError as error:
        return str(error)
    except StoreError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing: it was accepted"


async def _count_finished(orders: list[Order]) -> int:
    """How many of these have been read to their end, after some time."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and not all(order.is_read for order in orders):
        await asyncio.sleep(0.05)
    return sum(order.is_read for order in orders)
