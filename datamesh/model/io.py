"""IO: a stream of one run, as those who read it and write it see it."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any, Literal, TypeVar, overload

from datamesh.errors import ConfigurationError, EmptyIOError, ReadOnlyIOError
from datamesh.model.cursor import START, StreamCursor, starting_at
from datamesh.model.merge import UNSET, MergedStream, ZippedStream
from datamesh.model.reader import Chunk, Reader, Writer
from datamesh.model.stream import Bookmark, OrderedStream, ValueStream

__all__ = ["IO", "Chunk", "Reader", "StreamCursor", "ValueStream", "Writer"]

T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")


class IO(AsyncIterable[T_co]):
    """Read a stream of a run, from any process, as often as needed: reading takes nothing away.

    `async for value in io` gives every value and ends with the stream. When the run failed, was cancelled or timed
    out, every way to read gives the values that exist and then raises the run's error.

    Args:
        name: Name of the stream.
        reader: Where its values come from.
        writer: Where values written to it go; None when it cannot be written.
        read_only: Why it cannot be written, and what to do, for the message of `ReadOnlyIOError`.
    """

    __slots__ = ("__weakref__", "_bookmark", "_name", "_read_only", "_reader", "_writer")

    def __init__(
        self,
        name: str,
        reader: Reader,
        writer: Writer | None = None,
        *,
        read_only: str = "only inputs of a run started with `open_inputs=True` can be, through `run.inputs`",
    ) -> None:
        self._name = name
        self._reader = reader
        self._writer = writer
        self._read_only = read_only
        self._bookmark = Bookmark()

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self._name

    @property
    def position(self) -> str:
        """Place behind the value that was given out last: pass it as `cursor` to resume there, in any process.

        It is the place of the iteration over this object that advanced last. With several at a time, ask the iterator
        itself: `stream = io.stream()` has a `stream.position`.
        """
        recent = self._bookmark.recent
        return START if recent is None else recent.position

    def __aiter__(self) -> ValueStream[T_co]:
        return self.stream()

    def __repr__(self) -> str:
        return f"<IO {self._name!r}{'' if self._writer is None else ' writable'}>"

    # -------------------------------------------------------------------------------------------- reading

    def stream(self, cursor: StreamCursor | str = StreamCursor.FROM_FIRST, ordered: bool = False) -> ValueStream[T_co]:
        """Iterate over the values.

        Args:
            cursor: Where to begin: a `StreamCursor`, or a position given out earlier.
            ordered: Give the values in the order of their origin instead of arrival. Values pass at once as long as
                they arrive in that order without a gap; the others wait for the earlier ones, or for the end. With a
                cursor, the order is among the values after it.

        Returns:
            An iterator with a `position` to resume at and the `lineage` of its last value.

        Raises:
            ConfigurationError: `cursor` is no place in a stream, or belongs to an ordered iteration and this is none.
        """
        start = starting_at(cursor, ordered=ordered)
        kind: type[ValueStream[T_co]] = OrderedStream if ordered else ValueStream
        return kind(self._reader, start, self._bookmark)

    async def first(self) -> T_co:
        """Return the first value, waiting for it.

        Raises:
            EmptyIOError: The stream ended without a value.
            RunError: The run did not end well, and gave no value.
        """
        stream: ValueStream[T_co] = ValueStream(self._reader)
        if not await stream.fill():
            raise EmptyIOError(stream=self._name)
        return stream.take()

    async def latest(self) -> T_co:
        """Return the newest value that there is now; wait for the first one if there is none.

        Raises:
            EmptyIOError: The stream ended without a value.
            RunError: The run did not end well, and gave no value.
        """
        stream: ValueStream[T_co] = ValueStream(self._reader, StreamCursor.FROM_LATEST)
        if not await stream.fill():
            raise EmptyIOError(stream=self._name)
        return stream.take_all()[-1]

    async def collect(self, ordered: bool = False) -> list[T_co]:
        """Return all values, when the stream has ended.

        Args:
            ordered: In the order of their origin instead of arrival.

        Raises:
            RunError: The run did not end well. Iterate instead to get the values that it gave.
        """
        stream: ValueStream[T_co] = OrderedStream(self._reader) if ordered else ValueStream(self._reader)
        values: list[T_co] = []
        while await stream.fill():
            values.extend(stream.take_all())
        return values

    async def is_complete(self) -> bool:
        """Tell whether the stream has ended, so that no value will be added to it."""
        return await self._reader.is_complete()

    # ---------------------------------------------------------------------------------- several streams

    @overload
    def stream_with(self, other: IO[A], /, *, strict: bool = ...) -> ZippedStream[tuple[T_co, A]]: ...
    @overload
    def stream_with(self, other: IO[A], third: IO[B], /, *, strict: bool = ...) -> ZippedStream[tuple[T_co, A, B]]: ...
    @overload
    def stream_with(self, *others: IO[Any], pad: Any = ..., strict: bool = ...) -> ZippedStream[tuple[Any, ...]]: ...

    def stream_with(self, *others: IO[Any], pad: Any = UNSET, strict: bool = False) -> ZippedStream[Any]:
        """Iterate over this stream and others side by side: tuples of the values at the same ordinal.

        Args:
            others: Read concurrently with this one.
            pad: Go on to the end of the longest stream, with this in the place of values that the others lack.
                Without it the iteration stops with the shortest.
            strict: Refuse streams of different length, with `UnequalLengthError` after their last common value.

        Raises:
            ConfigurationError: `pad` and `strict` together, or an argument that is no IO.
        """
        if strict and pad is not UNSET:
            raise ConfigurationError("`pad` fills up what `strict` refuses: pass one of them")
        return ZippedStream([(io.name, io.stream()) for io in self._with(others)], pad=pad, strict=strict)

    @overload
    def as_available(self, *others: IO[A], tagged: Literal[False] = ...) -> MergedStream[T_co | A]: ...
    @overload
    def as_available(self, *others: IO[A], tagged: Literal[True]) -> MergedStream[tuple[str, T_co | A]]: ...
    @overload
    def as_available(self, *others: IO[Any], tagged: bool) -> MergedStream[Any]: ...

    def as_available(self, *others: IO[Any], tagged: bool = False) -> MergedStream[Any]:
        """Iterate over this stream and others at once, each value as soon as it is there.

        It ends when all have ended. When one fails, the values that exist are given out before the error is raised.

        Args:
            others: Read concurrently with this one.
            tagged: Give `(name of the stream, value)`.

        Raises:
            ConfigurationError: An argument is no IO.
        """
        label = _tagged if tagged else _bare
        return MergedStream([(io.name, io.stream()) for io in self._with(others)], label=label)

    def _with(self, others: tuple[IO[Any], ...]) -> list[IO[Any]]:
        for other in others:
            if not isinstance(other, IO):
                raise ConfigurationError(f"{other!r} cannot be read side by side with {self!r}: pass an IO")
        return [self, *others]

    # -------------------------------------------------------------------------------------------- writing

    async def write(self, *values: object) -> None:
        """Publish values, in order, all or none.

        Raises:
            ReadOnlyIOError: The stream cannot be written; `reason` says why.
        """
        writer = self._writable()
        if values:
            await writer.write(values)

    async def complete(self) -> None:
        """End the stream, after which it takes no more values.

        Raises:
            ReadOnlyIOError: The stream cannot be written; `reason` says why.
        """
        await self._writable().complete()

    def _writable(self) -> Writer:
        if self._writer is None:
            raise ReadOnlyIOError(stream=self._name, reason=self._read_only)
        return self._writer


def _tagged(name: str, value: Any) -> Any:
    return (name, value)


def _bare(name: str, value: Any) -> Any:
    return value
