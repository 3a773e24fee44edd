"""plan, submit, stage, wait, blob: how a run comes to be, once and as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from datamesh.model.bound import BoundPlan
from datamesh.model.modes import Mode
from datamesh.model.task import Task
from datamesh.store.frames import WITH_BLOBS, Frame
from datamesh.store.keys import Level
from datamesh.store.plans import Plans, plan_fields
from tests.protocol.rig import HOUR_MS, Rig, frame, frames, on_both_servers, values_of

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")
B = Task("b", "mid", "out")
MONTH_MS = 30 * 24 * HOUR_MS

Staged = list[tuple[str, int, str, int, int]]


async def stage(rig: Rig, bound: BoundPlan, some: Sequence[Frame], *, token: str = "t", part: int = 3) -> Staged:
    """Bring frames for the first input in, for its readers and for the first node."""
    keys = {}
    for kind in ("s", "b"):
        for number, at in enumerate(range(0, len(some), part), 1):
            keys[kind] = await rig.protocol.stage("R", token, kind, 0, number, some[at : at + part])
    return [(kind, 0, keys[kind], sum(f.count for f in some), len(some)) for kind in ("s", "b")]


# ---------------------------------------------------------------------------------------------------- submit


async def test_a_run_is_recorded_with_its_inputs(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    assert await rig.start(bound, values=3) == "open"
    run = rig.run()
    assert (run["state"], run["plan"], run["left"], run["o:0"], run["o:1"]) == ("open", bound.digest, "2", "3", "1")
    assert (rig.values(bound, "in"), rig.ended(bound, "in")) == ([0, 1, 2], "done")
    assert rig.queued(bound, "a") == 3
    assert rig.client.zrange(rig.keys.runs, 0, -1) == [b"R"]
    assert rig.client.zscore(rig.keys.runs, "R") == float(run["started"])


async def test_without_its_plan_nothing_is_recorded(rig: Rig) -> None:
    bound = await rig.bind(A)
    rig.client.delete(rig.keys.plan(bound.digest))
    before = rig.snapshot()
    assert await rig.protocol.submit(rig.submission(bound, inputs={"in": frames([1])})) == ("NOPLAN", "", "")
    assert rig.snapshot() == before
    await Plans(rig.protocol).write(bound)
    assert await rig.start(bound, values=1) == "open"


async def test_the_same_start_again_is_ok_and_changes_nothing(rig: Rig) -> None:
    bound = await rig.bind(A)
    submission = rig.submission(bound, inputs={"in": frames([1])})
    assert (await rig.protocol.submit(submission))[0] == "OK"
    before = rig.snapshot()
    assert await rig.protocol.submit(submission) == ("OK", "open", bound.digest)
    assert rig.snapshot() == before


async def test_another_start_of_the_same_id_finds_the_run(rig: Rig) -> None:
    bound, other = await rig.bind(A), await rig.bind(A, B)
    await rig.start(bound, values=1)
    before = rig.snapshot()
    submission = rig.submission(other, inputs={"in": frames([2])})
    assert await rig.protocol.submit(submission) == ("EXISTS", "open", bound.digest)
    assert rig.snapshot() == before
    await rig.protocol.end("R", state="cancelled")
    assert await rig.protocol.submit(submission) == ("EXISTS", "cancelled", bound.digest)


async def test_a_run_without_values_is_done_at_once_and_its_streams_end(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    assert await rig.start(bound) == "done"
    assert {rig.ended(bound, name) for name in ("in", "mid", "out")} == {"done"}
    assert rig.lasting() == []
    assert 0 < rig.client.pttl(rig.keys.run("R")) <= HOUR_MS


async def test_a_run_that_is_over_is_kept_for_its_retention(rig: Rig) -> None:
    bound = await rig.bind(A)
    assert await rig.start(bound, retention_ms=0) == "done"
    assert not [key for key in rig.client.scan_iter() if b"run:R" in key]
    assert await rig.start(bound, retention_ms=60_000) == "done"
    assert all(0 < rig.client.pttl(key) <= 60_000 for key in rig.client.scan_iter() if b"run:R" in key)


async def test_stream_tasks_are_delivered_with_the_start_and_wait_tasks_with_complete_inputs(rig: Rig) -> None:
    tasks = [Task("s", "in", "x"), Task("w", "in", "y", wait=True), Task("source", (), "z")]
    bound = await rig.bind(*tasks, s=Mode.STREAM, source=Mode.STREAM)
    await rig.join("m")
    await rig.start(bound, "open", values=1, complete=False)
    assert {rig.name_of(delivery) for delivery in await rig.take("m")} == {"s", "source"}
    await rig.start(bound, "complete", values=1)
    assert {rig.name_of(delivery) for delivery in await rig.take("m")} == {"s", "w", "source"}


async def test_streams_that_nobody_reads_are_not_kept(rig: Rig) -> None:
    bound = await rig.bind(A, B, tapped=["out"])
    await rig.join("m")
    await rig.start(bound, values=2)
    await rig.settle_all("m")
    assert [rig.client.exists(rig.keys.stream("R", index)) for index in range(3)] == [0, 0, 1]
    assert rig.values(bound, "out") == [0, 1]


async def test_a_level_has_work_streams_of_its_own_from_the_start_to_the_end(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=1, level=Level.LOW)
    assert (rig.queued(bound, "a"), rig.queued(bound, "a", ":low")) == (0, 1)
    delivery = await rig.take_one("m")
    await rig.settle("m", rig.echo(delivery))
    assert (rig.queued(bound, "b"), rig.queued(bound, "b", ":low")) == (0, 1)
    await rig.settle_all("m")
    assert rig.run()["state"] == "done"


async def test_a_plan_is_kept_for_a_month_after_its_last_start(rig: Rig) -> None:
    bound = await rig.bind(A)
    rig.client.pexpire(rig.keys.plan(bound.digest), 1000)
    await rig.start(bound, values=1)
    assert rig.client.pttl(rig.keys.plan(bound.digest)) == pytest.approx(MONTH_MS, abs=5000)
    assert rig.client.hget(rig.keys.plan(bound.digest), "plan") == bound.wire
    before = rig.snapshot(times=False)
    await rig.protocol.write_plan(bound.digest, plan_fields(bound, rig.keys))
    assert rig.snapshot(times=False) == before


# ----------------------------------------------------------------------------------------------------- stage


async def test_large_inputs_are_brought_in_before_the_start(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    some = frames(range(100), size=2)
    staged = await stage(rig, bound, some)
    assert all(0 < rig.client.pttl(key) <= 60_000 for _, _, key, _, _ in staged)
    status, *_ = await rig.protocol.submit(rig.submission(bound, staged=staged))
    assert status == "OK"
    assert (rig.values(bound, "in"), rig.ended(bound, "in")) == (list(range(100)), "done")
    assert (rig.run()["o:0"], rig.run()["v:0"]) == ("100", "100")
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a")) == (16, 34)
    await rig.settle_all("m")
    assert (rig.run()["state"], rig.values(bound, "mid")) == ("done", list(range(100)))


async def test_a_part_that_comes_again_is_not_added_twice(rig: Rig) -> None:
    some = frames(range(4))
    await rig.protocol.stage("R", "t", "b", 0, 1, some[:2])
    await rig.protocol.stage("R", "t", "b", 0, 2, some[2:])
    before = rig.snapshot()
    key = await rig.protocol.stage("R", "t", "b", 0, 1, some[:2])
    await rig.protocol.stage("R", "t", "b", 0, 2, some[2:])
    assert rig.snapshot() == before
    assert rig.client.llen(key) == 4


async def test_a_part_that_follows_lost_ones_is_not_added(rig: Rig) -> None:
    bound = await rig.bind(A)
    some = frames(range(9))
    key = await rig.protocol.stage("R", "t", "b", 0, 1, some[:3])
    await rig.protocol.stage("R", "t", "b", 0, 2, some[3:6])
    rig.client.delete(key, f"{key}:n")
    before = rig.snapshot()
    await rig.protocol.stage("R", "t", "b", 0, 3, some[6:])
    assert rig.snapshot() == before
    submission = rig.submission(bound, staged=[("b", 0, key, 9, 9)])
    assert (await rig.protocol.submit(submission))[0] == "GONE"
    assert rig.snapshot() == before


@pytest.mark.parametrize("lost", [0, 1])
async def test_what_was_brought_in_and_lost_refuses_the_start(rig: Rig, lost: int) -> None:
    bound = await rig.bind(A)
    staged = await stage(rig, bound, frames(range(5)))
    rig.client.delete(staged[lost][2])
    before = rig.snapshot()
    assert (await rig.protocol.submit(rig.submission(bound, staged=staged)))[0] == "GONE"
    assert rig.snapshot() == before


async def test_of_two_who_start_one_run_one_does_and_the_other_leaves_nothing(rig: Rig) -> None:
    bound = await rig.bind(A)
    mine = await stage(rig, bound, frames(["mine"] * 5), token="mine")
    yours = await stage(rig, bound, frames(["yours"] * 5), token="yours")
    assert (await rig.protocol.submit(rig.submission(bound, staged=mine)))[0] == "OK"
    status, state, digest = await rig.protocol.submit(rig.submission(bound, staged=yours))
    assert (status, state, digest) == ("EXISTS", "open", bound.digest)
    assert rig.values(bound, "in") == ["mine"] * 5
    assert all(rig.client.pttl(key) > 0 for _, _, key, _, _ in yours)


# ------------------------------------------------------------------------------------------------------ blob


def with_blob(value: Frame) -> Frame:
    return value._replace(flags=WITH_BLOBS)


async def test_large_values_stay_as_long_as_their_run(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    blobs = rig.keys.blobs("R")
    assert await rig.protocol.put_blobs("R", {"d1": b"body"})
    assert 0 < rig.client.pttl(blobs) <= 60_000
    await rig.protocol.submit(rig.submission(bound, inputs={"in": [with_blob(frame([1]))]}))
    assert rig.client.pttl(blobs) == -1
    assert await rig.protocol.put_blobs("R", {"d2": b"other"})
    assert rig.client.hgetall(blobs) == {b"d1": b"body", b"d2": b"other"}
    await rig.settle_all("m")
    assert 0 < rig.client.pttl(blobs) <= HOUR_MS
    before = rig.snapshot()
    assert not await rig.protocol.put_blobs("R", {"d3": b"late"})
    assert rig.snapshot() == before


async def test_values_that_come_while_the_run_goes_on_go_with_it(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=1)
    assert await rig.protocol.put_blobs("R", {"d": b"body"})
    assert rig.client.pttl(rig.keys.blobs("R")) == -1
    await rig.settle_all("m")
    assert rig.lasting() == []


async def test_large_values_that_were_lost_refuse_the_start(rig: Rig) -> None:
    bound = await rig.bind(A)
    before = rig.snapshot()
    submission = rig.submission(bound, inputs={"in": [with_blob(frame([1]))]})
    assert (await rig.protocol.submit(submission))[0] == "GONE"
    assert rig.snapshot() == before


# ------------------------------------------------------------------------------------------------------ wait


async def wait(rig: Rig, *values: int, origin: str = "o", deadline_ms: int = 0) -> tuple[str, str]:
    staged = [await rig.protocol.stage("R", f"w{origin}", "b", 0, 1, frames(values))] if values else []
    return await rig.protocol.wait(
        "R", origin=origin, retention_ms=HOUR_MS, request=b"request", taps="0 2", level="", staged=staged,
        deadline_ms=deadline_ms,
    )  # fmt: skip


async def test_a_run_may_wait_for_its_tasks_with_its_inputs(rig: Rig) -> None:
    assert await rig.protocol.put_blobs("R", {"d": b"body"})
    assert await wait(rig, 1, 2) == ("OK", "waiting")
    assert rig.client.hgetall(rig.keys.waiting) == {b"R": b"request"}
    assert rig.client.llen(f"{rig.keys.run('R')}:w:0") == 2
    kept = [key for key in rig.client.scan_iter() if b"run:R" in key and not key.endswith(b":n")]
    assert {rig.client.pttl(key) for key in kept} == {-1}
    before = rig.snapshot()
    assert await rig.protocol.wait(
        "R", origin="o", retention_ms=HOUR_MS, request=b"request", taps="0 2", level="", staged=["gone"]
    ) == ("OK", "waiting")
    assert rig.snapshot() == before
    assert (await wait(rig, 3, origin="other"))[0] == "EXISTS"


async def test_inputs_that_were_lost_refuse_to_wait(rig: Rig) -> None:
    key = await rig.protocol.stage("R", "t", "b", 0, 1, frames([1]))
    rig.client.delete(key)
    before = rig.snapshot()
    assert await rig.protocol.wait(
        "R", origin="o", retention_ms=HOUR_MS, request=b"request", taps="", level="", staged=[key]
    ) == ("GONE", "")
    assert rig.snapshot() == before


async def test_a_waiting_run_takes_no_values(rig: Rig) -> None:
    await wait(rig, 1)
    before = rig.snapshot()
    assert (await rig.protocol.push("R", 0, writer="w", number=1, frames=frames([1]))).status == "WAITING"
    assert rig.snapshot() == before


async def test_submit_takes_over_from_waiting_once_and_leaves_nothing_of_it(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.protocol.put_blobs("R", {"d": b"body"})
    await wait(rig, 1, 2)
    starts = [rig.submission(bound, inputs={"in": frames([1, 2])}, origin="o") for _ in range(2)]
    assert await rig.protocol.submit(starts[0]) == ("OK", "open", bound.digest)
    before = rig.snapshot()
    assert await rig.protocol.submit(starts[1]) == ("OK", "open", bound.digest)
    assert rig.snapshot() == before
    assert not rig.client.exists(rig.keys.waiting, f"{rig.keys.run('R')}:w:0")
    assert await wait(rig, 1, 2) == ("OK", "open")
    await rig.settle_all("m")
    assert rig.values(bound, "out") == [1, 2]
    assert rig.lasting() == []


async def test_what_waits_may_be_moved_where_it_is_worked_on(rig: Rig) -> None:
    bound = await rig.bind(A, tapped=["mid"])
    await rig.join("m")
    await wait(rig, *range(20))
    staged = [("b", 0, f"{rig.keys.run('R')}:w:0", 20, 20)]
    assert (await rig.protocol.submit(rig.submission(bound, staged=staged, origin="o")))[0] == "OK"
    await rig.settle_all("m")
    assert rig.values(bound, "mid") == list(range(20))
    assert rig.lasting() == []


async def test_a_waiting_run_may_be_cancelled_and_its_readers_hear_so(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.protocol.put_blobs("R", {"d": b"body"})
    await wait(rig, 1, 2)
    assert await rig.protocol.end("R", state="cancelled") == "cancelled"
    assert (rig.ended(bound, "in"), rig.ended(bound, "mid"), rig.ended(bound, "out")) == ("cancelled", "", "cancelled")
    assert not rig.client.exists(rig.keys.waiting, f"{rig.keys.run('R')}:w:0")
    assert rig.lasting() == []
    before = rig.snapshot()
    assert await rig.protocol.end("R", state="cancelled") == "cancelled"
    submission = rig.submission(bound, inputs={"in": frames([1, 2])}, origin="o")
    assert (await rig.protocol.submit(submission))[1] == "cancelled"
    assert rig.snapshot() == before


async def test_a_run_that_never_was_cannot_be_ended(rig: Rig) -> None:
    await rig.bind(A)
    before = rig.snapshot()
    assert await rig.protocol.end("R", state="cancelled") == ""
    assert rig.snapshot() == before


# ------------------------------------------------------------------------------------------------------- end


async def test_a_cancelled_run_ends_its_open_streams_and_drops_what_waits(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=40)
    delivery = await rig.take_one("m")
    await rig.settle("m", rig.echo(delivery))
    assert await rig.protocol.end("R", state="cancelled", failure=b"") == "cancelled"
    assert [rig.ended(bound, name) for name in ("in", "mid", "out")] == ["done", "cancelled", "cancelled"]
    assert rig.values(bound, "mid") == [0]
    assert rig.backlog(bound, "a") == 0
    assert rig.lasting() == []
    assert [fields for _, fields in rig.client.xrange(rig.keys.news)] == [{b"kind": b"ended", b"run": b"R"}]
    before = rig.snapshot()
    assert await rig.protocol.end("R", state="failed", failure=b"x") == "cancelled"
    assert rig.snapshot() == before
    taken = await rig.take("m")
    assert {values_of(d.frame)[0] for d in taken} == {0, *range(1, 17)}
    assert set(await rig.settle("m", *map(rig.echo, taken))) == {"GONE"}
    assert rig.queued(bound, "a") == rig.queued(bound, "b") == 0


async def test_the_reason_of_a_failure_stands_at_the_end_of_each_stream(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, values=1)
    await rig.protocol.end("R", state="failed", failure=b"because")
    assert rig.run()["failure"] == "because"
    assert [(entry.end, entry.failure) for entry in rig.stream(bound, "mid")] == [("failed", b"because")]
