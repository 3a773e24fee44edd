"""R16: thousands of entries that nobody can read are put into the work streams of services that are at work."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

from datamesh import DatameshError, FlowRun, Supervisor
from datamesh.store.keys import ShardKeys
from tests.faults.board import Budget, Figures, scenario
from tests.faults.processes import services
from tests.faults.server_faults.garbage import Known, aim, forge
from tests.faults.server_faults.load import LEASE, Load
from tests.faults.server_faults.stages import MODULE, PARTS, split, stages, tally, weigh
from tests.servers import Server

_MESH = "malformed"
_KEYS = ShardKeys(_MESH, 0)
_WORKS = tuple(_KEYS.work(task.ref) for task in (split, weigh, tally))
_CHUNK, _PAUSE = 50, 0.05
_PATIENCE = 60.0
_AIMED = 30


@scenario("R16")
async def malformed(budget: Budget) -> Figures:
    """Flood two services while runs go on, and count what was buried."""
    count = budget.of(full=10_000, short=1500, tiny=300)
    chance = budget.chance("garbage")
    figures = Figures()
    with Server("valkey") as server, services(2, server.url, module=MODULE, mesh=_MESH, lease=LEASE) as pair:
        async with (
            Supervisor(url=server.url, mesh=_MESH, tasks=[], lease=LEASE) as supervisor,
            Load(url=server.url, mesh=_MESH, chance=chance, starters=2) as load,
        ):
            target = await supervisor.start_flow(stages, run_id="target", open_inputs=True, all_outputs=True)
            latencies, flooding = [], asyncio.create_task(_flood(server.client, count, chance))
            while not flooding.done():
                latencies.append(await _latency(supervisor))
            await _until_empty(server.client)
            verdict = await load.finish()
            unharmed = await _end(target)
            aimed_at = await _aim(supervisor, server.client, chance)
        client: Any = server.client
        dead = client.xrange(_KEYS.dead)
        figures.add("entries", count)
        figures.add("buried with a reason", sum(bool(fields.get(b"x")) for _, fields in dead), least=count)
        figures.add("left in work streams", sum(client.xlen(work) for work in _WORKS), most=0)
        figures.add("services down", sum(service.returncode is not None for service in pair), most=0)
    latencies.sort()
    figures.add("other runs timed", len(latencies))
    figures.add("p99 of other runs s", latencies[int(0.99 * len(latencies))], most=1.0)
    figures.add("a run that some of them named", unharmed)
    figures.add("runs harmed", int(unharmed != "unharmed"), most=0)
    figures.add("an open run that got content that nobody can read", aimed_at)
    verdict.report(figures)
    return figures


async def _flood(client: Any, count: int, chance: random.Random) -> None:
    known = _known(client, "target")
    for start in range(0, count, _CHUNK):
        pipe = client.pipeline(transaction=False)
        for _ in range(min(_CHUNK, count - start)):
            pipe.xadd(chance.choice(_WORKS), forge(chance, known))
        pipe.execute()
        await asyncio.sleep(_PAUSE)


async def _end(target: FlowRun) -> str:
    """How a run ends that some of the entries named."""
    try:
        await target.inputs["number"].write(1)
        await target.inputs["number"].complete()
        result = await target.result()
    except DatameshError:
        return f"broken: {(await target.status()).error}"
    return "unharmed" if result["total"] == [PARTS] else f"wrong: {result}"


async def _aim(supervisor: Supervisor, client: Any, chance: random.Random) -> str:
    """What becomes of an open run when entries in its name cannot be read."""
    victim = await supervisor.start_flow(stages, run_id="victim", open_inputs=True, all_outputs=True)
    known = _known(client, "victim")
    for _ in range(_AIMED):
        client.xadd(_WORKS[0], aim(chance, known))
    await _until_empty(client, b"victim")
    status = await victim.status()
    return f"{status.state.value}, {status.error or status.tasks['split']}"


def _known(client: Any, run_id: str) -> Known:
    run = client.hgetall(_KEYS.run(run_id))
    return Known(run[b"plan"].decode(), run_id, run[b"origin"].decode())


async def _latency(supervisor: Supervisor) -> float:
    """Seconds from the start of a run of one value to its result."""
    began = time.monotonic()
    run = await supervisor.start_flow(stages, inputs={"number": 1})
    assert await run["total"].collect() == [PARTS]
    return time.monotonic() - began


async def _until_empty(client: Any, run: bytes = b"ghost") -> None:
    """Wait until what names such a run, or none, has left the work streams."""
    deadline = time.monotonic() + _PATIENCE
    while any(run in fields.get(b"r", run) for work in _WORKS for _, fields in client.xrange(work)):
        if time.monotonic() > deadline:
            return
        await asyncio.sleep(0.1)
