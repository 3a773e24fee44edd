"""Ending: the end of a process that nothing may hold up, be it a thread that hangs or a store that does not answer."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from typing import NoReturn

_log = logging.getLogger("datamesh.worker")
_LAST_WORDS_SECONDS = 0.5


class Ending:
    """Ends the process from a thread, if it does not end by itself in time."""

    def __init__(self) -> None:
        self._at = float("inf")
        self._code = 0
        self._changed = threading.Event()
        # Begun early, because a function that a signal calls had better start no thread.
        threading.Thread(target=self._wait, name="datamesh-ending", daemon=True).start()

    def within(self, seconds: float, *, code: int = 0) -> None:
        """Have the process end within that time at the latest; the earliest of all calls holds, and the last code."""
        self._at = min(self._at, time.monotonic() + seconds)
        self._code = code
        self._changed.set()

    def _wait(self) -> None:
        while True:
            self._changed.clear()
            left = self._at - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(min(left, threading.TIMEOUT_MAX))
        self._exit()

    def leave(self) -> NoReturn:
        """End the process now, after what was registered for its exit, but without waiting for threads."""
        atexit._run_exitfuncs()
        self._leave()

    def _exit(self) -> None:
        # Not even the log may hold it up.
        last = threading.Timer(_LAST_WORDS_SECONDS, os._exit, (self._code,))
        last.daemon = True
        last.start()
        names = sorted(t.name for t in threading.enumerate() if not t.daemon and t is not threading.main_thread())
        _log.warning("ended by force; what still ran is left behind: %s", ", ".join(names) or "the event loop")
        self._leave()

    def _leave(self) -> NoReturn:
        for lines in logging.getLogger().handlers:
            lines.flush()
        sys.stdout.flush()
        sys.stderr.flush()
        # The interpreter would wait for every thread, and a thread cannot be stopped.
        os._exit(self._code)
