"""ThreadFeed: values from a generator in a thread to the event loop, many at a time, and backpressure the other way."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio.from_thread

Pair = tuple[str, Any]
"""Output and value."""

Accept = Callable[[list[Pair]], "asyncio.Future[None] | None"]
"""Takes what a generator yielded; a future is to be awaited before it goes on."""

_MOST_WAITING = 1024


class ThreadFeed:
    """Made on the event loop; `put` is called in the thread.

    A value is on its way at once; those that follow before the loop has come to it travel with it.
    """

    def __init__(self, accept: Accept) -> None:
        self._accept = accept
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Pair] = deque()
        self._is_due = False
        self._is_stopped = False
        self._room: asyncio.Future[None] | None = None

    def put(self, pair: Pair) -> bool:
        """Hand over a value, waiting while too many are under way; False: nobody wants more."""
        if self._is_stopped:
            return False
        self._waiting.append(pair)
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon_threadsafe(self.transfer)
        if len(self._waiting) >= _MOST_WAITING or self._room is not None:
            anyio.from_thread.run(self._make_room)
        return not self._is_stopped

    def transfer(self) -> None:
        """Pass on what is here."""
        self._is_due = False
        pairs = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if pairs and not self._is_stopped:
            self._room = self._accept(pairs)

    def stop(self) -> None:
        """Take no more values; the generator ends with its next one."""
        self._is_stopped = True

    async def _make_room(self) -> None:
        self.transfer()
        room, self._room = self._room, None
        if room is not None:
            await room
