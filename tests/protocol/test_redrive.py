"""redrive: a dead letter goes back into its run, once, with its attempts before it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from datamesh.model.modes import Mode
from datamesh.model.task import Task
from datamesh.store.dead import DeadStream, Head, Letter
from datamesh.store.frames import Burial, Delivery, Settlement, Status
from datamesh.store.link import ReplyError
from tests.protocol.rig import Rig, on_both_servers, values_of

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")
B = Task("b", "mid", "out")


async def bury(rig: Rig, member: str, delivery: Delivery, *, reason: bytes = b"why") -> None:
    """End a delivery with all of its values buried, after its third attempt."""
    settlement = Settlement(delivery, burials=[Burial(delivery.frame, 3, reason)])
    assert await rig.settle(member, settlement) == [Status.OK]


async def letters(rig: Rig) -> list[tuple[Letter, Head]]:
    """Letters with their heads, the oldest first."""
    found = [letter async for letter in DeadStream(rig.protocol).newest()]
    return [(letter, letter.head) for letter in reversed(found) if letter.head is not None]


async def redrive(rig: Rig, letter: Letter, head: Head) -> str:
    return await DeadStream(rig.protocol).redrive(letter, head)


async def buried(rig: Rig, values: Sequence[Any] = (1, 2), **options: Any) -> tuple[Letter, Head]:
    """A run whose first value is dead and whose others are still to be taken."""
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=values, **options)
    await bury(rig, "m", await rig.take_one("m"))
    (found,) = await letters(rig)
    return found


async def test_a_letter_tells_whose_values_it_has_and_why(rig: Rig) -> None:
    letter, head = await buried(rig)
    assert (head.run_id, head.origin, head.node, head.attempt) == ("R", rig.run()["origin"], 0, 3)
    assert head.digest in rig.bounds
    assert (values_of(letter.frame), letter.reason) == ([1], b"why")
    assert letter.time_ms == int(letter.entry_id.split("-")[0]) > 1_600_000_000_000


async def test_values_come_again_as_if_they_had_never_been_tried(rig: Rig) -> None:
    letter, head = await buried(rig)
    assert (rig.run()["x:0"], rig.run()["o:0"]) == ("1", "1")
    assert await redrive(rig, letter, head) == "OK"
    assert (rig.run()["x:0"], rig.run()["o:0"]) == ("0", "2")
    assert rig.client.xlen(rig.keys.dead) == 0
    taken = await rig.take("m")
    again = taken[-1]
    assert (again.attempt, again.mark, again.origin) == (1, b"", head.origin)
    assert (again.frame.lineages, values_of(again.frame)) == (letter.frame.lineages, [1])
    await rig.settle("m", *map(rig.echo, taken))
    await rig.settle_all("m")
    (bound,) = rig.bounds.values()
    assert sorted(rig.values(bound, "out")) == [1, 2]
    assert (rig.run()["state"], rig.ended(bound, "out")) == ("done", "done")
    assert rig.lasting() == []


async def test_a_repetition_changes_nothing(rig: Rig) -> None:
    letter, head = await buried(rig)
    assert await redrive(rig, letter, head) == "OK"
    before = rig.snapshot()
    assert await redrive(rig, letter, head) == "ALREADY"
    assert rig.snapshot() == before


async def test_only_the_letter_that_is_named_is_moved(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=4)
    for delivery in await rig.take("m", 3):
        await bury(rig, "m", delivery)
    (_, _), (second, head), (_, _) = await letters(rig)
    assert await redrive(rig, second, head) == "OK"
    assert [values_of(letter.frame) for letter, _ in await letters(rig)] == [[0], [2]]
    assert (rig.run()["x:0"], rig.run()["o:0"]) == ("2", "2")


async def test_what_has_been_published_goes_with_the_value(rig: Rig) -> None:
    letter, head = await buried(rig)
    fields = dict(rig.client.xrange(rig.keys.dead)[0][1])
    rig.client.xdel(rig.keys.dead, letter.entry_id)
    entry_id = rig.client.xadd(rig.keys.dead, {**fields, b"k": b"a mark"})
    ((letter, head),) = await letters(rig)
    assert letter.entry_id == entry_id.decode()
    assert await redrive(rig, letter, head) == "OK"
    assert (await rig.take("m"))[-1].mark == b"a mark"


async def test_it_goes_ahead_of_what_waits_for_the_window(rig: Rig) -> None:
    letter, head = await buried(rig, list(range(60)))
    (bound,) = rig.bounds.values()
    assert rig.queued(bound, "a") == 16
    assert await redrive(rig, letter, head) == "OK"
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a")) == (16, 44)
    await rig.settle("m", rig.echo(await rig.take_one("m")))
    *_, moved_up = await rig.take("m", 1000, works=[rig.keys.work("a@1")])
    assert values_of(moved_up.frame) == [0]


async def test_a_run_that_is_over_takes_nothing(rig: Rig) -> None:
    letter, head = await buried(rig)
    await rig.protocol.end("R", state="cancelled")
    await refused(rig, letter, head, "GONE")


async def test_a_task_that_is_done_takes_nothing(rig: Rig) -> None:
    letter, head = await buried(rig)
    await rig.settle("m", *[rig.echo(delivery) for delivery in await rig.take("m", works=[rig.keys.work("a@1")])])
    assert (rig.run()["state"], rig.run()["o:0"]) == ("open", "0")
    await refused(rig, letter, head, "GONE")


async def test_another_run_of_the_same_id_takes_nothing(rig: Rig) -> None:
    letter, head = await buried(rig)
    await rig.protocol.end("R", state="cancelled")
    rig.client.delete(rig.keys.run("R"))
    (bound,) = rig.bounds.values()
    await rig.start(bound, values=3)
    await refused(rig, letter, head, "GONE")
    rig.client.delete(rig.keys.run("R"))
    await refused(rig, letter, head, "GONE")


async def test_a_task_with_all_the_open_values_of_its_quota_takes_nothing(rig: Rig) -> None:
    letter, head = await buried(rig)
    rig.client.hset(rig.keys.run("R"), "quota", "0 1 0")
    await refused(rig, letter, head, "FULL")
    rig.client.hset(rig.keys.run("R"), "quota", "0 2 0")
    assert await redrive(rig, letter, head) == "OK"
    assert rig.run()["state"] == "open"


async def refused(rig: Rig, letter: Letter, head: Head, status: str) -> None:
    before = rig.snapshot()
    assert await redrive(rig, letter, head) == status
    assert rig.snapshot() == before


async def test_an_error_changes_nothing(rig: Rig) -> None:
    letter, head = await buried(rig)
    for key in (rig.keys.work("a@1"), rig.keys.backlog("R", 0), rig.keys.windows, rig.keys.plan(head.digest)):
        kept = rig.client.dump(key)
        rig.client.delete(key)
        rig.client.set(key, "of another kind")
        before = rig.snapshot()
        with pytest.raises(ReplyError):
            await redrive(rig, letter, head)
        assert rig.snapshot() == before
        rig.client.delete(key)
        if kept is not None:
            rig.client.restore(key, 0, kept)
    assert await redrive(rig, letter, head) == "OK"


async def test_a_plan_that_is_gone_is_an_error_that_changes_nothing(rig: Rig) -> None:
    letter, head = await buried(rig)
    rig.client.delete(rig.keys.plan(head.digest))
    before = rig.snapshot()
    with pytest.raises(ReplyError, match="the plan of run R is gone"):
        await redrive(rig, letter, head)
    assert rig.snapshot() == before


async def test_it_goes_on_when_memory_is_out(rig: Rig) -> None:
    letter, head = await buried(rig)
    rig.client.config_set("maxmemory", 1)
    try:
        assert await redrive(rig, letter, head) == "OK"
    finally:
        rig.client.config_set("maxmemory", 0)
    assert (rig.run()["x:0"], rig.run()["o:0"]) == ("0", "2")
    assert len(await rig.take("m")) == 2


async def test_a_letter_of_a_whole_stream_has_no_place_in_its_run_any_more(rig: Rig) -> None:
    bound = await rig.bind(Task("s", "in", "out"), s=Mode.STREAM)
    await rig.join("m")
    await rig.start(bound, values=2, complete=False)
    delivery = await rig.take_one("m")
    await rig.settle("m", Settlement(delivery, done=1))
    rig.client.xadd(
        rig.keys.dead,
        {"r": "R", "o": rig.run()["origin"], "p": bound.digest, "m": "0 0 1 -", "l": "", "v": "", "x": "why"},
    )
    ((letter, head),) = await letters(rig)
    await refused(rig, letter, head, "GONE")


@pytest.mark.parametrize(
    "fields",
    [
        {"w": "work:a@1", "x": "it cannot be read", "raw": b"\x90"},
        {"x": "nothing else"},
        {"r": "R", "o": "", "p": "plan", "m": "nonsense", "l": "", "v": ""},
        {"r": "no run", "o": "", "p": "plan", "m": "0 1 1 -", "l": "", "v": ""},
    ],
)
async def test_what_cannot_be_read_is_a_letter_without_a_head(rig: Rig, fields: dict[str, Any]) -> None:
    entry_id = rig.client.xadd(rig.keys.dead, fields).decode()
    (letter,) = [letter async for letter in DeadStream(rig.protocol).newest()]
    assert (letter.entry_id, letter.head, letter.frame.count) == (entry_id, None, 0)
    assert letter.work == fields.get("w", "")
    assert await DeadStream(rig.protocol).find(entry_id) == letter


async def test_all_letters_are_found_in_pages_newest_first_and_dropped(rig: Rig) -> None:
    stream = DeadStream(rig.protocol)
    ids = [rig.client.xadd(rig.keys.dead, {"x": str(n)}).decode() for n in range(250)]
    found = []
    async for letter in stream.newest():
        found.append(letter.entry_id)
        rig.client.xadd(rig.keys.dead, {"x": "comes meanwhile"})
        assert await stream.drop([letter.entry_id]) == 1
    assert found == ids[::-1]
    assert await stream.drop(ids[:3]) == 0
    assert await stream.find(ids[0]) is None
