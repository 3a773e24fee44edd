"""The window: how many frames of a run may be in a work stream, and how the others follow."""

from __future__ import annotations

import pytest

from datamesh.model.task import Task
from datamesh.store.frames import Requeue, Settlement, Status
from tests.protocol.rig import Rig, frame, frames, on_both_servers, values_of

pytestmark = [pytest.mark.anyio, on_both_servers]

WINDOW = 16
A = Task("a", "in", "mid")
B = Task("b", "mid", "out")


async def test_more_than_a_window_waits_in_the_backlog(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, values=50)
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a")) == (WINDOW, 34)
    assert rig.run()["q:0"] == "16"


async def test_the_backlog_moves_up_in_order_as_the_run_settles(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=50)
    seen = []
    while taken := await rig.take("m", 3):
        seen += [values_of(delivery.frame)[0] for delivery in taken]
        await rig.settle("m", *map(rig.echo, taken))
        left = 50 - len(seen)
        assert rig.queued(bound, "a") == min(WINDOW, left)
        assert rig.backlog(bound, "a") == max(0, left - WINDOW)
    assert seen == list(range(50))
    assert rig.run()["state"] == "done"


async def test_what_a_task_gives_waits_too(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=1)
    delivery = await rig.take_one("m")
    outputs = [(1, some) for some in frames(range(40))]
    await rig.settle("m", Settlement(delivery, done=1, outputs=outputs))
    assert (rig.queued(bound, "b"), rig.backlog(bound, "b")) == (WINDOW, 24)
    await rig.settle_all("m")
    assert rig.values(bound, "out") == list(range(40))


async def test_later_values_never_overtake_the_backlog(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=20, complete=False)
    first, *_ = await rig.take("m", 3)
    await rig.protocol.push("R", 0, writer="w", number=1, frames=[frame([20])])
    await rig.settle("m", rig.echo(first))
    await rig.protocol.push("R", 0, writer="w", number=2, frames=[frame([21])], close=True)
    seen = []
    while taken := await rig.take("m"):
        seen += [values_of(delivery.frame)[0] for delivery in taken]
        await rig.settle("m", *map(rig.echo, taken))
    assert seen == list(range(3, 22))


async def test_what_comes_in_the_call_that_frees_room_goes_behind_the_backlog_too(rig: Rig) -> None:
    bound = await rig.bind(A, B)
    await rig.join("m")
    await rig.start(bound, values=2)
    first, second = await rig.take("m")
    await rig.settle("m", Settlement(first, done=1, outputs=[(1, some) for some in frames(range(20))]))
    delivery = await rig.take_one("m")
    await rig.settle("m", rig.echo(delivery), rig.done(second, mid=[20]))
    await rig.settle_all("m")
    assert rig.values(bound, "out") == list(range(21))


async def test_runs_have_windows_of_their_own(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, "huge", values=300)
    await rig.start(bound, "small", values=1)
    taken = await rig.take("m", WINDOW + 1)
    assert [delivery.run_id for delivery in taken] == ["huge"] * WINDOW + ["small"]


async def test_slots_of_services_widen_the_window(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m", slots=20)
    await rig.start(bound, values=60)
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a")) == (40, 20)
    rig.client.hset(rig.keys.windows, rig.keys.work("a@1"), 16)
    taken = await rig.take("m")
    await rig.settle("m", *map(rig.echo, taken[:10]))
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a")) == (30, 20)
    await rig.settle("m", *map(rig.echo, taken[10:]))
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a")) == (16, 4)
    await rig.settle_all("m")
    assert rig.run()["state"] == "done"


async def test_values_given_back_stay_in_the_window_and_go_first(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, complete=False)
    big = frames(range(10, 20), size=10)
    await rig.protocol.push("R", 0, writer="w", number=1, frames=[*big, *frames(range(100, 120))], close=True)
    delivery = await rig.take_one("m")
    assert rig.queued(bound, "a") == WINDOW
    back = [Requeue(frame([10 + n], start=n), 1, b"mark" if n == 5 else b"") for n in range(1, 10)]
    await rig.settle("m", Settlement(delivery, done=1, outputs=[(1, frame([10]))], returned=back))
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a")) == (WINDOW, 20 - 15 + 8)
    seen, marks = [], []
    while taken := await rig.take("m"):
        seen += [values_of(delivery.frame)[0] for delivery in taken]
        marks += [delivery.mark for delivery in taken]
        await rig.settle("m", *map(rig.echo, taken))
        assert rig.queued(bound, "a") <= WINDOW
    assert seen == [*range(100, 115), *range(11, 20), *range(115, 120)]
    assert marks.index(b"mark") == seen.index(15)
    assert rig.run()["state"] == "done"


async def test_what_an_advance_gives_back_stays_in_the_window(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, complete=False)
    some = [*frames(range(32), size=32), *frames(range(100, 115))]
    await rig.protocol.push("R", 0, writer="w", number=1, frames=some, close=True)
    delivery = await rig.take_one("m")
    back = [Requeue(frame([n], start=n), 1) for n in range(1, 32)]
    assert await rig.settle("m", Settlement(delivery, step=1, mark=b"0", returned=back)) == [Status.OK]
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a")) == (WINDOW, 31)
    await rig.settle("m", Settlement(delivery, done=1))
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a")) == (WINDOW, 30)
    assert await rig.settle_all("m") == 15 + 31
    assert rig.run()["state"] == "done"


async def test_retries_stay_in_the_window_and_go_first(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=30)
    taken = await rig.take("m")
    again = [Settlement(delivery, retries=[Requeue(delivery.frame, 2)]) for delivery in taken]
    await rig.settle("m", *again)
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a"), rig.run()["r:0"]) == (14, 0, "16")
    assert (await rig.protocol.promote())[0] == 16
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a"), rig.run()["r:0"]) == (WINDOW, 14, "0")
    await rig.settle_all("m")
    assert sorted(rig.values(bound, "mid")) == list(range(30))
    assert rig.run()["state"] == "done"


async def test_a_huge_start_moves_up_a_bounded_number_at_once(rig: Rig) -> None:
    bound = await rig.bind(A, tapped=["mid"])
    await rig.join("m", slots=500)
    for number, at in enumerate(range(0, 800, 200), 1):
        key = await rig.protocol.stage("R", "t", "b", 0, number, frames(range(800))[at : at + 200])
    await rig.protocol.submit(rig.submission(bound, staged=[("b", 0, key, 800, 800)]))
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a")) == (500, 300)
    await rig.settle("m", rig.echo(await rig.take_one("m")))
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a")) == (799, 0)


async def test_a_full_frame_takes_as_much_of_the_window_as_its_values(rig: Rig) -> None:
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, complete=False)
    await rig.protocol.push("R", 0, writer="w", number=1, frames=frames(range(2560), size=256), close=True)
    # One for every 32 values: 256 are 8, and the window is 16.
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a"), rig.run()["q:0"]) == (2, 8, "16")
    await rig.settle("m", Settlement(await rig.take_one("m"), done=256))
    assert (rig.queued(bound, "a"), rig.backlog(bound, "a"), rig.run()["q:0"]) == (2, 7, "16")
    assert await rig.settle_all("m") == 9
    assert (rig.run()["q:0"], rig.run()["state"]) == ("0", "done")
