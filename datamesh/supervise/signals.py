"""Signals: SIGTERM and SIGINT end a service in good order, a second one at once."""

from __future__ import annotations

import asyncio
import os
import signal

_EXIT_INTERRUPTED = 130


async def until_signalled() -> None:
    """Wait for SIGTERM or SIGINT. From then on a further one ends the process, with whatever it is doing."""
    loop = asyncio.get_running_loop()
    signalled = asyncio.Event()

    def first() -> None:
        if signalled.is_set():
            os._exit(_EXIT_INTERRUPTED)
        signalled.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, first)
    await signalled.wait()
