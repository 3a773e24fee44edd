"""File locks that the kernel drops when their holder dies, waited for with a deadline."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where the embedded server is refused before any lock is tried
    fcntl = None  # type: ignore[assignment]

_PAUSE = 0.003
"""Seconds between two tries: what is waited for takes milliseconds."""


class Deadline:
    """A point in time, by this process's monotonic clock, and what is being waited for until then."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        return max(0.0, self._end - time.monotonic())

    def pause(self, waiting_for: str) -> None:
        """Sleep a moment.

        Raises:
            TimeoutError: The deadline is over.
        """
        if not self.remaining:
            raise TimeoutError(f"waited {self._seconds:g} s for {waiting_for}")
        time.sleep(min(_PAUSE, self.remaining))


@contextmanager
def exclusive(path: Path, deadline: Deadline, waiting_for: str) -> Iterator[None]:
    """Hold the lock file at `path` alone, whoever else removes or remakes it meanwhile."""
    descriptor = _locked(path, fcntl.LOCK_EX, deadline, waiting_for)
    while not _is_at(path, descriptor):  # its last holder removed it: this would be a lock that nobody else sees
        os.close(descriptor)
        descriptor = _locked(path, fcntl.LOCK_EX, deadline, waiting_for)
    try:
        yield
    finally:
        # Unlocking explicitly also frees it from a child that another thread forked meanwhile; closing alone would not.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def share(path: Path, deadline: Deadline, waiting_for: str) -> int:
    """Hold the lock file at `path` with others, until the descriptor returned is closed or the process ends."""
    return _locked(path, fcntl.LOCK_SH, deadline, waiting_for)


def try_exclusive(path: Path) -> int | None:
    """Return a descriptor that holds the lock file at `path` alone, or None if somebody else holds it."""
    descriptor = _open(path)
    if _try(descriptor, fcntl.LOCK_EX):
        return descriptor
    os.close(descriptor)
    return None


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)


def _locked(path: Path, operation: int, deadline: Deadline, waiting_for: str) -> int:
    descriptor = _open(path)
    try:
        while not _try(descriptor, operation):
            deadline.pause(waiting_for)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _try(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False
