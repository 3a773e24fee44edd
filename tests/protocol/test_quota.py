"""Quotas: a run that has more than it may fails, in the call that says so."""

from __future__ import annotations

import pytest

from datamesh.model.policies import Quota
from datamesh.model.task import Task
from datamesh.store.frames import Settlement, Status
from tests.protocol.rig import Rig, frame, frames, on_both_servers

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")
B = Task("b", "mid", "out")


async def start(rig: Rig, quota: Quota, *tasks: Task, values: int = 1) -> None:
    bound = await rig.bind(*tasks)
    await rig.join("m")
    submission = rig.submission(bound, inputs={"in": frames(range(values))})._replace(quota=quota.text)
    assert (await rig.protocol.submit(submission))[0] == "OK"


async def test_bytes_are_counted_and_limited(rig: Rig) -> None:
    await start(rig, Quota(bytes=300), A, B)
    used = int(rig.run()["bytes"])
    assert 0 < used < 100
    delivery = await rig.take_one("m")
    assert await rig.settle("m", Settlement(delivery, done=1, outputs=[(1, frame(["x" * 300]))])) == [Status.OK]
    assert rig.run()["state"] == "failed"
    assert rig.run()["failure"].startswith("quota bytes 300 ")
    assert rig.lasting() == []


async def test_values_of_one_invocation_are_limited(rig: Rig) -> None:
    await start(rig, Quota(fan_out=3), A, B)
    delivery = await rig.take_one("m")
    part = Settlement(delivery, step=1, fan_out=3, outputs=[(1, frame([1, 2, 3]))])
    assert await rig.settle("m", part) == [Status.OK]
    assert rig.run()["state"] == "open"
    await rig.settle("m", Settlement(delivery, done=1, fan_out=4, outputs=[(1, frame([4]))]))
    assert rig.run()["failure"] == "quota fan_out 3 4"


async def test_open_values_of_a_task_are_limited(rig: Rig) -> None:
    await start(rig, Quota(open_values=4), A, B)
    delivery = await rig.take_one("m")
    await rig.settle("m", Settlement(delivery, step=1, outputs=[(1, frame(range(5)))]))
    assert rig.run()["failure"].startswith("quota open_values 4 ")


async def test_what_is_within_the_quota_runs_to_its_end(rig: Rig) -> None:
    await start(rig, Quota(bytes=10_000, open_values=50, fan_out=50), A, B, values=9)
    await rig.settle_all("m")
    assert rig.run()["state"] == "done"
