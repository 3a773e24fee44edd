"""settle: one attempt of a delivery is settled, and all that follows from it appears with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datamesh.model.task import Task
from datamesh.store.frames import Burial, Requeue, Settlement, Status
from tests.protocol.rig import Rig, frame, frames, on_both_servers, values_of

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")
B = Task("b", "mid", "out")
OK, ALREADY, FENCED, GONE = Status.OK, Status.ALREADY, Status.FENCED, Status.GONE


async def test_outputs_go_to_readers_and_to_the_next_task(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=1)
    assert await rig.settle("m", rig.done(await rig.take_one("m"), mid=[10, 11])) == [OK]
    assert rig.values(bound, "mid") == [10, 11]
    delivery = await rig.take_one("m")
    assert (rig.name_of(delivery), delivery.run_id, delivery.attempt) == ("b", "R", 1)
    assert values_of(delivery.frame) == [10, 11]


async def test_a_run_is_done_when_nothing_is_left_and_its_streams_end_once(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    assert await rig.start(bound, values=3) == "open"
    await rig.settle_all("m")
    assert rig.run()["state"] == "done"
    assert [rig.ended(bound, name) for name in ("in", "mid", "out")] == ["done"] * 3
    assert rig.values(bound, "out") == [0, 1, 2]
    assert rig.run()["d:0"] == rig.run()["d:1"] == "3"


async def test_the_end_rides_on_the_last_frame(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=2)
    first, last = await rig.take("m")
    await rig.settle("m", rig.done(first, mid=[1]))
    assert rig.ended(bound, "mid") == ""
    await rig.settle("m", rig.done(last, mid=[2]))
    assert [(entry.values, entry.end) for entry in rig.stream(bound, "mid")] == [([1], ""), ([2], "done")]


async def test_an_end_that_no_frame_carries_is_an_entry_of_its_own(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=1)
    await rig.settle("m", rig.done(await rig.take_one("m")))
    assert [(entry.values, entry.end) for entry in rig.stream(bound, "mid")] == [([], "done")]
    assert rig.ended(bound, "out") == "done"
    assert rig.run()["state"] == "done"


async def test_a_stream_ends_after_the_values_of_all_that_feed_it(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=3)
    late, *others = await rig.take("m")
    await rig.settle("m", *map(rig.echo, others))
    for delivery in await rig.take("m"):
        await rig.settle("m", rig.echo(delivery))
    assert rig.ended(bound, "mid") == rig.ended(bound, "out") == ""
    await rig.settle("m", rig.echo(late))
    assert (rig.ended(bound, "mid"), rig.ended(bound, "out")) == ("done", "")
    await rig.settle_all("m")
    assert rig.ended(bound, "out") == "done"


async def test_settled_entries_leave_memory(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=5)
    assert rig.queued(bound, "a") == 5
    await rig.settle_all("m")
    assert rig.queued(bound, "a") == 0
    assert rig.run()["q:0"] == "0"
    assert rig.lasting() == []


async def test_deliveries_of_many_runs_settle_in_one_call(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    for number in range(5):
        await rig.start(bound, f"R{number}", values=[number, number])
    for _ in range(2):
        taken = await rig.take("m")
        assert len(taken) == 10
        assert await rig.settle("m", *map(rig.echo, taken)) == [OK] * 10
    assert [rig.values(bound, "out", f"R{number}") for number in range(5)] == [[n, n] for n in range(5)]
    assert {rig.run(f"R{number}")["state"] for number in range(5)} == {"done"}


# ----------------------------------------------------------------------------------------- repeated, or fenced


async def test_the_same_call_again_changes_nothing(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=4)
    one, two, three, four = await rig.take("m")
    settlements = [
        rig.done(one, mid=[1, 2]),
        Settlement(two, retries=[Requeue(two.frame, 2, delay_ms=60_000)]),
        Settlement(three, returned=[Requeue(three.frame, 1)]),
        Settlement(four, burials=[Burial(four.frame, 1, b"why")]),
    ]
    assert await rig.settle("m", *settlements) == [OK] * 4
    before = rig.snapshot()
    assert await rig.settle("m", *settlements) == [ALREADY] * 4
    assert rig.snapshot() == before


async def test_the_same_delivery_twice_in_a_call_settles_once(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=1)
    settlement = rig.done(await rig.take_one("m"), mid=[7])
    assert await rig.settle("m", settlement, settlement) == [OK, ALREADY]
    assert rig.values(bound, "mid") == [7]
    assert rig.run()["o:1"] == "1"


async def test_of_two_attempts_one_is_settled(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.join("n")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    rig.expire("m")
    (again,) = await rig.reap("n")
    before = rig.snapshot()
    assert await rig.settle("m", rig.done(delivery, mid=["of m"])) == [FENCED]
    assert rig.snapshot() == before
    assert await rig.settle("n", rig.done(again, mid=["of n"])) == [OK]
    assert rig.values(bound, "mid") == ["of n"]


async def test_a_stranger_changes_nothing(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=2)
    taken = await rig.take("m")
    before = rig.snapshot()
    assert await rig.settle("nobody", *map(rig.echo, taken)) == [FENCED, FENCED]
    assert rig.snapshot() == before


async def test_what_belongs_to_a_run_that_is_over_is_dropped(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=2)
    first, second = await rig.take("m")
    await rig.protocol.end("R", state="cancelled")
    before = rig.snapshot()
    assert await rig.settle("m", rig.done(first, mid=[1])) == [GONE]
    after = rig.snapshot()
    work = rig.keys.work("a@1")
    assert {key: content for key, content in after.items() if key != work} == {
        key: content for key, content in before.items() if key != work
    }
    assert await rig.settle("m", replace(rig.done(second), step=1)) == [GONE]
    assert rig.snapshot() == after


async def test_what_belongs_to_a_forgotten_run_makes_no_key_and_stays_to_be_buried(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    rig.client.delete(*[key for key in rig.client.scan_iter() if b":run:R" in key])
    before = rig.snapshot()
    assert await rig.settle("m", rig.done(delivery, mid=[1])) == [Status.UNKNOWN]
    assert rig.snapshot() == before
    assert await rig.protocol.discard("m", delivery, "its run is not known") is OK
    assert (rig.queued(bound, "a"), rig.client.xlen(rig.keys.dead)) == (0, 1)


async def test_a_delivery_of_an_earlier_run_of_the_same_id_does_not_touch_the_new_one(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=2, retention_ms=0)
    old, older = await rig.take("m")
    await rig.protocol.end("R", state="cancelled")
    await rig.start(bound, values=["new"])
    before = rig.snapshot()
    assert await rig.settle("m", replace(rig.done(older, mid=[2]), step=1, mark=b"x")) == [GONE]
    assert rig.snapshot() == before
    assert await rig.settle("m", rig.done(old, mid=[1])) == [GONE]
    assert rig.values(bound, "mid") == []
    assert rig.run()["state"] == "open"
    await rig.settle_all("m")
    assert (rig.values(bound, "mid"), rig.ended(bound, "mid")) == (["new"], "done")


# -------------------------------------------------------------------------------------------------- outcomes


async def test_skipped_and_buried_values_are_terminal(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=0, complete=False)
    await rig.protocol.push("R", 0, writer="w", number=1, frames=frames(range(4), size=4), close=True)
    delivery = await rig.take_one("m")
    burial = Burial(frame([3]), 5, b"reason")
    outcome = Settlement(delivery, done=1, skipped=2, burials=[burial], outputs=[(1, frame(["x"]))])
    assert await rig.settle("m", outcome) == [OK]
    run = rig.run()
    assert (run["d:0"], run["k:0"], run["x:0"], run["o:0"], run["state"]) == ("1", "2", "1", "0", "done")
    ((_, dead),) = rig.client.xrange(rig.keys.dead)
    assert (dead[b"r"], dead[b"p"].decode(), dead[b"m"], dead[b"x"]) == (b"R", bound.digest, b"0 1 5 -", b"reason")
    assert dead[b"v"] == burial.frame.values


async def test_a_failure_ends_the_run_and_all_its_open_streams_with_it(rig: Rig) -> None:
    bound = await rig.bind(A, B, Task("c", "in", "other"))
    await rig.join("m")
    await rig.start(bound, values=3)
    taken = {rig.name_of(delivery): delivery for delivery in await rig.take("m")}
    await rig.settle("m", rig.done(taken["a"], mid=["before"]))
    failing = replace(rig.done(taken["c"], other=["with it"]), done=0, failure=b"broken")
    assert await rig.settle("m", failing) == [OK]
    run, node = rig.run(), bound.node_index["c"]
    assert (run["state"], run["failure"], run[f"f:{node}"]) == ("failed", "broken", "1")
    assert [(entry.values, entry.end, entry.failure) for entry in rig.stream(bound, "mid")] == [
        (["before"], "", b""),
        ([], "failed", b"broken"),
    ]
    assert [(entry.values, entry.end) for entry in rig.stream(bound, "other")] == [(["with it"], ""), ([], "failed")]
    assert rig.ended(bound, "in") == "done"
    assert rig.ended(bound, "out") == "failed"
    assert rig.lasting() == []
    ((_, news),) = rig.client.xrange(rig.keys.news)
    assert news == {b"kind": b"ended", b"run": b"R"}


async def test_values_given_back_come_as_new_deliveries_of_the_same_attempt(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=0, complete=False)
    await rig.protocol.push("R", 0, writer="w", number=1, frames=frames(range(3), size=3), close=True)
    delivery = await rig.take_one("m")
    back = [Requeue(frame([1], start=1), 1), Requeue(frame([2], start=2), 1, b"a mark")]
    outcome = Settlement(delivery, done=1, outputs=[(1, frame([0]))], returned=back)
    assert await rig.settle("m", outcome) == [OK]
    taken = await rig.take("m")
    assert [(values_of(d.frame), d.attempt, d.mark) for d in taken] == [([1], 1, b""), ([2], 1, b"a mark")]
    await rig.settle("m", *map(rig.echo, taken))
    assert rig.values(bound, "mid") == [0, 1, 2]
    assert rig.run()["state"] == "done"


# --------------------------------------------------------------------------------------------------- facts


async def test_facts_are_kept_once_somebody_listens(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=1)
    assert await rig.protocol.listen("R") == "open"
    assert await rig.protocol.listen("R") == "open"
    await rig.settle_all("m")
    told = [(fields[b"kind"], fields[b"subject"]) for _, fields in rig.client.xrange(rig.keys.events("R"))]
    assert told == [(b"done", b"0"), (b"closed", b"1"), (b"done", b"R")]
    assert rig.lasting() == []
    assert await rig.protocol.listen("R") == "done"
    assert await rig.protocol.listen("none") == ""
    assert rig.client.exists(rig.keys.run("none")) == 0


# ------------------------------------------------------------------------------------------- found by the model


async def test_an_owner_of_an_earlier_time_does_not_end_what_another_has_brought_forward(rig: Rig) -> None:
    bound = await rig.bind(A)
    for member in ("m", "n"):
        await rig.join(member)
    submission = rig.submission(bound, inputs={"in": [frame([0, 1])]})
    await rig.protocol.submit(submission)
    old = await rig.take_one("m")
    # The group is lost, and with it whose the entry was.
    rig.client.xgroup_destroy(old.work, "g")
    await rig.join("third")
    new = await rig.take_one("n")
    part = Settlement(new, step=1, mark=b"1 left", done=1, outputs=[(1, frame([0]))])
    assert await rig.settle("n", part) == [Status.OK]
    assert await rig.settle("m", rig.echo(old)) == [Status.FENCED]
    assert rig.values(bound, "mid") == [0]
    rest = Settlement(new, done=1, outputs=[(1, frame([1], start=1))])
    assert await rig.settle("n", rest) == [Status.OK]
    assert (rig.values(bound, "mid"), rig.run()["state"]) == ([0, 1], "done")


async def test_a_delivery_of_an_expired_run_does_not_stop_the_others_of_its_call(rig: Rig) -> None:
    large = await rig.bind(A, B)
    small = await rig.bind(Task("c", "in", "x"))
    await rig.join("m")
    await rig.start(large, values=1)
    (first,) = await rig.take("m")
    await rig.settle("m", rig.done(first, mid=[1]))
    (stale,) = await rig.take("m")
    rig.client.delete(rig.keys.run("R"))
    await rig.start(small, values=1)
    (fresh,) = await rig.take("m")
    assert await rig.settle("m", rig.echo(stale), rig.echo(fresh)) == [Status.GONE, Status.OK]
    assert rig.run()["state"] == "done"


async def test_one_item_that_is_fenced_says_nothing_of_the_others(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=2)
    first, second = await rig.take("m")
    await rig.settle("m", Settlement(first, step=1, mark=b"x"))
    first.step = 0
    assert await rig.settle("m", rig.echo(first), rig.echo(second)) == [Status.FENCED, Status.OK]
