"""Live cuts: a file written for real services is cut, and a service goes on that knows of another course of events.

The service lives through all cuts. For it, the server that it was connected to is back and knows less than before: runs
that it has finished are open again, and what it holds may never have existed.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any, cast

import anyio
import msgpack

from datamesh import Supervisor
from datamesh.store.keys import ShardKeys
from tests.faults.board import Budget
from tests.faults.processes import Service, services
from tests.faults.server_faults.consistency import violations
from tests.faults.server_faults.cuts import Recording, rewrite, size_of
from tests.faults.server_faults.findings import Findings
from tests.faults.server_faults.load import Load, Order
from tests.faults.server_faults.stages import MODULE, stages
from tests.servers import KINDS, Server

_MESH = "cut"
_KEYS = ShardKeys(_MESH, 0)
_LEASE = 0.5
_BEGUN_BYTES = 1 << 16
"""The first of these are plans and contracts."""
_SECONDS = 15.0
_WEIGHED, _TOTAL = ([stream.name for stream in stages.plan.streams].index(name) for name in ("weighed", "total"))


async def live_cuts(budget: Budget, findings: Findings) -> None:
    """Record a load on each kind of server, and cut what it wrote."""
    count = budget.of(full=20, short=2, tiny=1)
    for kind in budget.of(full=KINDS, short=KINDS, tiny=KINDS[:1]):
        chance = budget.chance(f"live cuts, {kind}")
        with (
            Server(kind, persist=True) as server,
            services(1, server.url, module=MODULE, mesh=_MESH, lease=_LEASE) as (service,),
        ):
            recording, orders = await _recorded(server, chance)
            with recording:
                for number in range(count):
                    cut = recording.draw(chance, inside=number % 2 == 0, after=_BEGUN_BYTES)
                    where = f"{kind}, live, cut at {cut}"
                    service.stop()
                    recording.start(server, cut=cut)
                    await _cut(server, service, orders, cut, findings, where)


async def _recorded(server: Server, chance: random.Random) -> tuple[Recording, list[Order]]:
    async with Load(url=server.url, mesh=_MESH, chance=chance, size=6, clock=lambda: size_of(server)) as load:
        await load.moved(since=time.monotonic() + 1.0)
        return Recording(server), load.orders


async def _cut(
    server: Server, service: Service, orders: list[Order], cut: int, findings: Findings, where: str
) -> None:  # fmt: skip
    """One cut, while the service is frozen."""
    findings.cuts += 1
    findings.add("contradictions", violations(server.client, _KEYS, _left), where)
    known = [order for order in orders if server.client.exists(_KEYS.run(order.id))]
    acknowledged = [order for order in orders if order.acknowledged is not None and order.acknowledged <= cut]
    findings.add("lost", [f"{order.id} is gone" for order in acknowledged if order not in known], where)
    rewrite(server)
    service.resume()
    async with Supervisor(url=server.url, mesh=_MESH, tasks=[], lease=_LEASE) as supervisor:
        with anyio.move_on_after(_SECONDS):
            for order in known:
                await _finish(supervisor, order)
    before = _outcome(server, known)
    for order in known:
        _judge(before[order.id], order, cut, findings, where)
    service.stop()
    server.stop(kill=True)
    server.start()
    where = f"{where}, second start"
    after = _outcome(server, known)
    findings.add("lost", [f"{order.id} has changed" for order in known if before[order.id] != after[order.id]], where)
    findings.add("contradictions", violations(server.client, _KEYS, _left), where)


async def _finish(supervisor: Supervisor, order: Order) -> None:
    """Let a run come to its end; one that was written to is complete with what it got."""
    run = await supervisor.get_run(order.id)
    if order.is_open:
        await run.inputs["number"].complete()
    await run.wait()


def _outcome(server: Server, orders: list[Order]) -> dict[str, tuple[str, list[int], list[int]]]:
    """By run: its state, the parts that were weighed, and the count of them."""
    found, client = {}, cast(Any, server.client)
    for order in orders:
        state = client.hget(_KEYS.run(order.id), "state") or b"gone"
        weighed = [part for part, _ in _values(client, order, _WEIGHED)]
        found[order.id] = (state.decode(), weighed, _values(client, order, _TOTAL))
    return found


def _values(client: Any, order: Order, stream: int) -> list[Any]:
    entries = [fields for _, fields in client.xrange(_KEYS.stream(order.id, stream))]
    return [value for fields in entries if int(fields[b"n"]) for value in msgpack.unpackb(fields[b"v"])]


def _judge(
    outcome: tuple[str, list[int], list[int]], order: Order, cut: int, findings: Findings, where: str
) -> None:  # fmt: skip
    state, weighed, totals = outcome
    if state != "done":
        findings.add("unfinished", [f"{order.id} is {state}"], where)
        return
    missing, extra = order.required(until=cut) - Counter(weighed), Counter(weighed) - order.allowed
    findings.add("lost", [f"{order.id} misses {missing}"] if missing else [], where)
    findings.add("contradictions", [f"{order.id} has {extra} twice"] if extra else [], where)
    findings.add(
        "contradictions", [f"{order.id}: {totals} of {len(weighed)}"] if totals != [len(weighed)] else [], where
    )


def _left(mark: bytes) -> list[int]:
    return list(msgpack.unpackb(mark, strict_map_key=False)[0])
