"""IO over a stream in memory: what every reader sees, whatever store lies below."""

from __future__ import annotations

import asyncio
import gc
import typing
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from datamesh.errors import (
    ConfigurationError,
    DatameshError,
    EmptyIOError,
    FlowCancelledError,
    ReadOnlyIOError,
    StoreUnavailableError,
    UnequalLengthError,
)
from datamesh.model.cursor import START, StreamCursor, entry_key
from datamesh.model.io import IO
from datamesh.model.order import Lineage
from datamesh.model.reader import Chunk

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(10), pytest.mark.filterwarnings("error")]

FAILED = FlowCancelledError(run_id="r")
UNAVAILABLE = StoreUnavailableError(where="redis", problem="gone", fix="start it")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class MemoryStream:
    """One stream of one run, both Reader and Writer."""

    def __init__(self, most: int = 100) -> None:
        self.chunks: list[Chunk] = []
        self.ended = False
        self.error: DatameshError | None = None
        self.outage: DatameshError | None = None
        self.reads = 0
        self.waiting = 0
        self._most = most
        self._values = 0
        self._changed = asyncio.Event()

    def publish(self, *values: Any, lineages: Sequence[Lineage] | None = None) -> MemoryStream:
        paths = lineages or [(self._values + index,) for index in range(len(values))]
        self._values += len(values)
        number = len(self.chunks)
        self.chunks.append(Chunk(f"{1700 + number // 2}-{number % 2}", list(values), lambda: paths))
        self._wake()
        return self

    def end(self, error: DatameshError | None = None) -> MemoryStream:
        self.ended, self.error = True, error
        self._wake()
        return self

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def read(self, after: str) -> Sequence[Chunk]:
        self.reads += 1
        while True:
            await asyncio.sleep(0)
            if self.outage is not None:
                raise self.outage
            if found := [chunk for chunk in self.chunks if entry_key(chunk.position) > entry_key(after)]:
                return found[: self._most]
            if self.ended and self.error is not None:
                raise self.error
            if self.ended:
                return []
            self.waiting += 1
            try:
                await self._changed.wait()
            finally:
                self.waiting -= 1

    async def last(self) -> Chunk | None:
        await asyncio.sleep(0)
        return self.chunks[-1] if self.chunks else None

    async def is_complete(self) -> bool:
        return self.ended

    async def write(self, values: Sequence[Any]) -> None:
        self.publish(*values)

    async def complete(self) -> None:
        self.end()


def stream_of(*frames: Sequence[Any], most: int = 100) -> MemoryStream:
    memory = MemoryStream(most)
    for frame in frames:
        memory.publish(*frame)
    return memory


def io_of(*frames: Sequence[Any], name: str = "bar") -> IO[Any]:
    return IO(name, stream_of(*frames).end())


async def taken(iterator: AsyncIterator[Any], count: int = 10**6) -> list[Any]:
    values: list[Any] = []
    while len(values) < count:
        try:
            values.append(await anext(iterator))
        except StopAsyncIteration:
            break
    return values


async def until_error(iterator: AsyncIterator[Any]) -> tuple[list[Any], DatameshError]:
    values: list[Any] = []
    try:
        async for value in iterator:
            values.append(value)
    except DatameshError as error:
        return values, error
    raise AssertionError(f"no error came after {values}")


async def until_waiting(*streams: MemoryStream) -> None:
    while not all(stream.waiting for stream in streams):
        await asyncio.sleep(0)


@contextmanager
def no_task_left() -> Iterator[None]:
    before = asyncio.all_tasks()
    yield
    assert asyncio.all_tasks() <= before


# ------------------------------------------------------------------------------------------------ iteration


async def test_iterating_gives_all_values_and_ends_by_itself() -> None:
    assert [value async for value in io_of([0, 1], [2], [3, 4])] == [0, 1, 2, 3, 4]


async def test_reading_takes_nothing_away() -> None:
    io = io_of([0, 1], [2])
    assert await taken(io.stream()) == await taken(io.stream()) == await io.collect() == [0, 1, 2]


async def test_interleaved_iterations_do_not_disturb_each_other() -> None:
    io = io_of([0, 1], [2])
    assert [(left, right) async for left in io async for right in io if left == right] == [(0, 0), (1, 1), (2, 2)]


async def test_values_published_later_arrive() -> None:
    memory = stream_of([0])
    iterator = IO[Any]("bar", memory).stream()
    assert await anext(iterator) == 0
    async with anyio.create_task_group() as group:

        async def publish() -> None:
            await until_waiting(memory)
            memory.publish(1, None).end()

        group.start_soon(publish)
        assert await taken(iterator) == [1, None]


async def test_an_ended_iteration_stays_ended() -> None:
    iterator = io_of([0]).stream()
    assert await taken(iterator) == [0]
    assert await taken(iterator) == []


@pytest.mark.parametrize("ordered", [False, True])
async def test_the_error_of_a_run_comes_after_its_values_and_again(ordered: bool) -> None:
    io = IO[int]("bar", stream_of([0, 1], [2]).end(FAILED))
    iterator = io.stream(ordered=ordered)
    assert await until_error(iterator) == ([0, 1, 2], FAILED)
    assert await until_error(iterator) == ([], FAILED)


@pytest.mark.parametrize("ordered", [False, True])
async def test_an_iteration_goes_on_after_an_outage(ordered: bool) -> None:
    memory = stream_of([0, 1], [2], most=1)
    iterator = IO[Any]("bar", memory).stream(ordered=ordered)
    assert await taken(iterator, 2) == [0, 1]
    memory.outage = UNAVAILABLE
    assert await until_error(iterator) == ([], UNAVAILABLE)
    memory.outage = None
    memory.end()
    assert await taken(iterator) == [2]


async def test_cancelling_a_reader_loses_nothing() -> None:
    memory = stream_of([0])
    io = IO[int]("bar", memory)
    iterator, other = io.stream(), io.stream()
    assert await anext(iterator) == 0
    with anyio.move_on_after(0.01):
        await anext(iterator)
    assert memory.waiting == 0
    memory.publish(1, 2).end()
    assert await taken(iterator) == [1, 2]
    assert await taken(other) == [0, 1, 2]


async def test_tasks_may_share_an_iteration_each_value_once() -> None:
    iterator = IO[Any]("bar", stream_of(*[[index, -index] for index in range(1, 20)], most=1).end()).stream()
    shares: list[list[int]] = []

    async def consume() -> None:
        shares.append([])
        mine = shares[-1]
        async for value in iterator:
            mine.append(value)
            await asyncio.sleep(0)

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(consume)
    assert sorted(value for share in shares for value in share) == sorted([*range(-19, 0), *range(1, 20)])
    assert all(shares)


async def test_breaking_off_and_closing_leave_nothing_behind() -> None:
    io = io_of([0, 1, 2])
    with no_task_left():
        async for _ in io:
            break
        iterator = io.stream()
        assert await anext(iterator) == 0
        await iterator.aclose()
        await iterator.aclose()
        assert await taken(iterator) == []


# ------------------------------------------------------------------------------------------ cursor, position


async def test_from_latest_begins_with_the_newest_value_there_is() -> None:
    memory = stream_of([0, 1], [2, 3])
    iterator = IO[Any]("bar", memory).stream(StreamCursor.FROM_LATEST)
    assert await anext(iterator) == 3
    memory.publish(4).end()
    assert await taken(iterator) == [4]


async def test_from_latest_waits_for_the_first_value() -> None:
    memory = MemoryStream()
    iterator = IO[Any]("bar", memory).stream("from_latest")
    async with anyio.create_task_group() as group:
        group.start_soon(until_waiting, memory)
        with anyio.move_on_after(0.01):
            await anext(iterator)
    memory.publish(0, 1).end()
    assert await taken(iterator) == [0, 1]


async def test_only_new_begins_when_the_first_value_is_asked_for() -> None:
    memory = stream_of([0])
    iterator = IO[Any]("bar", memory).stream(StreamCursor.ONLY_NEW)
    memory.publish(1)
    with anyio.move_on_after(0.01):
        await anext(iterator)
    memory.publish(2).end()
    assert await taken(iterator) == [2]


async def test_only_new_misses_nothing_after_begin() -> None:
    memory = stream_of([0, 1])
    iterator = await IO[Any]("bar", memory).stream(StreamCursor.ONLY_NEW).begin()
    assert iterator.position == "1700-0:2"
    memory.publish(2).end()
    assert await taken(iterator) == [2]
    assert memory.reads == 2


@pytest.mark.parametrize("cursor", list(StreamCursor))
@pytest.mark.parametrize("ordered", [False, True])
async def test_every_cursor_ends_with_the_stream_or_its_error(cursor: StreamCursor, ordered: bool) -> None:
    existing = {StreamCursor.FROM_FIRST: [0, 1, 2], StreamCursor.FROM_LATEST: [2], StreamCursor.ONLY_NEW: []}[cursor]
    memory = stream_of([0, 1], [2]).end()
    assert await taken(IO[Any]("bar", memory).stream(cursor, ordered)) == existing
    assert await until_error(IO[Any]("bar", memory.end(FAILED)).stream(cursor, ordered)) == (existing, FAILED)
    assert await taken(IO[Any]("bar", MemoryStream().end()).stream(cursor, ordered)) == []


FRAMES = [[0, 1, 2], [3], [4, 5]]


@pytest.mark.parametrize("most", [1, 100])
@pytest.mark.parametrize("count", range(7))
async def test_a_position_resumes_after_the_last_value_given_out(count: int, most: int) -> None:
    memory = stream_of(*FRAMES, most=most).end()
    io = IO[int]("bar", memory)
    assert io.position == START
    assert await taken(io.stream(), count) == list(range(count))
    assert await taken(IO[Any]("bar", memory).stream(io.position)) == list(range(count, 6))


async def test_a_resumed_iteration_has_positions_too() -> None:
    memory = stream_of(*FRAMES).end()
    position, values = START, []
    while chunk := await taken(iterator := IO[int]("bar", memory).stream(position), 1):
        values += chunk
        position = iterator.position
    assert values == [0, 1, 2, 3, 4, 5]
    assert position == "1701-0:2"


async def test_the_position_is_that_of_the_iteration_that_advanced_last() -> None:
    io = io_of(*FRAMES)
    slow, fast = io.stream(), io.stream()
    assert slow.position == START
    await taken(fast, 5)
    assert io.position == fast.position == "1701-0:1"
    await anext(slow)
    assert io.position == slow.position == "1700-0:1"


async def test_a_position_stays_when_the_iteration_has_ended_or_closed() -> None:
    io = io_of(*FRAMES)
    await taken(io.stream())
    assert io.position == "1701-0:2"
    iterator = io.stream()
    await taken(iterator, 2)
    await iterator.aclose()
    assert io.position == iterator.position == "1700-0:2"


async def test_first_latest_and_collect_leave_the_position() -> None:
    io = io_of(*FRAMES)
    assert (await io.first(), await io.latest(), len(await io.collect())) == (0, 5, 6)
    assert io.position == START


async def test_a_wrong_cursor_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"'newest' is no place.*StreamCursor\.ONLY_NEW"):
        io_of().stream("newest")


async def test_lineage_tells_where_the_last_value_came_from() -> None:
    iterator = IO[Any]("bar", MemoryStream().publish("a", "b", lineages=[(3, 0), (3, 1)]).end()).stream()
    found: list[Any] = [iterator.lineage]
    async for value in iterator:
        found += [value, iterator.lineage]
    assert found == [None, "a", (3, 0), "b", (3, 1)]


# -------------------------------------------------------------------------------------------------- ordered


def shuffled(most: int = 100) -> MemoryStream:
    """Values 0 to 7 with the lineages of two fan-outs; 1 and 5 were filtered out."""
    memory = MemoryStream(most)
    memory.publish(0, 6, lineages=[(0, 0), (1, 2)])
    memory.publish(3, lineages=[(0, 3)])
    memory.publish(7, 2, 4, lineages=[(1, 3), (0, 2), (1, 0)])
    return memory


async def test_ordered_gives_the_order_of_origin() -> None:
    io = IO[int]("bar", shuffled().end())
    assert await taken(io.stream(ordered=True)) == await io.collect(ordered=True) == [0, 2, 3, 4, 6, 7]
    assert await io.collect() == [0, 6, 3, 7, 2, 4]


async def test_ordered_gives_what_exists_in_order_before_the_error() -> None:
    io = IO[int]("bar", shuffled().end(FAILED))
    assert await until_error(io.stream(ordered=True)) == ([0, 2, 3, 4, 6, 7], FAILED)


async def test_ordered_does_not_wait_for_the_end_when_nothing_is_missing() -> None:
    memory = stream_of([0, 1], [2])
    assert await taken(IO[Any]("bar", memory).stream(ordered=True), 3) == [0, 1, 2]


async def test_ordered_holds_what_it_has_through_an_outage() -> None:
    memory = shuffled()
    iterator = IO[Any]("bar", memory).stream(ordered=True)
    assert await anext(iterator) == 0
    memory.outage = UNAVAILABLE
    assert await until_error(iterator) == ([], UNAVAILABLE)
    memory.outage = None
    memory.publish(1, lineages=[(0, 1)]).end()
    assert await taken(iterator) == [1, 2, 3, 4, 6, 7]


@pytest.mark.parametrize("most", [1, 100])
@pytest.mark.parametrize("count", range(7))
async def test_an_ordered_position_resumes_without_loss_or_repetition(count: int, most: int) -> None:
    memory = shuffled(most).end()
    iterator = IO[Any]("bar", memory).stream(ordered=True)
    before = await taken(iterator, count)
    if count % 2:
        await iterator.aclose()
    after = IO[Any]("bar", memory).stream(iterator.position, ordered=True)
    middle = await taken(after, 2)
    end = await taken(IO[Any]("bar", memory).stream(after.position, ordered=True))
    assert [*before, *middle, *end] == [0, 2, 3, 4, 6, 7]


async def test_an_ordered_position_is_right_while_values_are_held() -> None:
    memory = MemoryStream().publish("a", lineages=[(0,)]).publish("c", lineages=[(2,)])
    iterator = IO[Any]("bar", memory).stream(ordered=True)
    assert await anext(iterator) == "a"
    with anyio.move_on_after(0.01):
        await anext(iterator)
    assert iterator.lineage == (0,)
    memory.publish("b", lineages=[(1,)]).end()
    assert await taken(IO[Any]("bar", memory).stream(iterator.position, ordered=True)) == ["b", "c"]
    assert await taken(iterator) == ["b", "c"]


async def test_the_position_of_an_ordered_iteration_without_gaps_moves_on() -> None:
    iterator = io_of(*FRAMES).stream(ordered=True)
    await taken(iterator, 4)
    assert iterator.position == "1700-1:1@3"
    assert iterator.lineage == (3,)


async def test_an_ordered_iteration_from_a_place_on_orders_what_is_behind_it() -> None:
    memory = shuffled()
    iterator = await IO[Any]("bar", memory).stream(StreamCursor.ONLY_NEW, ordered=True).begin()
    memory.publish(9, 8, lineages=[(2, 1), (2, 0)]).end()
    assert await taken(IO[Any]("bar", memory).stream(iterator.position, ordered=True)) == [8, 9]
    assert await taken(iterator) == [8, 9]


# -------------------------------------------------------------------------------------------- single values


async def test_first_waits_and_does_not_need_the_end() -> None:
    memory = MemoryStream()
    async with anyio.create_task_group() as group:

        async def publish() -> None:
            await until_waiting(memory)
            memory.publish(None, 1)

        group.start_soon(publish)
        assert await IO[Any]("bar", memory).first() is None


async def test_latest_is_the_newest_there_is() -> None:
    memory = stream_of([0], [1, 2])
    io = IO[int]("bar", memory)
    assert await io.latest() == 2
    memory.publish(3)
    assert await io.latest() == 3


async def test_latest_waits_for_a_value() -> None:
    memory = MemoryStream()
    async with anyio.create_task_group() as group:

        async def publish() -> None:
            await until_waiting(memory)
            memory.publish(7, 8)

        group.start_soon(publish)
        assert await IO[Any]("bar", memory).latest() == 8


async def test_an_empty_stream_has_neither_first_nor_latest() -> None:
    io = io_of()
    for read in (io.first, io.latest):
        with pytest.raises(EmptyIOError, match="'bar' ended without a value") as caught:
            await read()
        assert caught.value.stream == "bar"
    assert await io.collect() == []


async def test_a_failed_run_still_has_its_values() -> None:
    io = IO[int]("bar", stream_of([0, 1]).end(FAILED))
    assert (await io.first(), await io.latest()) == (0, 1)
    with pytest.raises(FlowCancelledError):
        await io.collect()


async def test_a_failed_run_without_values_raises_its_error() -> None:
    io = IO[int]("bar", MemoryStream().end(FAILED))
    for read in (io.first, io.latest, io.collect):
        with pytest.raises(FlowCancelledError):
            await read()


# ---------------------------------------------------------------------------------------------- stream_with


async def test_zip_stops_with_the_shortest() -> None:
    assert await taken(io_of([0, 1], [2]).stream_with(io_of(["a"], ["b"]))) == [(0, "a"), (1, "b")]


async def test_zip_of_one_two_and_three() -> None:
    a, b, c = io_of([0]), io_of([1]), io_of([2])
    assert await taken(a.stream_with()) == [(0,)]
    assert await taken(a.stream_with(b, c)) == [(0, 1, 2)]
    assert await taken(a.stream_with(a)) == [(0, 0)]


@pytest.mark.parametrize("pad", [None, -1])
async def test_zip_pads_to_the_longest(pad: Any) -> None:
    rows = await taken(io_of([0]).stream_with(io_of([0, 1], [2]), io_of(), pad=pad))
    assert rows == [(0, 0, pad), (pad, 1, pad), (pad, 2, pad)]


async def test_zip_strict_refuses_different_lengths_after_the_common_part() -> None:
    rows, error = await until_error(io_of([0, 1], name="a").stream_with(io_of(["x"], name="b"), strict=True))
    assert rows == [(0, "x")]
    assert isinstance(error, UnequalLengthError)
    assert (error.streams, error.ended, error.length) == (("a", "b"), ("b",), 1)
    assert "pad" in str(error)
    assert await taken(io_of([0]).stream_with(io_of([1]), strict=True)) == [(0, 1)]


async def test_zip_refuses_pad_with_strict_and_what_is_no_io() -> None:
    with pytest.raises(ConfigurationError, match="`pad`"):
        io_of().stream_with(io_of(), pad=None, strict=True)
    with pytest.raises(ConfigurationError, match="pass an IO"):
        io_of().stream_with([1, 2])  # type: ignore[call-overload]


async def test_zip_stops_without_waiting_for_the_longer_one() -> None:
    open_stream = stream_of([0])
    with no_task_left():
        assert await taken(IO[Any]("a", open_stream).stream_with(io_of([1]))) == [(0, 1)]
    assert open_stream.waiting == 0


async def test_zip_reads_concurrently() -> None:
    left, right = MemoryStream(), MemoryStream()
    async with anyio.create_task_group() as group:

        async def publish() -> None:
            await until_waiting(left, right)
            left.publish(0).end()
            right.publish(1).end()

        group.start_soon(publish)
        assert await taken(IO[Any]("a", left).stream_with(IO[Any]("b", right))) == [(0, 1)]


@pytest.mark.parametrize("options", [{}, {"pad": None}, {"strict": True}])
async def test_zip_raises_the_error_of_any(options: dict[str, Any]) -> None:
    failing = stream_of([0]).end(FAILED)
    with no_task_left():
        rows, error = await until_error(IO[Any]("a", stream_of([1, 2])).stream_with(IO[Any]("b", failing), **options))
    assert (rows, error) == ([(1, 0)], FAILED)


async def test_zip_may_be_cancelled_and_asked_again() -> None:
    left, right = stream_of([0]), MemoryStream()
    rows = IO[Any]("a", left).stream_with(IO[Any]("b", right))
    with no_task_left(), anyio.move_on_after(0.01):
        await anext(rows)
    right.publish(1, 2).end()
    left.publish(1).end()
    assert await taken(rows) == [(0, 1), (1, 2)]


async def test_zip_leaves_each_io_where_it_was_read_to() -> None:
    left, right = io_of([0, 1, 2]), io_of([0], [1])
    await taken(left.stream_with(right), 2)
    assert (left.position, right.position) == ("1700-0:2", "1700-1:1")


# --------------------------------------------------------------------------------------------- as_available


async def test_merge_ends_when_all_have_ended() -> None:
    merged = io_of([0]).as_available(io_of([10], [11], [12]), io_of())
    assert sorted(await taken(merged)) == [0, 10, 11, 12]
    assert await taken(merged) == []


async def test_merge_tags_values_with_their_stream() -> None:
    merged = io_of([0], name="a").as_available(io_of([0], name="b"), tagged=True)
    assert sorted(await taken(merged)) == [("a", 0), ("b", 0)]


async def test_merge_of_one_and_of_the_same() -> None:
    io = io_of([0, 1])
    assert await taken(io.as_available()) == [0, 1]
    assert sorted(await taken(io.as_available(io))) == [0, 0, 1, 1]
    with pytest.raises(ConfigurationError, match="pass an IO"):
        io.as_available(io.stream())  # type: ignore[call-overload]


async def test_merge_gives_a_value_as_soon_as_it_is_there() -> None:
    quiet, lively = MemoryStream(), stream_of([0])
    merged = IO[Any]("a", quiet).as_available(IO[Any]("b", lively))
    assert await anext(merged) == 0
    quiet.publish(1)
    assert await anext(merged) == 1
    lively.publish(2).end()
    assert await anext(merged) == 2
    quiet.end()
    assert await taken(merged) == []


async def test_merge_lets_streams_take_turns() -> None:
    busy, other = stream_of(list(range(100))), MemoryStream()
    merged = IO[Any]("a", busy).as_available(IO[Any]("b", other))
    await taken(merged, 5)
    for batch in (["new", "newer", "newest"], ["last"]):
        other.publish(*batch)
        for _ in range(5):
            await asyncio.sleep(0)
        assert set(batch) <= set(await taken(merged, 2 * len(batch) + 1))
    await merged.aclose()


async def test_merge_raises_an_error_after_the_values_that_exist() -> None:
    with no_task_left():
        values, error = await until_error(
            IO[Any]("a", MemoryStream().end(FAILED)).as_available(
                IO[Any]("b", stream_of([0, 1], [2], [3], most=1).end(FAILED)), IO[Any]("c", stream_of([4], [5], most=1))
            )
        )
    assert (sorted(values), error) == ([0, 1, 2, 3, 4, 5], FAILED)


async def test_merge_raises_an_outage_after_the_values_it_has() -> None:
    broken, fine = MemoryStream(), stream_of([0, 1, 2], [3], most=1)
    merged = IO[Any]("a", broken).as_available(IO[Any]("b", fine))
    assert await anext(merged) == 0
    broken.outage = fine.outage = UNAVAILABLE
    broken.publish(9)
    with no_task_left():
        assert await until_error(merged) == ([1, 2], UNAVAILABLE)


async def test_merge_raises_when_the_tail_cannot_be_found() -> None:
    class Unreachable(MemoryStream):
        async def last(self) -> Chunk | None:
            raise UNAVAILABLE

    merged = IO[Any]("a", MemoryStream().end(FAILED)).as_available(IO[Any]("b", Unreachable()))
    with no_task_left():
        assert await until_error(merged) == ([], FAILED)


async def test_breaking_out_of_a_merge_or_zip_ends_its_reads() -> None:
    left, right = stream_of([0]), stream_of([1])
    with no_task_left():
        async for _ in IO[Any]("a", left).as_available(IO[Any]("b", right), IO[Any]("c", MemoryStream())):
            await asyncio.sleep(0.001)
            break
        async for _ in IO[Any]("a", left).stream_with(IO[Any]("b", right)):
            break
        for _ in range(3):
            await asyncio.sleep(0)
    assert left.waiting == right.waiting == 0


async def test_closing_a_merge_ends_its_reads() -> None:
    quiet = MemoryStream()
    merged = IO[Any]("a", quiet).as_available(io_of([0]))
    assert await anext(merged) == 0
    assert quiet.waiting == 1
    with no_task_left():
        await merged.aclose()
        await merged.aclose()
        assert quiet.waiting == 0
        assert await taken(merged) == []


async def test_an_error_that_nobody_waits_for_any_more_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    failing = MemoryStream()
    merged = IO[Any]("a", failing).as_available(io_of([0, 1]))
    assert await anext(merged) == 0
    failing.end(FAILED)
    for _ in range(5):
        await asyncio.sleep(0)
    del merged
    gc.collect()
    assert not caplog.records


async def test_a_merge_may_be_cancelled_and_asked_again() -> None:
    left, right = MemoryStream(), MemoryStream()
    merged = IO[Any]("a", left).as_available(IO[Any]("b", right))
    with no_task_left(), anyio.move_on_after(0.01):
        await anext(merged)
    assert left.waiting == right.waiting == 0
    left.publish(0).end()
    right.publish(1).end()
    assert sorted(await taken(merged)) == [0, 1]


def test_a_merge_dropped_with_its_loop_is_silent(recwarn: pytest.WarningsRecorder) -> None:
    async def drop() -> object:
        merged = IO[Any]("a", MemoryStream()).as_available(io_of([0]))
        await anext(merged)
        return merged

    dropped: object | None = asyncio.run(drop())
    assert dropped is not None
    dropped = None
    gc.collect()
    assert not recwarn.list


# -------------------------------------------------------------------------------------------------- writing


async def test_what_is_written_is_read() -> None:
    memory = MemoryStream()
    io = IO[int]("foo", memory, memory)
    await io.write(1)
    await io.write()
    await io.write(2, 3)
    assert not await io.is_complete()
    await io.complete()
    assert await io.is_complete()
    assert await io.collect() == [1, 2, 3]
    assert [list(chunk.values) for chunk in memory.chunks] == [[1], [2, 3]]


async def test_a_stream_without_writer_says_why() -> None:
    io = IO[int]("bar", MemoryStream(), read_only="it is an output of 'foobar'")
    for write in (io.write(1), io.write(), io.complete()):
        with pytest.raises(ReadOnlyIOError, match="'bar' cannot be written: it is an output of 'foobar'") as caught:
            await write
        assert caught.value.reason == "it is an output of 'foobar'"
    with pytest.raises(ReadOnlyIOError, match="open_inputs=True"):
        await io_of().write(1)


# ---------------------------------------------------------------------------------------------------- typing


def test_io_is_generic_at_run_time() -> None:
    assert typing.get_origin(IO[int]) is IO
    assert typing.get_args(IO[int]) == (int,)
    assert IO[int]("bar", MemoryStream()).name == "bar"


def test_repr_names_the_stream() -> None:
    memory = MemoryStream()
    assert repr(IO[Any]("bar", memory)) == "<IO 'bar'>"
    assert repr(IO[Any]("bar", memory, memory)) == "<IO 'bar' writable>"
