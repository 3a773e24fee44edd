"""Tasks of whole streams: when they are delivered, and when what they feed ends."""

from __future__ import annotations

import pytest

from datamesh.model.modes import Mode
from datamesh.model.task import Task
from datamesh.store.frames import Status
from tests.protocol.rig import Rig, on_both_servers

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")


async def test_a_stream_task_is_delivered_with_the_start_and_done_when_it_is_settled(rig: Rig) -> None:
    bound = await rig.bind(A, Task("s", "mid", "out"), s=Mode.STREAM)
    await rig.join("m")
    await rig.start(bound, values=1)
    taken = {rig.name_of(delivery): delivery for delivery in await rig.take("m")}
    assert set(taken) == {"a", "s"}
    assert taken["s"].frame.count == 0
    assert await rig.settle("m", rig.done(taken["s"], out=["early"])) == [Status.OK]
    assert (rig.ended(bound, "out"), rig.run()["state"]) == ("done", "open")
    await rig.settle("m", rig.done(taken["a"], mid=[1, 2]))
    assert rig.run()["state"] == "done"
    assert (rig.values(bound, "mid"), rig.ended(bound, "mid")) == ([1, 2], "done")


async def test_an_input_that_nobody_needs_any_more_ends_with_the_run(rig: Rig) -> None:
    bound = await rig.bind(Task("s", "in", "out"), s=Mode.STREAM)
    await rig.join("m")
    await rig.start(bound, values=1, complete=False)
    assert await rig.settle("m", rig.done(await rig.take_one("m"), out=["first only"])) == [Status.OK]
    assert rig.run()["state"] == "done"
    assert (rig.values(bound, "in"), rig.ended(bound, "in")) == ([0], "done")


async def test_a_wait_task_is_delivered_when_all_its_inputs_are_complete(rig: Rig) -> None:
    join = Task("j", ["mid", "side"], "out", wait=True)
    bound = await rig.bind(A, Task("c", "in", "side"), join)
    await rig.join("m")
    await rig.start(bound, values=1)
    one, other = await rig.take("m")
    await rig.settle("m", rig.echo(one))
    assert await rig.take("m") == []
    await rig.settle("m", rig.echo(other))
    waited = await rig.take_one("m")
    assert (rig.name_of(waited), waited.frame.count) == ("j", 0)
    assert await rig.settle("m", rig.done(waited, out=["all"])) == [Status.OK]
    assert (rig.values(bound, "out"), rig.ended(bound, "out"), rig.run()["state"]) == (["all"], "done", "done")


async def test_wait_tasks_follow_each_other(rig: Rig) -> None:
    bound = await rig.bind(Task("w", "in", "mid", wait=True), Task("x", "mid", "out", wait=True))
    await rig.join("m")
    await rig.start(bound, values=2)
    first = await rig.take_one("m")
    assert rig.name_of(first) == "w"
    await rig.settle("m", rig.done(first, mid=[5]))
    second = await rig.take_one("m")
    assert rig.name_of(second) == "x"
    await rig.settle("m", rig.done(second, out=[6]))
    assert rig.run()["state"] == "done"
