"""ThreadIO: an IO as synchronous code in a thread sees it. The same methods, each waits in the thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

from datamesh.execute.executor import Executor
from datamesh.model.cursor import StreamCursor
from datamesh.model.io import IO


class ThreadIO:
    """Read a stream of a run from a synchronous task: `for value in foo`.

    Args:
        io: What it stands for.
        loop: The event loop of the supervisor.
        executor: Told that its thread only waits, so that others may run meanwhile.
    """

    def __init__(self, io: IO[Any], loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        self._io = io
        self._loop = loop
        self._executor = executor

    @property
    def name(self) -> str:
        """Name of the stream."""
        return self._io.name

    @property
    def position(self) -> str:
        """See `IO.position`."""
        return self._io.position

    def first(self) -> Any:
        """See `IO.first`."""
        return self._wait(self._io.first())

    def latest(self) -> Any:
        """See `IO.latest`."""
        return self._wait(self._io.latest())

    def collect(self, ordered: bool = False) -> list[Any]:
        """See `IO.collect`."""
        return self._wait(self._io.collect(ordered))  # type: ignore[no-any-return]

    def is_complete(self) -> bool:
        """See `IO.is_complete`."""
        return bool(self._wait(self._io.is_complete()))

    def stream(self, cursor: StreamCursor | str = StreamCursor.FROM_FIRST, ordered: bool = False) -> Iterator[Any]:
        """See `IO.stream`."""
        return self._iterate(self._io.stream(cursor, ordered))

    def stream_with(self, *others: ThreadIO, **options: Any) -> Iterator[tuple[Any, ...]]:
        """See `IO.stream_with`."""
        return self._iterate(self._io.stream_with(*(other._io for other in others), **options))

    def as_available(self, *others: ThreadIO, tagged: bool = False) -> Iterator[Any]:
        """See `IO.as_available`."""
        return self._iterate(self._io.as_available(*(other._io for other in others), tagged=tagged))

    def __iter__(self) -> Iterator[Any]:
        return self.stream()

    def __repr__(self) -> str:
        return f"<ThreadIO {self.name!r}>"

    def _wait(self, what: Coroutine[Any, Any, Any]) -> Any:
        with self._executor.waiting():
            return asyncio.run_coroutine_threadsafe(what, self._loop).result()

    def _iterate(self, iterator: AsyncIterator[Any]) -> Iterator[Any]:
        # Many values are in memory already after one wait; take them in one crossing.
        many = getattr(iterator, "take_all", None)
        while True:
            found = self._wait(_some(iterator, many is not None))
            if not found:
                return
            yield from found


async def _some(iterator: Any, many: bool) -> list[Any]:
    if many:
        return list(iterator.take_all()) if await iterator.fill() else []
    try:
        return [await anext(iterator)]
    except StopAsyncIteration:
        return []
