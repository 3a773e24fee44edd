"""reap and recover: what belongs to nobody is taken over, and what is a member's own is found again."""

from __future__ import annotations

import pytest

from datamesh.model.task import Task
from datamesh.store.frames import Settlement, Status
from tests.protocol.rig import LEASE_MS, Rig, frame, on_both_servers, values_of

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")
B = Task("b", "mid", "out")


def consumers(rig: Rig, work: str) -> set[str]:
    return {one["name"].decode() for one in rig.client.xinfo_consumers(work, "g")}


async def held_by(rig: Rig, member: str, count: int = 1) -> list[str]:
    """Ids of deliveries that the member has taken of a new run, and did not settle."""
    bound = await rig.bind(A)
    await rig.join(member)
    await rig.start(bound, values=count)
    return [delivery.entry_id for delivery in await rig.take(member)]


async def test_what_a_member_holds_is_not_taken(rig: Rig) -> None:
    await held_by(rig, "m", 3)
    await rig.join("n")
    before = rig.snapshot()
    assert await rig.reap("n") == []
    assert rig.snapshot() == before


async def test_what_an_expired_member_held_is_taken_over(rig: Rig) -> None:
    ids = await held_by(rig, "m", 3)
    await rig.join("n")
    rig.expire("m")
    taken = await rig.reap("n")
    assert [delivery.entry_id for delivery in taken] == ids
    assert [values_of(delivery.frame) for delivery in taken] == [[0], [1], [2]]
    assert rig.client.zscore(rig.keys.members, "m") is None
    assert rig.client.hexists(rig.keys.services, "m") is False
    assert set(await rig.settle("n", *map(rig.echo, taken))) == {Status.OK}
    assert rig.run()["state"] == "done"


async def test_the_lease_may_be_over_and_yet_the_member_be_there(rig: Rig) -> None:
    await held_by(rig, "m", 1)
    await rig.join("n")
    rig.expire("m")
    await rig.protocol.beat("m", lease_ms=LEASE_MS)
    assert await rig.reap("n") == []


async def test_who_is_expired_itself_takes_nothing(rig: Rig) -> None:
    await held_by(rig, "m", 1)
    await rig.join("n")
    rig.expire("m")
    rig.expire("n")
    before = rig.snapshot()
    assert await rig.protocol.reap("n", slots=5, works=rig.works) is None
    assert rig.snapshot() == before


async def test_no_more_is_taken_than_there_are_slots(rig: Rig) -> None:
    await held_by(rig, "m", 5)
    await rig.join("n")
    rig.expire("m")
    assert await rig.reap("n", 0) == []
    counts = [len(await rig.reap("n", 2)) for _ in range(4)]
    assert counts == [2, 2, 1, 0]


async def test_a_consumer_is_deleted_when_it_holds_nothing(rig: Rig) -> None:
    await held_by(rig, "m", 2)
    await rig.join("n")
    rig.expire("m")
    work = rig.keys.work("a@1")
    await rig.reap("n", 1)
    assert "m" in consumers(rig, work)
    await rig.reap("n", 1)
    assert "m" not in consumers(rig, work)


async def test_streams_of_a_removed_member_are_watched_longer_than_a_read_blocks(rig: Rig) -> None:
    await held_by(rig, "m", 1)
    await rig.join("n")
    rig.expire("m")
    await rig.reap("n")
    # The server hands an entry to a read that the dead member had left behind.
    await rig.start(next(iter(rig.bounds.values())), "late", values=1)
    work = rig.keys.work("a@1")
    assert rig.client.zrange(rig.keys.orphans, 0, -1) == [b"m"]
    rig.client.xreadgroup("g", "m", {work: ">"})
    assert (await rig.protocol.beat("n", lease_ms=LEASE_MS)).orphans > 0
    (delivery,) = await rig.reap("n")
    assert delivery.run_id == "late"
    rig.forget_watch()
    await rig.reap("n")
    assert rig.client.exists(rig.keys.orphans) == 0
    assert (await rig.protocol.beat("n", lease_ms=LEASE_MS)).orphans == 0


async def test_many_members_that_went_do_not_hide_one_that_holds_something(rig: Rig) -> None:
    for number in range(60):
        await rig.bind(Task(f"t{number}", "in", f"out-{number}"))
    await held_by(rig, "m0", 1)
    for number in range(1, 30):
        await rig.join(f"m{number}")
        rig.expire(f"m{number}")
    rig.expire("m0")
    await rig.join("n")
    taken = [delivery for _ in range(2) for delivery in await rig.reap("n")]
    assert [delivery.run_id for delivery in taken] == ["R"]


async def test_consumers_that_nobody_noted_are_found(rig: Rig) -> None:
    await held_by(rig, "m", 1)
    await rig.join("n")
    rig.client.zrem(rig.keys.members, "m")
    rig.client.delete(rig.keys.services)
    (delivery,) = await rig.reap("n")
    assert delivery.run_id == "R"


async def test_who_joins_notes_consumers_that_belong_to_nobody(rig: Rig) -> None:
    await held_by(rig, "m", 1)
    rig.client.zrem(rig.keys.members, "m")
    await rig.join("n")
    assert f"m {rig.keys.work('a@1')}".encode() in rig.client.zrange(rig.keys.orphans, 0, -1)
    assert (await rig.protocol.beat("n", lease_ms=LEASE_MS)).orphans > 0


async def test_entries_of_streams_that_the_caller_does_not_serve_stay(rig: Rig) -> None:
    await held_by(rig, "m", 1)
    await rig.join("n", works=[rig.keys.work("z@1")])
    rig.expire("m")
    assert await rig.protocol.reap("n", slots=5, works=[rig.keys.work("z@1")]) == []
    orphans = [f"m {rig.keys.work('a@1')}".encode(), b"m"]
    assert rig.client.zrange(rig.keys.orphans, 0, -1) == orphans
    rig.forget_watch()
    assert await rig.protocol.reap("n", slots=5, works=[rig.keys.work("z@1")]) == []
    assert rig.client.zrange(rig.keys.orphans, 0, -1) == orphans[:1]
    await rig.join("o")
    assert len(await rig.reap("o")) == 1


async def test_deaths_are_counted(rig: Rig) -> None:
    await held_by(rig, "m0", 1)
    for number in (1, 2, 3):
        await rig.join(f"m{number}")
        rig.expire(f"m{number - 1}")
        (delivery,) = await rig.reap(f"m{number}")
        assert delivery.deaths == number


async def test_a_mark_comes_with_the_entry(rig: Rig) -> None:
    await held_by(rig, "m", 0)
    bound = await rig.bind(A)
    await rig.start(bound, "S", values=1)
    delivery = await rig.take_one("m")
    for step in (1, 2):
        advance = Settlement(delivery, step=step, mark=b"\x00 mark %d" % step, outputs=[(1, frame([step]))])
        assert await rig.settle("m", advance) == [Status.OK]
    await rig.join("n")
    rig.expire("m")
    (again,) = await rig.reap("n")
    assert (again.step, again.mark, again.deaths) == (2, b"\x00 mark 2", 1)
    assert await rig.settle("n", Settlement(again, step=3, mark=b"3", outputs=[(1, frame([3]))])) == [Status.OK]
    assert await rig.settle("n", Settlement(again, done=1)) == [Status.OK]
    assert rig.values(bound, "mid", "S") == [1, 2, 3]
    assert rig.client.exists(rig.keys.marks) == 0


async def test_a_work_stream_that_was_deleted_does_not_stop_anybody(rig: Rig) -> None:
    await held_by(rig, "m", 1)
    await rig.join("n")
    rig.expire("m")
    rig.client.delete(rig.keys.work("a@1"))
    assert await rig.reap("n") == []
    rig.forget_watch()
    assert await rig.reap("n") == []
    assert rig.client.exists(rig.keys.orphans) == 0


async def test_work_streams_are_left_alone_when_their_window_shrinks(rig: Rig) -> None:
    await rig.bind(A)
    await rig.join("m", slots=30)
    await rig.join("n", slots=20)
    work = rig.keys.work("a@1")
    assert rig.client.hget(rig.keys.windows, work) == b"100"
    rig.expire("m")
    await rig.reap("n")
    assert rig.client.hget(rig.keys.windows, work) == b"40"


# -------------------------------------------------------------------------------------------------- recover


async def test_what_was_handed_out_in_a_lost_reply_is_found_again(rig: Rig) -> None:
    ids = await held_by(rig, "m", 3)
    before = rig.snapshot()
    found = await rig.protocol.recover("m", works=rig.works)
    assert [(d.entry_id, d.deaths, d.step, d.mark) for d in found or ()] == [(i, 0, 0, b"") for i in ids]
    assert rig.snapshot() == before


async def test_what_was_taken_over_in_a_lost_reply_is_found_with_its_mark(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    await rig.settle("m", Settlement(delivery, step=1, mark=b"half", outputs=[(1, frame(["early"]))]))
    await rig.join("n")
    rig.expire("m")
    (told,) = await rig.reap("n")
    found = await rig.protocol.recover("n", works=rig.works)
    assert found == [told]
    assert (told.step, told.mark, told.deaths) == (1, b"half", 1)


async def test_entries_that_do_not_exist_any_more_are_forgotten(rig: Rig) -> None:
    (entry_id,) = await held_by(rig, "m", 1)
    rig.client.xdel(rig.keys.work("a@1"), entry_id)
    assert await rig.protocol.recover("m", works=rig.works) == []
    assert rig.client.xpending(rig.keys.work("a@1"), "g")["pending"] == 0
