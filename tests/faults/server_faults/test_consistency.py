"""The check that counts a shard again finds every sort of contradiction, and none where there is none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import msgpack
import pytest

from datamesh.model.task import Task
from tests.faults.server_faults.consistency import violations
from tests.protocol.rig import Rig
from tests.protocol.simulation import World
from tests.servers import Server

pytestmark = [pytest.mark.anyio, pytest.mark.redis, pytest.mark.leaves_runs]

first = Task("first", "number", "doubled")
last = Task("last", "doubled", "total", wait=True)


@pytest.fixture
async def rig(server: Server, mesh: str) -> AsyncIterator[Rig]:
    """One shard with a run of four values, one of which is settled."""
    rig = Rig.on(server.client, server.url, mesh)
    bound = await rig.bind(first, last)
    await rig.start(bound, values=4)
    await rig.join("m")
    taken = await rig.take("m", 2)
    await rig.settle("m", rig.echo(taken[0]))
    yield rig
    await rig.close()


def found(rig: Rig) -> list[str]:
    return violations(rig.client, rig.keys, lambda mark: list(msgpack.unpackb(mark)))


def entry(rig: Rig) -> bytes:
    """An entry that is held, in the work stream of the first task."""
    work = rig.keys.work(first.ref)
    return bytes(rig.client.xpending_range(work, "g", "-", "+", 1)[0]["message_id"])


def add_to(counter: str) -> Callable[[Rig], object]:
    return lambda rig: rig.client.hincrby(rig.keys.run("R"), counter, 1)


def drop_an_entry(rig: Rig) -> None:
    rig.client.xdel(rig.keys.work(first.ref), entry(rig))


def repeat_an_entry(rig: Rig) -> None:
    work = rig.keys.work(first.ref)
    rig.client.xadd(work, rig.client.xrange(work, entry(rig), entry(rig))[0][1])


def end_a_stream(rig: Rig) -> None:
    rig.client.xadd(rig.keys.stream("R", 1), {"n": 0, "f": "-", "l": "", "v": "", "e": "done"})


def repeat_an_output(rig: Rig) -> None:
    stream = rig.keys.stream("R", 1)
    rig.client.xadd(stream, rig.client.xrange(stream)[0][1])


def mark_nothing(rig: Rig) -> None:
    rig.client.hset(rig.keys.marks, f"{rig.keys.work(first.ref)} 1-1", "1 ")


def forget_what_is_later(rig: Rig) -> None:
    rig.client.zadd(rig.keys.due, {"something": 1})


def end_the_run(rig: Rig) -> None:
    rig.client.hset(rig.keys.run("R"), "state", "failed")


BREAKS: dict[str, Callable[[Rig], object]] = {
    "open values": add_to("o:0"),
    "the window": add_to("q:0"),
    "retries": add_to("r:0"),
    "buried values": add_to("x:0"),
    "open inputs": add_to("i:1"),
    "tasks left": add_to("left"),
    "producers": add_to("c:2"),
    "published values": add_to("v:1"),
    "an entry that is gone": drop_an_entry,
    "an entry that is there twice": repeat_an_entry,
    "an end too early": end_a_stream,
    "an output that came twice": repeat_an_output,
    "a mark of nothing": mark_nothing,
    "a retry without its frame": forget_what_is_later,
    "keys that stay for ever": end_the_run,
}


async def test_a_shard_as_the_scripts_leave_it_is_consistent(rig: Rig) -> None:
    assert found(rig) == []


@pytest.mark.parametrize("name", list(BREAKS))
async def test_a_contradiction_is_found(rig: Rig, name: str) -> None:
    BREAKS[name](rig)
    assert found(rig)


@pytest.mark.parametrize("seed", range(5))
async def test_every_step_of_a_simulated_mesh_is_consistent(server: Server, mesh: str, seed: int) -> None:
    rig = Rig.on(server.client, server.url, mesh)
    try:
        world = World(rig, seed)
        await world.start()
        for _ in range(120):
            if world.is_over:
                break
            await world.step()
            assert found(rig) == []
    finally:
        await rig.close()
