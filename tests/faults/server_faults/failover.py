"""R12, R13: the primary is killed, frozen or cut off, and a sentinel makes another one lead, while runs go on.

Two loads share the services: one whose starts are confirmed by a replica, one whose starts are not. Of the second some
may be lost; what is left has to make sense.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import msgpack

from datamesh.store.keys import ShardKeys
from tests.faults.board import Budget, Figures, scenario
from tests.faults.processes import services
from tests.faults.server_faults.consistency import violations
from tests.faults.server_faults.load import LEASE, Load
from tests.faults.server_faults.stages import MODULE
from tests.faults.server_faults.trio import Peer, Trio
from tests.servers import KINDS

_MESH = "failover"


@dataclass(frozen=True, slots=True)
class Fault:
    """How a primary is lost, and how it comes back."""

    name: str
    begin: Callable[[Peer], None]
    end: Callable[[Peer], object]


FAULTS = (
    Fault("kill", lambda peer: peer.server.stop(kill=True), lambda peer: peer.server.start()),
    Fault("freeze", lambda peer: peer.server.pause(), lambda peer: peer.server.resume()),
    Fault("partition", lambda peer: peer.way.clog(), lambda peer: peer.way.unclog()),
)


@scenario("R12", "R13", seconds=420.0)
async def failover(budget: Budget) -> Figures:
    """Lose the primary in each way, several times over."""
    chance = budget.chance("failover")
    times = budget.of(full=3, short=1, tiny=1)
    faults = list(FAULTS if budget.size.value != "tiny" else FAULTS[:1]) * times
    chance.shuffle(faults)
    figures = Figures()
    with (
        Trio(KINDS[chance.randrange(2)]) as trio,
        services(2, trio.url, module=MODULE, mesh=_MESH, lease=LEASE) as two,
    ):
        async with AsyncExitStack() as stack:
            safe = await _load(stack, trio, chance, name="safe", open_share=0.0, start={"durability": "replicated"})
            usual = await _load(stack, trio, chance, name="usual")
            longest = {fault.name: 0.0 for fault in faults}
            for fault in faults:
                longest[fault.name] = max(longest[fault.name], await _episode(trio, fault, safe, usual, chance))
            verdicts = [await load.finish(60.0) for load in (safe, usual)]
        down = sum(service.returncode is not None for service in two)
        leader = trio.leader.server
        found = violations(leader.client, ShardKeys(_MESH, 0), _left)
    figures.add("failovers", len(faults))
    for name, seconds in longest.items():
        figures.add(f"back after {name} s", seconds, most=10)
    figures.add("services down", down, most=0)
    verdicts[0].report(figures)
    verdicts[1].report(figures, row="R13", may_be_gone=True)
    figures.add("contradictions", len(found), most=0, row="R13")
    if found:
        figures.add("contradiction", found[0], row="R13")
    return figures


async def _load(
    stack: AsyncExitStack, trio: Trio, chance: random.Random, *, name: str, open_share: float = 0.3,
    start: dict[str, str] | None = None,
) -> Load:  # fmt: skip
    load = Load(
        url=trio.url, mesh=_MESH, chance=chance, name=name, open_share=open_share, start=start, starters=2, size=30
    )  # fmt: skip
    return await stack.enter_async_context(load)


async def _episode(trio: Trio, fault: Fault, safe: Load, usual: Load, chance: random.Random) -> float:
    """Lose the primary, and get it back as a replica; returns the seconds from its loss until both loads move."""
    for load in (safe, usual):
        await load.moved(since=time.monotonic())
    await asyncio.sleep(chance.uniform(0.0, 0.5))
    lost, began = trio.leader, time.monotonic()
    await asyncio.to_thread(fault.begin, lost)
    try:
        await asyncio.to_thread(trio.wait_for_another, lost)
        promoted = time.monotonic()
        for load in (safe, usual):
            await load.moved(since=promoted)
        seconds = time.monotonic() - began
    finally:
        await asyncio.to_thread(fault.end, lost)
    await asyncio.to_thread(trio.wait_until_whole)
    return seconds


def _left(mark: bytes) -> list[int]:
    return list(msgpack.unpackb(mark, strict_map_key=False)[0])
