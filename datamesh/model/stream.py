"""ValueStream: one iteration over a stream, in order of arrival or of origin."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, Self, TypeVar

from datamesh.errors import DataError, RunError
from datamesh.model.cursor import Position, StreamCursor, entry_before, entry_key
from datamesh.model.order import Lineage, Order
from datamesh.model.reader import Chunk, Reader

T_co = TypeVar("T_co", covariant=True)


class _Feed:
    """The chunks of a stream from its start on, each once, with the number of values to leave out of it."""

    __slots__ = ("_after", "_limit", "_pending", "_reader", "_start", "place")

    def __init__(self, reader: Reader, start: StreamCursor | Position) -> None:
        self._reader = reader
        self._start: StreamCursor | None = None if isinstance(start, Position) else start
        self._pending: deque[Chunk] = deque()
        self._limit: str | None = None
        # Behind the last chunk that was given out.
        self.place = start if isinstance(start, Position) else Position()
        self._after = entry_before(self.place.entry) if self.place.taken else self.place.entry

    async def begin(self) -> None:
        """Find out where "latest" or "new" is; of no effect on an iteration that has begun."""
        if self._start is None:
            return
        last = await self._reader.last()
        if last is not None and self._start is StreamCursor.FROM_LATEST:
            self._pending.append(last)
            self.place = Position(last.position, len(last.values) - 1)
        elif last is not None:
            self._after = last.position
            self.place = Position(last.position, len(last.values))
        self._start = None

    async def next(self) -> tuple[Chunk, int] | None:
        """Return the next chunk, None at the end of the stream."""
        await self.begin()
        if not self._pending:
            if self._limit is not None and entry_key(self._after) >= entry_key(self._limit):
                return None
            self._pending.extend(await self._reader.read(self._after))
        if not self._pending:
            return None
        chunk = self._pending.popleft()
        skipped = self.place.taken if chunk.position == self.place.entry else 0
        self._after = chunk.position
        self.place = Position(chunk.position, len(chunk.values))
        return chunk, skipped

    async def end_at_tail(self) -> None:
        """Give out what exists now, and then end."""
        last = await self._reader.last()
        self._limit = "0" if last is None else last.position

    def end_here(self) -> None:
        """Give out what was read already, and then end."""
        self._limit = "0"


class Bookmark:
    """Remembers which iteration over an IO advanced last."""

    __slots__ = ("recent",)

    def __init__(self) -> None:
        self.recent: ValueStream[Any] | None = None


class ValueStream(AsyncIterator[T_co]):
    """One iteration over a stream, in order of arrival.

    Several tasks may share one: each value then goes to one of them. After a `StoreError` the iteration may be
    continued where it was; after the error of a run it raises that again.
    """

    __slots__ = (
        "__weakref__",
        "_bookmark",
        "_chunk",
        "_closed_at",
        "_ended",
        "_feed",
        "_index",
        "_lock",
        "_values",
    )

    def __init__(
        self, reader: Reader, start: StreamCursor | Position | None = None, bookmark: Bookmark | None = None
    ) -> None:
        self._feed = _Feed(reader, start or Position())
        self._bookmark = bookmark or Bookmark()
        self._chunk: Chunk | None = None
        self._values: Sequence[T_co] = ()
        self._index = 0
        self._ended = False
        self._closed_at: str | None = None
        self._lock = asyncio.Lock()

    @property
    def position(self) -> str:
        """Place behind the last value given out: pass it as `cursor` to resume there, in any process.

        An iteration from the latest or the new values on has no place of its own until it has begun; its position is
        the beginning of the stream until then.
        """
        return self._closed_at or self._place()

    @property
    def lineage(self) -> Lineage | None:
        """Where the last value given out comes from; None before the first."""
        if self._chunk is None or self._index == 0:
            return None
        return tuple(self._chunk.lineages()[self._index - 1])

    @property
    def buffered(self) -> bool:
        """Whether the next value is here already, so that asking for it does not wait."""
        return self._index < len(self._values)

    async def begin(self) -> Self:
        """Fix where the iteration begins, without waiting for a value, and return the iteration.

        After `new = await io.stream(StreamCursor.ONLY_NEW).begin()` nothing is missed, however late it is iterated.
        """
        async with self._lock:
            await self._feed.begin()
        return self

    async def __anext__(self) -> T_co:
        # The hot path, once for each value: no property, no call.
        index = self._index
        if index >= len(self._values):
            if not await self.fill():
                raise StopAsyncIteration
            index = self._index
        self._index = index + 1
        self._bookmark.recent = self
        return self._values[index]

    async def fill(self) -> bool:
        """Wait until a value is buffered; False when the stream has ended. May be cancelled without losing a value."""
        async with self._lock:
            while not self._ended and self._index >= len(self._values):
                await self._load()
        return self.buffered

    def take(self) -> T_co:
        """Return the next buffered value."""
        value = self._values[self._index]
        self._index += 1
        self._bookmark.recent = self
        return value

    def take_all(self) -> Sequence[T_co]:
        """Return all buffered values."""
        values = self._values[self._index :]
        self._index = len(self._values)
        self._bookmark.recent = self
        return values

    async def end_at_tail(self) -> None:
        """Give out the values that exist now, and then end, without waiting for more."""
        async with self._lock:
            await self._feed.end_at_tail()

    def end_here(self) -> None:
        """Give out the values that were read already, and then end."""
        self._feed.end_here()

    async def aclose(self) -> None:
        """End the iteration for this reader; its position stays."""
        self._closed_at = self.position
        self._ended = True
        self._values = ()

    def _place(self) -> str:
        return str(self._feed.place if self._chunk is None else Position(self._chunk.position, self._index))

    async def _load(self) -> None:
        found = await self._feed.next()
        if found is None or self._ended:
            self._ended = True
        else:
            self._chunk, self._index = found
            self._values = self._chunk.values


class OrderedStream(ValueStream[T_co]):
    """One iteration over a stream, in order of origin: see `Order`.

    When the run ends with an error, the values that exist are given out in order before it is raised.
    """

    __slots__ = ("_behind", "_lineages", "_order", "_resumed")

    def __init__(
        self, reader: Reader, start: StreamCursor | Position | None = None, bookmark: Bookmark | None = None
    ) -> None:
        super().__init__(reader, start, bookmark)
        # A place of the stream with every value before it given out.
        self._behind = self._feed.place
        # Lineage of the last value given out before those in `_values`.
        self._resumed = self._behind.lineage
        self._order: Order[T_co] = Order(after=self._resumed)
        self._lineages: Sequence[Lineage] = ()

    @property
    def lineage(self) -> Lineage | None:
        return self._lineages[self._index - 1] if self._index else self._resumed

    def _place(self) -> str:
        settled = not self.buffered and not self._order.held
        return str(replace(self._feed.place if settled else self._behind, lineage=self.lineage))

    async def _load(self) -> None:
        if not self._order.held:
            await self._feed.begin()
            self._behind = self._feed.place
        try:
            found = await self._feed.next()
        except (RunError, DataError):
            # The reader raises again when it is asked again, after what is held was given out.
            if not self._order.held:
                raise
            found = None
        if self._ended:
            return
        if found is None:
            self._ended = not self._order.held
            self._show(self._order.rest())
        else:
            self._chunk, skipped = found
            arrived = zip(self._chunk.lineages()[skipped:], self._chunk.values[skipped:], strict=True)
            self._show(self._order.add(arrived))

    def _show(self, ready: list[tuple[Lineage, T_co]]) -> None:
        self._resumed = self.lineage
        self._lineages = [lineage for lineage, _ in ready]
        self._values, self._index = [value for _, value in ready], 0
