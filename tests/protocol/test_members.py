"""join, beat, leave: who is a member, and what a member hears."""

from __future__ import annotations

import pytest

from datamesh.model.task import Task
from tests.protocol.rig import LEASE_MS, Rig, on_both_servers

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "out")
HOUR_MS = 3_600_000


async def test_a_member_has_a_deadline_by_the_clock_of_the_server(rig: Rig) -> None:
    await rig.bind(A)
    await rig.join("m")
    seconds, micros = rig.client.time()
    ((member, deadline),) = rig.client.zrange(rig.keys.members, 0, -1, withscores=True)
    assert member == b"m"
    assert deadline - LEASE_MS == pytest.approx(1000 * seconds + micros / 1000, abs=2000)


async def test_joining_makes_the_groups_so_that_earlier_entries_are_read_too(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, values=1)
    await rig.join("m")
    assert len(await rig.take("m")) == 1
    assert {rig.client.xinfo_groups(work)[0]["name"] for work in rig.works} == {b"g"}


async def test_joining_again_changes_nothing_but_the_deadline(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, values=2)
    await rig.join("m", slots=20)
    await rig.take("m", 1)
    before = rig.snapshot(times=False)
    await rig.join("m", slots=20)
    after = rig.snapshot(times=False)
    assert after.pop(rig.keys.members) >= before.pop(rig.keys.members)
    assert after == before


async def test_the_window_is_twice_the_slots_of_those_who_serve_and_at_least_16(rig: Rig) -> None:
    await rig.bind(A)
    work, low, other = rig.keys.work("a@1"), rig.keys.work("a@1", ":low"), rig.keys.work("b@1")

    def windows() -> dict[bytes, bytes]:
        return dict(rig.client.hgetall(rig.keys.windows))

    await rig.join("m", slots=8, works=[work, low])
    assert windows() == {}
    await rig.join("n", slots=12, works=[work, other])
    assert windows() == {work.encode(): b"40", other.encode(): b"24"}
    await rig.protocol.leave("m")
    assert windows() == {work.encode(): b"24", other.encode(): b"24"}
    await rig.protocol.leave("n")
    assert set(windows().values()) == {b"16"}


async def test_who_comes_back_under_another_name_takes_the_place_of_the_former(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, values=1)
    await rig.join("m", slots=20)
    (delivery,) = await rig.take("m")
    await rig.join("m2", slots=20, former="m")
    assert rig.client.zrange(rig.keys.members, 0, -1) == [b"m2"]
    assert rig.client.hget(rig.keys.windows, delivery.work) == b"40"
    (again,) = await rig.reap("m2")
    assert again.entry_id == delivery.entry_id


async def test_a_beat_renews_the_lease(rig: Rig) -> None:
    await rig.bind(A)
    await rig.join("m")
    rig.expire("m")
    assert (await rig.protocol.beat("m", lease_ms=LEASE_MS)).fenced is False
    assert rig.client.zscore(rig.keys.members, "m") > 1000 * rig.client.time()[0]


async def test_a_beat_tells_of_expired_members_orphans_and_what_is_due(rig: Rig) -> None:
    await rig.bind(A)
    await rig.join("m")
    assert await rig.protocol.beat("m", lease_ms=LEASE_MS) == (False, 0, 0, -1)
    await rig.join("n")
    rig.expire("n")
    rig.client.zadd(rig.keys.due, {"x": 1000 * rig.client.time()[0] + 5000})
    beat = await rig.protocol.beat("m", lease_ms=LEASE_MS)
    assert (beat.expired, beat.orphans) == (1, 0)
    assert 0 < beat.due_ms <= 6000
    await rig.start(next(iter(rig.bounds.values())), values=3)
    await rig.take("n")
    await rig.protocol.leave("n")
    rig.client.zadd(rig.keys.due, {"x": 1})
    assert await rig.protocol.beat("m", lease_ms=LEASE_MS) == (False, 0, 1, 0)


@pytest.mark.parametrize("name", ["beat", "take", "settle", "reap", "recover", "leave"])
async def test_who_is_no_member_any_more_hears_so_and_changes_nothing(rig: Rig, name: str) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.join("n")
    await rig.start(bound, values=2)
    delivery = await rig.take_one("m")
    rig.expire("m")
    await rig.reap("n", 0)
    protocol, works = rig.protocol, rig.works
    before = rig.snapshot()
    match name:
        case "beat":
            assert (await protocol.beat("m", lease_ms=LEASE_MS)).fenced
        case "take":
            assert await protocol.take("m", most=9, works=works, each=[9] * len(works)) is None
        case "settle":
            assert await rig.settle("m", rig.echo(delivery)) == ["FENCED"]
        case "reap":
            assert await protocol.reap("m", slots=9, works=works) is None
        case "recover":
            assert await protocol.recover("m", works=works) is None
        case "leave":
            await protocol.leave("m")
    assert rig.snapshot() == before


async def test_what_a_member_leaves_may_be_taken_at_once(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.join("n")
    await rig.start(bound, values=2)
    taken = await rig.take("m")
    await rig.protocol.leave("m")
    before = rig.snapshot()
    await rig.protocol.leave("m")
    assert rig.snapshot() == before
    assert [d.entry_id for d in await rig.reap("n")] == [d.entry_id for d in taken]


async def test_keys_of_members_go_an_hour_after_the_last_beat(rig: Rig) -> None:
    await rig.bind(A)
    await rig.join("m", slots=20)
    for key in (rig.keys.members, rig.keys.services, rig.keys.windows):
        rig.client.pexpire(key, 1000)
    await rig.protocol.beat("m", lease_ms=LEASE_MS)
    for key in (rig.keys.members, rig.keys.services, rig.keys.windows):
        assert rig.client.pttl(key) == pytest.approx(HOUR_MS, abs=5000)
