"""take: entries of many streams under one budget."""

from __future__ import annotations

import pytest

from datamesh.model.task import Task
from datamesh.store.keys import Level
from datamesh.store.link import ReplyError
from tests.protocol.rig import Rig, on_both_servers, values_of

pytestmark = [pytest.mark.anyio, on_both_servers]

TASKS = [Task(name, "in", f"out-{name}") for name in "abc"]


async def test_the_budget_is_for_all_streams_together(rig: Rig) -> None:
    bound = await rig.bind(*TASKS)
    await rig.join("m")
    await rig.start(bound, values=4)
    counts = []
    while taken := await rig.take("m", 5):
        counts.append(len(taken))
    assert counts == [5, 5, 2]
    assert await rig.take("m", 0) == []


async def test_streams_come_in_the_order_given_and_each_has_its_own_limit(rig: Rig) -> None:
    bound = await rig.bind(*TASKS)
    await rig.join("m")
    await rig.start(bound, values=4)
    works = [rig.keys.work(f"{name}@1") for name in "cab"]
    taken = await rig.protocol.take("m", most=6, works=works, each=[3, 0, 2])
    assert [delivery.work for delivery in taken or ()] == [works[0]] * 3 + [works[2]] * 2


async def test_an_entry_goes_to_one_member(rig: Rig) -> None:
    bound = await rig.bind(TASKS[0])
    await rig.join("m")
    await rig.join("n")
    await rig.start(bound, values=6)
    taken = [*await rig.take("m", 2), *await rig.take("n", 3), *await rig.take("m", 9), *await rig.take("n", 9)]
    assert [values_of(delivery.frame) for delivery in taken] == [[n] for n in range(6)]


async def test_levels_are_streams_of_their_own(rig: Rig) -> None:
    bound = await rig.bind(TASKS[0])
    await rig.join("m")
    for level in Level:
        await rig.start(bound, f"R-{level.name}", values=1, level=level)
    for level in Level:
        (delivery,) = await rig.take("m", works=[rig.keys.work("a@1", level)])
        assert delivery.run_id == f"R-{level.name}"
        await rig.settle("m", rig.echo(delivery))
    assert {rig.run(f"R-{level.name}")["state"] for level in Level} == {"done"}


async def test_a_stream_that_is_gone_does_not_hide_what_another_gave(rig: Rig) -> None:
    bound = await rig.bind(*TASKS[:2])
    await rig.join("m")
    await rig.start(bound, values=2)
    works = [rig.keys.work(f"{name}@1") for name in "ab"]
    rig.client.delete(works[1])
    assert len(await rig.take("m", works=works)) == 2
    with pytest.raises(ReplyError) as caught:
        await rig.take("m", works=works)
    assert caught.value.code == "NOGROUP"
    await rig.join("m2", former="m")
    assert await rig.take("m2", works=works) == []
