"""Several streams read as one: zipped by ordinal, or merged as their values become available."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from enum import Enum
from typing import Any, Final, TypeVar, cast

import anyio

from datamesh.errors import RunError, StoreError, UnequalLengthError
from datamesh.model.stream import ValueStream

T = TypeVar("T")


class _Unset(Enum):
    UNSET = "unset"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset.UNSET
"""Stands for a `pad` that was not given, since None is one."""


def _retrieve(task: asyncio.Task[bool]) -> None:
    # Else asyncio logs the error of a read that nobody waits for any more.
    if not task.cancelled():
        task.exception()


def _gave_value(task: asyncio.Task[bool]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and task.result()


class _Reads:
    """The reads under way, at most one for each stream. They only fill buffers, so cancelling one loses nothing.

    A loop that is left by `break` closes nothing, so the reads also end when their owner is collected.
    """

    def __init__(self) -> None:
        self._tasks: dict[ValueStream[Any], asyncio.Task[bool]] = {}

    def start(self, stream: ValueStream[Any]) -> None:
        """Read on, unless a read is under way or its outcome was not looked at yet."""
        task = self._tasks.get(stream)
        if task is None or _gave_value(task):
            self._tasks[stream] = task = asyncio.get_running_loop().create_task(stream.fill())
            task.add_done_callback(_retrieve)

    async def settled(self) -> list[tuple[ValueStream[Any], asyncio.Task[bool]]]:
        """Wait until a read is done; return all that are."""
        await asyncio.wait(self._tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        done = [(stream, task) for stream, task in self._tasks.items() if task.done()]
        for stream, _ in done:
            del self._tasks[stream]
        return done

    async def cancel(self) -> None:
        """End all reads, and return when they have ended."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            with anyio.CancelScope(shield=True):
                await asyncio.wait(tasks)

    def __del__(self) -> None:
        for task in self._tasks.values():
            if not task.done():
                with suppress(RuntimeError):  # the loop is closed, and its tasks with it
                    task.get_loop().call_soon_threadsafe(task.cancel)


class _Joined(AsyncIterator[T]):
    """Reads its streams concurrently; nothing it started outlives it."""

    def __init__(self, streams: Sequence[ValueStream[Any]]) -> None:
        self._streams = tuple(streams)
        self._reads = _Reads()
        self._closed = False

    async def __anext__(self) -> T:
        if self._closed:
            raise StopAsyncIteration
        try:
            return await self._next()
        except asyncio.CancelledError:
            await self._reads.cancel()  # it may be asked again: the streams keep their places
            raise
        except Exception:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """End the reads under way, and the iteration."""
        self._closed = True
        await self._reads.cancel()
        for stream in self._streams:
            await stream.aclose()

    @abstractmethod
    async def _next(self) -> T:
        """Return the next item; StopAsyncIteration at the end."""


class ZippedStream(_Joined[T]):
    """One iteration over several streams: tuples of the values at the same ordinal.

    Args:
        streams: One iteration of each stream, by its name; names may repeat.
        pad: Value in the place of those that a stream which ended earlier lacks; UNSET ends with the shortest.
        strict: Refuse streams of different length.
    """

    def __init__(self, streams: Sequence[tuple[str, ValueStream[Any]]], *, pad: Any = UNSET, strict: bool) -> None:
        super().__init__([stream for _, stream in streams])
        self._names = [name for name, _ in streams]
        self._pad = pad
        self._strict = strict
        self._over: set[ValueStream[Any]] = set()
        self._length = 0

    async def _next(self) -> T:
        while missing := [stream for stream in self._streams if not (stream.buffered or stream in self._over)]:
            if self._over and self._ends_with_shortest:
                raise StopAsyncIteration
            for stream in missing:
                self._reads.start(stream)
            self._look_at(await self._reads.settled())
        if self._over:
            self._check_end()
        self._length += 1
        return self._row()

    @property
    def _ends_with_shortest(self) -> bool:
        return self._pad is UNSET and not self._strict

    def _look_at(self, reads: list[tuple[ValueStream[Any], asyncio.Task[bool]]]) -> None:
        for stream, task in reads:
            if not task.result():
                self._over.add(stream)

    def _check_end(self) -> None:
        if self._ends_with_shortest or len(self._over) == len(self._streams):
            raise StopAsyncIteration
        if self._strict:
            ended = [name for name, stream in zip(self._names, self._streams, strict=True) if stream in self._over]
            raise UnequalLengthError(streams=self._names, ended=ended, length=self._length)

    def _row(self) -> T:
        # T is the tuple of the streams' values, which only the caller knows.
        return cast(T, tuple([self._pad if stream in self._over else stream.take() for stream in self._streams]))


class MergedStream(_Joined[T]):
    """One iteration over several streams: each value as soon as it is there, ending when all have ended.

    Streams that have values take turns, so that one that is always ahead does not hold up the others. When one fails,
    the values that exist in the others are given out before its error is raised.

    Args:
        streams: One iteration of each stream, by its name; names may repeat.
        label: Makes an item of a stream's name and a value.
    """

    def __init__(self, streams: Sequence[tuple[str, ValueStream[Any]]], *, label: Callable[[str, Any], T]) -> None:
        super().__init__([stream for _, stream in streams])
        self._names = {stream: name for name, stream in streams}
        self._label = label
        self._open = deque(self._streams)
        self._failure: BaseException | None = None

    async def _next(self) -> T:
        while self._open:
            if (stream := self._turn()) is not None:
                return self._label(self._names[stream], stream.take())
            for stream, task in await self._reads.settled():
                await self._look_at(stream, task)
        raise self._failure or StopAsyncIteration

    def _turn(self) -> ValueStream[Any] | None:
        for _ in range(len(self._open)):
            stream = self._open[0]
            self._open.rotate(-1)
            if stream.buffered:
                return stream
            self._reads.start(stream)
        return None

    async def _look_at(self, stream: ValueStream[Any], task: asyncio.Task[bool]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is None and task.result():
            return
        if stream in self._open:
            self._open.remove(stream)
        if error is not None and self._failure is None:
            self._failure = error
            await self._end_others(error)

    async def _end_others(self, error: BaseException) -> None:
        await self._reads.cancel()
        for stream in self._open:
            stream.end_here()
            if isinstance(error, RunError):  # its streams have ended too, and what they hold was given before it
                with suppress(StoreError):
                    await stream.end_at_tail()
