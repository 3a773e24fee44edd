"""Order: values in the order of their origin, early where that is certain, never wrong."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamesh.errors import ConfigurationError
from datamesh.model.cursor import START, Position, StreamCursor, entry_before, entry_key, starting_at
from datamesh.model.order import Lineage, Order, follows


def give(order: Order[str], *lineages: Lineage) -> list[Lineage]:
    return [lineage for lineage, _ in order.add((lineage, str(lineage)) for lineage in lineages)]


def rest(order: Order[str]) -> list[Lineage]:
    return [lineage for lineage, _ in order.rest()]


@pytest.mark.parametrize(
    ("lineage", "last", "expected"),
    [
        ((0,), None, True),
        ((0, 0, 0), None, True),
        ((), None, True),
        ((0, 1), None, False),
        ((4,), (3,), True),
        ((5,), (3,), False),
        ((3,), (3,), False),
        ((1, 4), (1, 3), True),
        ((2, 0), (1, 3), False),
        ((2, 4), (1, 3), False),
        ((4, 0), (3,), False),
        ((4,), (3, 0), False),
        ((), (), False),
    ],
)
def test_follows_only_when_nothing_can_lie_between(lineage: Lineage, last: Lineage | None, expected: bool) -> None:
    assert follows(lineage, last) is expected


def test_a_flat_stream_in_order_passes_straight_through() -> None:
    order: Order[str] = Order()
    for index in range(5):
        assert order.add([((index,), "v")]) == [((index,), "v")]
        assert order.held == 0


def test_a_gap_holds_back_what_is_behind_it_until_it_is_filled() -> None:
    order: Order[str] = Order()
    assert give(order, (0,), (3,), (2,)) == [(0,)]
    assert order.held == 2
    assert give(order, (1,)) == [(1,), (2,), (3,)]
    assert order.held == 0


def test_a_gap_that_is_never_filled_ends_with_the_stream() -> None:
    order: Order[str] = Order()
    assert give(order, (4,), (1,), (2,)) == []
    assert rest(order) == [(1,), (2,), (4,)]
    assert rest(order) == []


def test_another_fan_out_waits_since_the_first_may_still_grow() -> None:
    order: Order[str] = Order()
    assert give(order, (0, 0), (1, 0), (0, 1)) == [(0, 0), (0, 1)]
    assert give(order, (0, 2)) == [(0, 2)]
    assert rest(order) == [(1, 0)]


def test_values_of_different_depth_are_sorted_as_paths() -> None:
    order: Order[str] = Order()
    assert give(order, (2,), (1, 1), (0,), (1, 0)) == [(0,)]
    assert rest(order) == [(1, 0), (1, 1), (2,)]


def test_a_repetition_is_left_out() -> None:
    order: Order[str] = Order()
    assert give(order, (0,), (0,), (3,), (3,), (1,), (0,)) == [(0,), (1,)]
    assert give(order, (2,), (1,)) == [(2,), (3,)]


def test_values_are_never_compared() -> None:
    order: Order[object] = Order()
    assert order.add([((2,), object()), ((2,), object()), ((1,), object())]) == []
    assert [lineage for lineage, _ in order.rest()] == [(1,), (2,)]


def test_resuming_leaves_out_what_was_given_and_goes_on_at_once() -> None:
    order: Order[str] = Order(after=(1,))
    assert give(order, (1,), (0,), (2,)) == [(2,)]


@st.composite
def arrivals(draw: st.DrawFn) -> list[list[Lineage]]:
    """Lineages as a flow makes them, some filtered out, arriving in any order, in frames."""
    width = st.integers(0, 4)
    lineages: list[Lineage] = [(index,) for index in range(draw(width))]
    for _ in range(draw(st.integers(0, 2))):
        lineages = [(*lineage, index) for lineage in lineages for index in range(draw(width))]
    kept = [lineage for lineage in lineages if draw(st.integers(0, 9))]
    shuffled = draw(st.permutations(kept))
    size = draw(st.integers(1, 5))
    return [list(shuffled[at : at + size]) for at in range(0, len(shuffled), size)]


@given(arrivals())
@settings(max_examples=150, deadline=None)
def test_any_arrival_is_given_out_sorted_and_complete(frames: list[list[Lineage]]) -> None:
    order: Order[str] = Order()
    given_out = [lineage for frame in frames for lineage in give(order, *frame)]
    assert given_out + rest(order) == sorted(lineage for frame in frames for lineage in frame)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_the_entry_before_is_the_largest_smaller_one(milliseconds: int, sequence: int) -> None:
    before = entry_key(entry_before(f"{milliseconds}-{sequence}"))
    if (milliseconds, sequence) == (0, 0):
        assert before == (0, 0)
    else:
        assert before[0] * 2**64 + before[1] == milliseconds * 2**64 + sequence - 1


@pytest.mark.parametrize(
    "position",
    [
        Position(),
        Position("1700000000000-0", 3),
        Position("5-1", 0, (3, 0)),
        Position("5-1", 0, ()),
        Position("5", 2, (12,)),
    ],
)
def test_a_position_survives_being_written(position: Position) -> None:
    assert Position.parse(str(position)) == position
    assert starting_at(str(position), ordered=True) == position


def test_positions_look_as_documented() -> None:
    assert START == "0:0"
    assert str(Position("1700000000000-0", 3)) == "1700000000000-0:3"
    assert str(Position("1700000000000-0", 3, (2, 7))) == "1700000000000-0:3@2.7"


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "latest",
        "0",
        "5-1",
        "5-1:",
        "a-1:0",
        "5-1:-1",
        "5-1:0@x",
        "1-1-1:0",
        "0:0\n",
        "\u0663:0",
        f"{2**64}:0",
        None,
    ],
)
def test_what_is_no_place_is_refused_with_what_is_accepted(cursor: str) -> None:
    with pytest.raises(ConfigurationError, match=r"StreamCursor\.FROM_FIRST.*ONLY_NEW.*io\.position"):
        starting_at(cursor, ordered=True)


def test_cursors_mean_the_same_as_text() -> None:
    assert starting_at("from_first", ordered=False) == Position()
    assert starting_at("only_new", ordered=False) is StreamCursor.ONLY_NEW
    assert starting_at(StreamCursor.FROM_LATEST, ordered=True) is StreamCursor.FROM_LATEST


def test_an_ordered_position_needs_an_ordered_iteration() -> None:
    with pytest.raises(ConfigurationError, match="ordered=True"):
        starting_at("5-1:0@3", ordered=False)
