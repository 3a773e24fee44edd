"""Survivor: the one member that finishes what is left on a shard, as services would, and what came out of it."""

from __future__ import annotations

from collections import Counter

from datamesh.store.frames import Delivery, Settlement, Status
from tests.protocol.flows import Value, frame_of, given, given_by_whole
from tests.protocol.rig import Rig, values_of
from tests.protocol.simulation import Held, World

_ROUNDS = 300
_NAME = "survivor"


async def finish(rig: Rig, world: World) -> list[str]:
    """Finish all runs of a simulated world that are there; returns what went wrong."""
    for member in rig.client.zrange(rig.keys.members, 0, -1):
        rig.client.zadd(rig.keys.members, {member: 1}, xx=True)
    await rig.join(_NAME)
    for run_id in world.inputs:
        await _complete(rig, run_id)
    for _ in range(_ROUNDS):
        while (await rig.protocol.promote())[0]:
            pass
        held = [*await rig.reap(_NAME), *await rig.take(_NAME)]
        if not held:
            break
        told = await rig.settle(_NAME, *(_settled(rig, world, delivery) for delivery in held))
        strange = set(told) - {Status.OK, Status.GONE}
        if strange:
            return [f"a settlement was answered by {strange}"]
    return [wrong for run_id in world.inputs for wrong in _wrong(rig, world, run_id)]


async def _complete(rig: Rig, run_id: str) -> None:
    """Close an input that was left open."""
    if rig.run(run_id).get("state") == "open":
        await rig.protocol.push(run_id, 0, writer="survivor", number=1, frames=[], close=True)


def _settled(rig: Rig, world: World, delivery: Delivery) -> Settlement:
    """The end of a delivery, with everything that is left to give."""
    held = Held.of(delivery)
    values = values_of(delivery.frame)
    settlement = Settlement(delivery, done=len(held.left) if values else 1)
    for output, stream in rig.bound_of(delivery).outputs[delivery.node].items():
        results: list[Value] = []
        for index in held.left:
            results += given(output, values[index]) if values else [given_by_whole(output)[index]]
        if results:
            settlement.outputs.append((stream, frame_of(results)))
    return settlement


def _wrong(rig: Rig, world: World, run_id: str) -> list[str]:
    """What a run that is there should have given and has not, or the other way round."""
    run = rig.run(run_id)
    if not run or run["state"] == "cancelled":
        return []
    if run["state"] != "done":
        return [f"run {run_id} is {run['state']}: {run}"]
    inputs = [[place] for place in range(int(run.get("v:0", 0)))]
    found = []
    for name, expected in world.flow.expected(inputs).items():
        wanted, there = Counter(map(str, expected)), Counter(map(str, rig.values(world.bound, name, run_id)))
        if wanted != there:
            found.append(f"run {run_id}, stream {name}: {wanted - there} lost, {there - wanted} doubled")
        if rig.ended(world.bound, name, run_id) != "done":
            found.append(f"run {run_id}, stream {name} has no end")
    return found


def outcome(rig: Rig, world: World) -> dict[str, object]:
    """The state of each run, and what its streams hold."""
    found: dict[str, object] = {}
    for run_id in world.inputs:
        found[run_id] = rig.run(run_id)
        found |= {f"{run_id} {s.name}": rig.values(world.bound, s.name, run_id) for s in world.bound.plan.streams}
    return found
