"""Signals: SIGTERM and SIGINT end a service in good order, a second one at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

EXIT_INTERRUPTED = 130
_NUMBERS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Hears signals while its block lasts, also where the event loop is blocked.

    The first is waited for; a further one ends the process with 130, whatever it is doing.

    Args:
        told: Called at once when the first arrives; on the main thread, between any two steps of it.
    """

    def __init__(self, told: Callable[[], None] | None = None) -> None:
        self._told = told
        self._is_received = False
        self._former: dict[int, Any] = {}
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def listen(self) -> None:
        """Hear signals from now on; only the main thread may."""
        # An asyncio handler would wait for a turn of the loop, which may never come.
        self._former = {number: signal.signal(number, self._arrived) for number in _NUMBERS}

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)

    async def first(self) -> None:
        """Wait for the first signal."""
        heard = asyncio.Event()
        self._waiter = asyncio.get_running_loop(), heard
        if self._is_received:
            return
        await heard.wait()

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        if self._is_received:
            os._exit(EXIT_INTERRUPTED)
        self._is_received = True
        if self._told is not None:
            self._told()
        if self._waiter is not None:
            loop, heard = self._waiter
            loop.call_soon_threadsafe(heard.set)
