"""What the mark of a delivery says, and whom deaths are held against."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datamesh.depends.binding import bind
from datamesh.errors import TamperedDataError
from datamesh.execute.local import LocalExecutor
from datamesh.model.policies import Retry
from datamesh.model.task import Task
from datamesh.store.frames import PLAIN, Delivery, Frame
from datamesh.supervise.marked import Emitted, Line, Marked
from datamesh.supervise.served import Served
from datamesh.supervise.suspicion import Suspicion


def delivery(count: int = 5, *, deaths: int = 0, mark: bytes = b"") -> Delivery:
    return Delivery("w", "1-0", "R", "p", 0, 1, Frame(count, PLAIN, b"", b""), mark, deaths=deaths)


def served(deaths: int) -> Served:
    async def double(n: int) -> int:
        return 2 * n

    binding = bind(Task("double", "n", "m"), double, retry=Retry(deaths=deaths))
    return Served.of(binding, executors={}, default=LocalExecutor(), max_value_bytes=1024)


def suspicion(found: Marked, *, most: int = 3) -> Suspicion:
    return Suspicion(found, served(most))


def test_a_mark_says_what_it_was_told() -> None:
    lines = {0: Emitted({"m": Line(7, "digest", 3)}, b"state")}
    written = Marked([0, 2, 3], lines, seen=2, carried=1, charged={2: 1})
    found = Marked.read(delivery(deaths=2, mark=written.pack()))
    assert (list(found.left), dict(found.emitted), found.carried, found.charged) == ([0, 2, 3], lines, 1, {2: 1})


def test_without_a_mark_every_death_is_held_against_nobody() -> None:
    found = Marked.read(delivery(deaths=2))
    assert (list(found.left), found.carried, found.charged) == ([0, 1, 2, 3, 4], 2, {})


def test_who_dies_while_a_value_runs_alone_has_died_of_that() -> None:
    mark = Marked([1, 2], seen=2, carried=2, begun=2).pack()
    found = Marked.read(delivery(deaths=3, mark=mark))
    assert (found.carried, found.charged) == (2, {2: 1})


def test_nobody_has_died_since_then_nobody_is_charged() -> None:
    mark = Marked([1, 2], seen=2, carried=2, begun=2).pack()
    assert Marked.read(delivery(deaths=2, mark=mark)).charged == {}


@pytest.mark.parametrize(("most", "before"), [(1, 1), (2, 1), (3, 2), (5, 2)])
def test_values_run_alone_after_the_second_death_or_before_the_cap(most: int, before: int) -> None:
    for deaths in range(4):
        found = suspicion(Marked.read(delivery(deaths=deaths)), most=most)
        assert found.runs_alone == (deaths >= before)


def test_a_value_is_lost_when_the_cap_is_reached_and_its_neighbours_are_not() -> None:
    found = suspicion(Marked.read(delivery(deaths=2)))
    assert not found.is_lost(3)
    found.charge(3)
    assert found.is_lost(3)
    assert found.lost(3).deaths == 3
    assert not any(found.is_lost(index) for index in (0, 1, 2, 4))


def test_suspicion_goes_with_values_that_are_given_back() -> None:
    found = suspicion(Marked.read(delivery(deaths=2)))
    found.charge(3)
    again = Marked.read(replace(delivery(2), mark=found.mark([3, 4])))
    assert (again.carried, again.charged) == (2, {0: 1})
    assert suspicion(Marked.read(delivery())).mark([0, 1]) == b""


def test_what_comes_forward_is_acquitted() -> None:
    found = suspicion(Marked.read(delivery(1, deaths=29)))
    assert not found.is_hopeless
    found.forget()
    kept = found.marked([0], {}, 29).pack()
    again = suspicion(Marked.read(delivery(1, deaths=30, mark=kept)))
    assert again.carried == 1
    assert suspicion(Marked.read(delivery(1, deaths=30))).is_hopeless


@pytest.mark.parametrize(
    "mark",
    [
        b"\xc1",
        b"\x93\x01\x02\x03",
        Marked([7]).pack(),
        Marked([0], {9: Emitted()}).pack(),
        Marked([], charged={8: 1}).pack(),
    ],
)
def test_a_mark_that_cannot_be_is_told(mark: bytes) -> None:
    with pytest.raises(TamperedDataError, match="mark of delivery R/0/1-0"):
        Marked.read(delivery(mark=mark))
