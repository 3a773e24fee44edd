"""Watchdog: notices, from a thread, when an event loop gets no turn, and says what blocks it."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback

from datamesh.supervise.health import BLOCKED

_log = logging.getLogger("datamesh.watchdog")
_LOOK_SECONDS = 0.25
_MOST_FRAMES = 40


class Watchdog:
    """Watches the event loop that it is started in."""

    def __init__(self) -> None:
        self._answered = threading.Event()
        self._stopped = threading.Event()
        self._asked: float | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._thread: threading.Thread | None = None

    @property
    def lag(self) -> float:
        """Seconds for which the event loop has not answered by now; 0 if it owes no answer."""
        asked = self._asked
        return 0.0 if asked is None else time.monotonic() - asked

    def start(self) -> None:
        """Begin to watch the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._thread = threading.Thread(target=self._run, name="datamesh-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stopped.set()
        self._answered.set()

    def _run(self) -> None:
        while not self._stopped.wait(_LOOK_SECONDS):
            if not self._ask():
                return
            if not self._is_answered() and not self._stopped.is_set():
                self._report_until_answered()
            self._asked = None

    def _ask(self) -> bool:
        """Have the loop answer with its next turn; False: it is closed."""
        assert self._loop is not None
        self._answered.clear()
        self._asked = time.monotonic()
        try:
            self._loop.call_soon_threadsafe(self._answered.set)
        except RuntimeError:
            self._asked = None
            return False
        return True

    def _is_answered(self) -> bool:
        began = time.monotonic()
        if self._answered.wait(BLOCKED):
            return True
        # A process that was stopped as a whole finds all its deadlines passed at once; that is nobody's blockage.
        return time.monotonic() - began > BLOCKED + _LOOK_SECONDS and self._answered.wait(_LOOK_SECONDS)

    def _report_until_answered(self) -> None:
        asked = self._asked or time.monotonic()
        _log.warning(
            "the event loop has been blocked for %.1f s: nothing else runs meanwhile. Its thread is at:\n%s",
            time.monotonic() - asked, self._stack(),
        )  # fmt: skip
        while not self._answered.wait(BLOCKED):
            if self._loop is None or self._loop.is_closed():
                return
        if not self._stopped.is_set():
            _log.warning("the event loop runs again; it was blocked for %.1f s", time.monotonic() - asked)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        return "".join(traceback.format_stack(frame)[-_MOST_FRAMES:]) if frame else "(it has ended)\n"
