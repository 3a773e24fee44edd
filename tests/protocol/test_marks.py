"""Advances: a delivery comes forward, and a mark says how far."""

from __future__ import annotations

import pytest

from datamesh.model.task import Task
from datamesh.store.frames import Requeue, Settlement, Status
from tests.protocol.rig import Rig, frame, frames, on_both_servers

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")
B = Task("b", "mid", "out")
OK, ALREADY, GONE = Status.OK, Status.ALREADY, Status.GONE


async def test_an_advance_publishes_and_keeps_the_delivery_and_its_mark(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    advance = Settlement(delivery, step=1, mark=b"so far 2", outputs=[(1, frame([1, 2]))])
    assert await rig.settle("m", advance) == [OK]
    before = rig.snapshot()
    assert await rig.settle("m", advance) == [ALREADY]
    assert rig.snapshot() == before
    assert rig.values(bound, "mid") == [1, 2]
    assert rig.client.hgetall(rig.keys.marks) == {f"{delivery.work} {delivery.entry_id}".encode(): b"1 so far 2"}
    assert (rig.queued(bound, "a"), rig.run()["o:0"]) == (1, "1")
    assert await rig.settle("m", rig.done(delivery, mid=[3])) == [OK]
    assert rig.client.exists(rig.keys.marks) == 0
    assert (rig.values(bound, "mid"), rig.ended(bound, "mid")) == ([1, 2, 3], "done")


async def test_a_later_advance_replaces_the_mark_and_an_earlier_one_comes_too_late(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    for step in (1, 2):
        advance = Settlement(delivery, step=step, mark=b"%d" % step, outputs=[(1, frame([step]))])
        assert await rig.settle("m", advance) == [OK]
    assert await rig.settle("m", Settlement(delivery, step=1, mark=b"1", outputs=[(1, frame([1]))])) == [ALREADY]
    assert rig.values(bound, "mid") == [1, 2]
    assert list(rig.client.hgetall(rig.keys.marks).values()) == [b"2 2"]


async def test_an_advance_of_what_somebody_else_holds_is_refused(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.join("n")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    before = rig.snapshot()
    assert await rig.settle("n", Settlement(delivery, step=1, outputs=[(1, frame([1]))])) == [GONE]
    assert rig.snapshot() == before
    await rig.settle("m", rig.echo(delivery))
    assert await rig.settle("m", Settlement(delivery, step=1, outputs=[(1, frame([1]))])) == [GONE]


async def test_values_finished_early_count_and_the_rest_follows(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=0, complete=False)
    await rig.protocol.push("R", 0, writer="w", number=1, frames=frames(range(4), size=4), close=True)
    delivery = await rig.take_one("m")
    early = Settlement(
        delivery, step=1, mark=b"3 is left", done=1, outputs=[(1, frame([0]))],
        returned=[Requeue(frame([1, 2], start=1), 1)],
    )  # fmt: skip
    assert await rig.settle("m", early) == [OK]
    assert (rig.run()["o:0"], rig.run()["d:0"]) == ("3", "1")
    assert await rig.settle("m", Settlement(delivery, done=1, outputs=[(1, frame([3]))])) == [OK]
    assert rig.run()["state"] == "open"
    await rig.settle_all("m")
    assert rig.values(bound, "mid") == [0, 3, 1, 2]
    assert rig.run()["state"] == "done"


async def test_a_store_that_lost_an_advance_fences_its_owner(rig: Rig) -> None:
    bound = await rig.bind(A, tapped=["mid"])
    await rig.join("m")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    for step in (1, 2):
        advance = Settlement(delivery, step=step, mark=b"%d" % step, outputs=[(1, frame([step]))])
        assert await rig.settle("m", advance) == [OK]
    # A failover that lost the second advance.
    rig.client.hset(rig.keys.marks, f"{delivery.work} {delivery.entry_id}", b"1 1")
    before = rig.snapshot()
    third = Settlement(delivery, step=3, mark=b"3", outputs=[(1, frame([3]))])
    assert await rig.settle("m", third) == [Status.FENCED]
    assert await rig.settle("m", Settlement(delivery, done=1)) == [Status.FENCED]
    assert rig.snapshot() == before
