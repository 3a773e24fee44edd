"""The guardian: parent of an embedded server, which ends it when the last process that uses it is gone.

A program of its own, without a single import of datamesh, so that it starts in some 15 ms and stays at 8 MB:

    python -I -S guardian.py <directory> <mesh> <descriptor> <data directory> <command of the server...>

The descriptor holds the lock `<mesh>.guardian`, inherited, so that there is no moment in which two servers may be
started. The data directory is empty for a server that keeps nothing on disk. Standard output goes to the process that
waits for the server, and tells it by closing that there will be none; standard error goes to the log.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from types import FrameType

_GRACE = 1.0
"""Seconds the server has to end by itself. Killing it then loses nothing: it writes before it answers."""


class _ServerEnded(Exception):
    """The server ended though somebody still uses it."""


def main(directory: str, mesh: str, descriptor: str, data_directory: str, *command: str) -> None:
    """Start the server, outlast its owners, end it, remove its files."""
    if os.fork():
        # The starter is left without a child: nothing for it to reap, nothing to find for who kills its process tree.
        os._exit(0)
    guard = int(descriptor)
    os.set_inheritable(guard, False)
    os.umask(0o077)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a thread that starts us may have blocked SIGCHLD
    _keep_cleaners_out(directory)
    if data_directory:
        _claim(data_directory)
    try:
        _guard(os.path.join(directory, mesh), command)
    finally:
        # A child that the starter forked while it held the descriptor too must not pass for a guardian.
        fcntl.flock(guard, fcntl.LOCK_UN)


def _guard(place: str, command: tuple[str, ...]) -> None:
    owners = os.open(f"{place}.owners", os.O_RDWR)
    start = os.open(f"{place}.lock", os.O_RDWR)
    try:
        signal.signal(signal.SIGCHLD, _on_child)
        server = _start(command)
        _outlast(owners, start)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    except _ServerEnded:
        # The files stay: the lock needed to remove them may be held by a process that waits for just this end.
        return
    _end(server)
    for ending in ("sock", "log", "owners", "guardian", "lock"):
        if os.path.lexists(f"{place}.{ending}"):
            os.unlink(f"{place}.{ending}")


def _outlast(owners: int, start: int) -> None:
    """Return, holding both locks, when nobody uses the server and nobody is about to."""
    while True:
        fcntl.flock(owners, fcntl.LOCK_EX)  # granted when the last owner is gone, however it went
        fcntl.flock(owners, fcntl.LOCK_UN)  # who joins takes the two locks in the other order
        fcntl.flock(start, fcntl.LOCK_EX)
        try:
            return fcntl.flock(owners, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fcntl.flock(start, fcntl.LOCK_UN)


def _start(command: tuple[str, ...]) -> int:
    guardian = os.getpid()
    server = os.fork()
    if server:
        return server
    try:
        _die_with(guardian)
        os.dup2(2, 1)
        os.execv(command[0], command)
    except BaseException as error:
        os.write(2, f"{command[0]} cannot be run: {error}\n".encode())
    os._exit(127)


def _die_with(guardian: int) -> None:
    """Have the kernel kill this process when the guardian dies; without Linux, the next start ends the orphan."""
    if sys.platform != "linux":
        return
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL))
    if os.getppid() != guardian:
        os._exit(127)  # it died before the kernel was told


def _end(server: int) -> None:
    os.kill(server, signal.SIGTERM)
    end = time.monotonic() + _GRACE
    while os.waitpid(server, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(server, signal.SIGKILL)
            os.waitpid(server, 0)
            return
        time.sleep(0.005)


def _keep_cleaners_out(directory: str) -> None:
    # systemd-tmpfiles removes what is old in /tmp, locks in use included, but nothing from a directory that is locked.
    fcntl.flock(os.open(directory, os.O_RDONLY), fcntl.LOCK_SH)


def _claim(data_directory: str) -> None:
    """Two servers on one data directory, as after a change of XDG_RUNTIME_DIR, would ruin it."""
    descriptor = os.open(data_directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another server, with its socket in another directory, already keeps its keys in {data_directory}")
    os.set_inheritable(descriptor, True)  # the claim is the server's: it holds until that has ended too


def _on_child(signum: int, frame: FrameType | None) -> None:
    # The signal also comes when the server is stopped or goes on, as under a debugger.
    if os.waitpid(-1, os.WNOHANG) != (0, 0):
        raise _ServerEnded


if __name__ == "__main__":
    main(*sys.argv[1:])
