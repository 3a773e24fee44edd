"""LocalExecutor: this process. The event loop for asynchronous functions, threads for the others."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

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
        self._lock = threading.Lock()

    async def run(self, call: Callable[[], R]) -> R:
        if self._limiter is None:
            self._limiter = CapacityLimiter(self._threads)
        return await to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._limiter)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        # A thread that waits for a stream must not keep the thread from starting that will write it.
        self._widen(1)
        try:
            yield
        finally:
            self._widen(-1)

    def _widen(self, by: int) -> None:
        anyio.from_thread.run_sync(self._set, by)

    def _set(self, by: int) -> None:
        assert self._limiter is not None
        self._limiter.total_tokens += by

    async def aclose(self) -> None:
        self._limiter = None
