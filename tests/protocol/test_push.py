"""push: values for open inputs, from several writers."""

from __future__ import annotations

import pytest

from datamesh.model.task import Task
from tests.protocol.rig import Rig, frame, frames, on_both_servers

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")


async def push(rig: Rig, number: int, *some: list[object], writer: str = "w", close: bool = False) -> tuple[str, bool]:
    frames = [frame(values) for values in some]
    pushed = await rig.protocol.push("R", 0, writer=writer, number=number, frames=frames, close=close)
    return pushed[:2]


async def test_values_come_in_the_order_in_which_they_were_written(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, complete=False)
    assert await push(rig, 1, [1, 2], [3]) == ("OK", False)
    assert await push(rig, 2, [4]) == ("OK", False)
    assert (rig.values(bound, "in"), rig.ended(bound, "in")) == ([1, 2, 3, 4], "")
    assert await push(rig, 3, close=True) == ("OK", False)
    assert rig.ended(bound, "in") == "done"
    await rig.settle_all("m")
    assert (rig.values(bound, "mid"), rig.ended(bound, "mid")) == ([1, 2, 3, 4], "done")


async def test_a_number_that_comes_again_changes_nothing(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, complete=False)
    await push(rig, 1, [1])
    before = rig.snapshot()
    assert await push(rig, 1, [1]) == ("ALREADY", False)
    assert rig.snapshot() == before
    await push(rig, 2, [2], close=True)
    before = rig.snapshot()
    assert await push(rig, 2, [2], close=True) == ("ALREADY", False)
    assert await push(rig, 3, [3]) == ("CLOSED", False)
    assert rig.snapshot() == before
    assert rig.values(bound, "in") == [1, 2]


async def test_a_call_whose_reply_was_lost_is_known_also_after_the_run_ended(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, complete=False)
    await push(rig, 1, [1])
    await rig.protocol.end("R", state="cancelled")
    before = rig.snapshot()
    assert await push(rig, 1, [1]) == ("ALREADY", False)
    assert await push(rig, 2, [2]) == ("GONE", False)
    assert await rig.protocol.push("none", 0, writer="w", number=1, frames=[frame([1])]) == ("GONE", False, "")
    assert rig.snapshot() == before


async def test_each_writer_counts_for_itself_and_places_are_given_across_all(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=["s0", "s1"], complete=False)
    await push(rig, 1, ["a0", "a1"], writer="a")
    await push(rig, 1, ["b0"], writer="b")
    await push(rig, 2, ["a2"], ["a3", "a4"], writer="a")
    entries = rig.stream(bound, "in")
    placed = [pair for entry in entries for pair in zip(entry.values, entry.lineages, strict=True)]
    names = ["s0", "s1", "a0", "a1", "b0", "a2", "a3", "a4"]
    assert placed == [(name, (place,)) for place, name in enumerate(names)]
    await push(rig, 2, close=True, writer="b")
    await rig.settle_all("m")
    placed = [pair for e in rig.stream(bound, "mid") for pair in zip(e.values, e.lineages, strict=True)]
    assert placed == [(name, (place,)) for place, name in enumerate(names)]


async def test_places_are_right_beyond_the_first_bytes(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, complete=False)
    for place in (255, 256, 65_535, 2**31, 2**40 + 7):
        rig.client.hset(rig.keys.run("R"), "v:0", place)
        await rig.protocol.push("R", 0, writer=f"w{place}", number=1, frames=[frame(list(range(256)))])
        assert rig.stream(bound, "in")[-1].lineages == [(place + n,) for n in range(256)]
        assert rig.run()["v:0"] == str(place + 256)


async def test_closing_an_input_delivers_those_who_wait_for_it(rig: Rig) -> None:
    bound = await rig.bind(Task("w", ["in", "other"], "out", wait=True))
    await rig.join("m")
    await rig.start(bound, complete=False)
    for stream in range(2):
        assert await rig.take("m") == []
        await rig.protocol.push("R", stream, writer="w", number=1, frames=frames([stream]), close=True)
    delivery = await rig.take_one("m")
    await rig.settle("m", rig.done(delivery, out=[1]))
    assert rig.run()["state"] == "done"


async def test_closing_an_input_without_values_ends_what_follows(rig: Rig) -> None:
    bound = await rig.bind(A, Task("b", "mid", "out"))
    await rig.start(bound, complete=False)
    assert await push(rig, 1, close=True) == ("OK", False)
    assert rig.run()["state"] == "done"
    assert [rig.ended(bound, name) for name in ("in", "mid", "out")] == ["done"] * 3
    assert rig.lasting() == []


async def test_a_writer_of_an_earlier_run_of_the_same_id_is_refused(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, complete=False)
    first = await rig.protocol.push("R", 0, writer="w", number=1, frames=[frame([1])])
    rig.client.delete(rig.keys.run("R"))
    await rig.start(bound, complete=False)
    again = await rig.protocol.push("R", 0, writer="w", number=2, frames=[frame([2])], origin=first.origin)
    assert again.status == "GONE"
    assert rig.run().get("v:0", "0") == "0"
