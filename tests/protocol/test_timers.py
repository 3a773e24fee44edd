"""promote and sweep: what happens later."""

from __future__ import annotations

import pytest

from datamesh.model.task import Task
from datamesh.store.frames import Requeue, Settlement
from datamesh.store.keys import Level
from tests.protocol.rig import HOUR_MS, Rig, frames, on_both_servers, values_of

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")


def make_due(rig: Rig) -> None:
    """Let the time come of all that is to happen."""
    for name in rig.client.zrange(rig.keys.due, 0, -1):
        rig.client.zadd(rig.keys.due, {name: 1})


async def test_a_retry_comes_when_it_is_due_with_its_attempt_and_mark(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    again = Requeue(delivery.frame, 2, b"\x00 mark\n", delay_ms=60_000)
    await rig.settle("m", Settlement(delivery, retries=[again]))
    assert (rig.run()["r:0"], rig.run()["o:0"], rig.queued(bound, "a")) == ("1", "1", 0)
    count, due_ms = await rig.protocol.promote()
    assert count == 0
    assert 50_000 < due_ms <= 60_000
    make_due(rig)
    assert await rig.protocol.promote() == (1, -1)
    assert await rig.protocol.promote() == (0, -1)
    (later,) = await rig.take("m")
    assert (later.attempt, later.mark) == (2, b"\x00 mark\n")
    assert (later.frame, later.origin) == (delivery.frame, delivery.origin)
    assert rig.client.exists(rig.keys.due, rig.keys.later) == 0
    assert rig.run()["r:0"] == "0"
    await rig.settle("m", rig.echo(later))
    assert rig.run()["state"] == "done"


async def test_retries_keep_their_level(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.protocol.submit(rig.submission(bound, inputs={"in": frames([1])}, level=Level.LOW))
    delivery = await rig.take_one("m")
    await rig.settle("m", Settlement(delivery, retries=[Requeue(delivery.frame, 2)]))
    await rig.protocol.promote()
    assert rig.queued(bound, "a", ":low") == 1


async def test_retries_of_a_run_that_is_over_are_dropped(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=2)
    for delivery in await rig.take("m"):
        await rig.settle("m", Settlement(delivery, retries=[Requeue(delivery.frame, 2)]))
    await rig.protocol.end("R", state="cancelled")
    before = rig.snapshot()
    assert await rig.protocol.promote() == (2, -1)
    after = rig.snapshot()
    assert {key: value for key, value in before.items() if key not in (rig.keys.due, rig.keys.later)} == after


async def test_retries_of_a_forgotten_run_do_not_come_to_a_new_one_of_its_id(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=1, retention_ms=0)
    delivery = await rig.take_one("m")
    await rig.settle("m", Settlement(delivery, retries=[Requeue(delivery.frame, 2)]))
    await rig.protocol.end("R", state="cancelled")
    await rig.start(bound, values=["new"])
    await rig.protocol.promote()
    assert [values_of(later.frame) for later in await rig.take("m")] == [["new"]]


async def test_at_most_a_hundred_come_at_once(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m", slots=100)
    await rig.start(bound, values=130)
    taken = await rig.take("m")
    await rig.settle("m", *(Settlement(d, retries=[Requeue(d.frame, 2)]) for d in taken))
    assert [await rig.protocol.promote() for _ in range(3)] == [(100, 0), (30, -1), (0, -1)]
    await rig.settle_all("m")
    assert sorted(rig.values(bound, "mid")) == list(range(130))


async def test_a_run_past_its_deadline_ends_its_streams_with_that(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=40, deadline_ms=60_000)
    assert 50_000 < (await rig.protocol.beat("m", lease_ms=60_000)).due_ms <= 60_000
    await rig.settle("m", rig.echo(await rig.take_one("m")))
    make_due(rig)
    assert await rig.protocol.promote() == (1, -1)
    assert (rig.run()["state"], rig.ended(bound, "mid"), rig.values(bound, "mid")) == ("timeout", "timeout", [0])
    assert rig.backlog(bound, "a") == 0
    assert rig.lasting() == []
    before = rig.snapshot()
    assert await rig.protocol.promote() == (0, -1)
    assert rig.snapshot() == before


async def test_a_deadline_goes_with_its_run(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    for run_id in ("done", "cancelled"):
        await rig.start(bound, run_id, values=1, deadline_ms=60_000)
    assert rig.client.zcard(rig.keys.due) == 2
    await rig.protocol.end("cancelled", state="cancelled")
    await rig.settle("m", *map(rig.echo, [d for d in await rig.take("m") if d.run_id == "done"]))
    assert rig.run("done")["state"] == "done"
    assert rig.client.exists(rig.keys.due, rig.keys.later) == 0


async def test_a_retry_and_the_deadline_of_its_run_may_be_due_together(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=1, deadline_ms=60_000)
    delivery = await rig.take_one("m")
    await rig.settle("m", Settlement(delivery, retries=[Requeue(delivery.frame, 2)]))
    make_due(rig)
    assert await rig.protocol.promote() == (2, -1)
    assert rig.run()["state"] == "timeout"
    (late,) = await rig.take("m")
    assert await rig.settle("m", rig.echo(late)) == ["GONE"]


async def test_time_spent_waiting_for_tasks_counts(rig: Rig) -> None:
    bound = await rig.bind(A)
    common = {"retention_ms": HOUR_MS, "request": b"r", "taps": "0 1", "level": ""}
    for run_id in ("R", "S"):
        await rig.protocol.wait(run_id, origin="o", staged=[], deadline_ms=60_000, **common)  # type: ignore[arg-type]
    before = rig.client.zrange(rig.keys.due, 0, -1, withscores=True)
    started = rig.submission(bound, "S", inputs={"in": frames([1])}, origin="o", deadline_ms=HOUR_MS)
    assert (await rig.protocol.submit(started))[0] == "OK"
    assert rig.client.zrange(rig.keys.due, 0, -1, withscores=True) == before
    make_due(rig)
    assert await rig.protocol.promote() == (2, -1)
    assert (rig.run("R")["state"], rig.run("S")["state"]) == ("timeout", "timeout")
    assert (rig.ended(bound, "mid", "R"), rig.ended(bound, "mid", "S")) == ("timeout", "timeout")
    assert rig.client.exists(rig.keys.waiting) == 0
    assert rig.lasting("R") == rig.lasting("S") == []


async def test_what_cannot_be_read_is_dropped(rig: Rig) -> None:
    rig.client.zadd(rig.keys.due, {"nothing is known of it": 1})
    assert await rig.protocol.promote() == (1, -1)
    assert rig.client.exists(rig.keys.due) == 0


async def test_runs_past_their_retention_are_forgotten(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, "short", retention_ms=0)
    await rig.start(bound, "long", retention_ms=HOUR_MS)
    await rig.start(bound, "open", values=1)
    assert await rig.protocol.sweep() == 1
    assert sorted(rig.client.zrange(rig.keys.runs, 0, -1)) == [b"long", b"open"]
    assert rig.client.zrange(rig.keys.ended, 0, -1) == [b"long"]
    assert await rig.protocol.sweep() == 0


async def test_a_run_that_took_the_id_of_a_forgotten_one_is_not_forgotten(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, retention_ms=0)
    await rig.start(bound, values=1)
    await rig.protocol.sweep()
    assert rig.client.zrange(rig.keys.runs, 0, -1) == [b"R"]
