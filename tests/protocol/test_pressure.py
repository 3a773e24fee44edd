"""Backpressure: who feeds a task over its high mark is told so, and when it is below its low mark again."""

from __future__ import annotations

import pytest

from datamesh.model.task import Task
from datamesh.store.frames import Delivery, Settlement
from tests.protocol.rig import LEASE_MS, Rig, frame, on_both_servers

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")
B = Task("b", "mid", "out")


async def join(rig: Rig, marks: str) -> None:
    """Join as a member whose task `b` has these marks."""
    pressure = [marks if work.startswith(rig.keys.work("b@1")) else "" for work in rig.works]
    await rig.protocol.join("m", lease_ms=LEASE_MS, former="", announcement="1 m", works=rig.works, pressure=pressure)


async def advance(rig: Rig, delivery: Delivery) -> bool:
    """Publish a value of a delivery that goes on; tell whether it was told to wait."""
    delivery.step += 1
    settlement = Settlement(delivery, step=delivery.step, outputs=[(1, frame([0]))])
    (settled,) = await rig.protocol.settle("m", [settlement])
    return settled.is_full


def news(rig: Rig) -> list[tuple[bytes, bytes]]:
    return [(fields[b"kind"], fields[b"run"]) for _, fields in rig.client.xrange(rig.keys.news)]


async def test_a_generator_is_told_that_the_task_it_feeds_is_full(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await join(rig, "5 2")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    for _ in range(5):
        assert not await advance(rig, delivery)
    assert await advance(rig, delivery)
    assert (rig.run()["full"], rig.run()["y:1"]) == ("1", "3")
    (taken,) = await rig.take("m", 1)
    await rig.settle("m", rig.echo(taken))
    assert await advance(rig, delivery)  # it stays full down to its low mark
    assert news(rig) == []


async def test_room_is_told_once(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await join(rig, "3 1")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    for _ in range(4):
        await advance(rig, delivery)
    assert rig.run()["full"] == "1"
    for expected in ([], [], [(b"room", b"R")], [(b"room", b"R")]):
        (taken,) = await rig.take("m", 1)
        await rig.settle("m", rig.echo(taken))
        assert news(rig) == expected
    assert (rig.run()["full"], rig.run()["y:1"]) == ("0", "0")
    await rig.settle("m", rig.done(delivery))
    await rig.settle_all("m")
    assert rig.run()["state"] == "done"


async def test_who_has_ended_is_never_told_to_wait(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await join(rig, "1 0")
    await rig.start(bound, values=1)
    (settled,) = await rig.protocol.settle("m", [rig.done(await rig.take_one("m"), mid=range(9))])
    assert not settled.is_full
    assert rig.run().get("full", "0") == "0"


async def test_a_writer_of_an_open_input_is_told_too(rig: Rig) -> None:
    bound = await rig.bind(B)
    await join(rig, "3 1")
    await rig.start(bound, complete=False)
    pushed = [await rig.protocol.push("R", 0, writer="w", number=n, frames=[frame([n])]) for n in (1, 2, 3, 4)]
    assert [one[:2] for one in pushed] == [("OK", False), ("OK", False), ("OK", False), ("OK", True)]
    await rig.settle_all("m")
    assert news(rig) == [(b"room", b"R")]


async def test_marks_of_the_last_to_join_hold(rig: Rig) -> None:
    await rig.bind(A, B)
    await join(rig, "5 2")
    work = rig.keys.work("b@1")
    assert rig.client.hget(rig.keys.pressure, work) == b"5 2"
    await join(rig, "")
    assert rig.client.hlen(rig.keys.pressure) == 0


async def test_a_task_that_keeps_nothing_waiting_lets_its_producer_go_on(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await join(rig, "1 0")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    assert not await advance(rig, delivery)
    assert await advance(rig, delivery)
    for _ in range(2):
        (taken,) = await rig.take("m", 1)
        await rig.settle("m", rig.echo(taken))
    assert (rig.run()["full"], news(rig)) == ("0", [(b"room", b"R")])
