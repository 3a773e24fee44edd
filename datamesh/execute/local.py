"""LocalExecutor: this process. The event loop for asynchronous functions, threads for the others."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

import anyio
from anyio import CapacityLimiter, to_thread

from datamesh.errors import ConfigurationError
from datamesh.execute.executor import Executor

R = TypeVar("R")


class LocalExecutor(Executor):
    """Run synchronous functions in threads of this process.

    Args:
        threads: How many at once, apart from those of the rest of the program. 8 per core, at most 64, if left out.

    Raises:
        ConfigurationError: `threads` is below 1.
    """

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ConfigurationError(f"LocalExecutor(threads={threads}) cannot run anything: pass 1 or more")
        self._threads = threads or min(64, 8 * (os.cpu_count() or 1))
        self._limiter: CapacityLimiter | None = None
        self._more = 0
        self.abandoned = 0
        """Calls that nobody waits for any more and that still run, each with its thread."""

    async def run(self, call: Callable[[], R]) -> R:
        if self._limiter is None:
            self._limiter = CapacityLimiter(self._threads)
        running = _Running(call, self._ended)
        try:
            return await to_thread.run_sync(running, abandon_on_cancel=True, limiter=self._limiter)
        except asyncio.CancelledError:
            if running.abandon():
                self._resize(abandoned=1)
            raise

    @contextmanager
    def waiting(self) -> Iterator[None]:
        # A thread that waits for a stream must not keep the thread from starting that will write it.
        anyio.from_thread.run_sync(self._resize, 1)
        try:
            yield
        finally:
            anyio.from_thread.run_sync(self._resize, -1)

    def _ended(self, loop: asyncio.AbstractEventLoop) -> None:
        with suppress(RuntimeError):  # the loop is gone, and with it those who would be waiting
            loop.call_soon_threadsafe(lambda: self._resize(abandoned=-1))

    def _resize(self, more: int = 0, *, abandoned: int = 0) -> None:
        self._more += more
        self.abandoned += abandoned
        if self._limiter is not None:
            self._limiter.total_tokens = max(1, self._threads + self._more - self.abandoned)

    async def aclose(self) -> None:
        self._limiter = None


class _Running(Generic[R]):
    """A call in a thread, which may be left alone there."""

    def __init__(self, call: Callable[[], R], ended: Callable[[asyncio.AbstractEventLoop], None]) -> None:
        self._call = call
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._has_begun = self._has_ended = self._is_abandoned = self._is_dropped = False

    def __call__(self) -> R:
        with self._lock:
            self._has_begun = True
            if self._is_dropped:
                raise asyncio.CancelledError
        try:
            return self._call()
        finally:
            with self._lock:
                self._has_ended = True
            if self._is_abandoned:
                self._ended(self._loop)

    def abandon(self) -> bool:
        """Nobody waits for it any more; False: it has ended, or never began."""
        with self._lock:
            self._is_dropped = not self._has_begun
            self._is_abandoned = self._has_begun and not self._has_ended
            return self._is_abandoned
