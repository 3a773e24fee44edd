"""Chaos points: places before and after a call to Redis, at which a process is killed.

A point is named by its side, its command and how often that has come by: `after settle 3` is when the third settlement
of the process was answered. Named like this, and not by a running number, points are the same in every repetition,
whatever the heartbeat does meanwhile.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from typing import Any

from datamesh.store.link import Link
from datamesh.store.script import SCRIPTS

_NAMES = {script.digest: name for name, script in SCRIPTS.items()}
_lock = threading.Lock()


def install(order: str) -> None:
    """Do as ordered: `kill:<point>` dies there, `record:<path>` appends all points to a file; nothing if empty."""
    kind, _, argument = order.partition(":")
    if not kind:
        return
    assert kind in ("kill", "record"), f"no such order: {order}"
    seen: Counter[tuple[str, str]] = Counter()
    file = os.open(argument, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if kind == "record" else -1

    def met(side: str, args: tuple[Any, ...]) -> None:
        name = command_of(args)
        with _lock:
            seen[side, name] += 1
            point = f"{side} {name} {seen[side, name]}"
        if kind == "record":
            os.write(file, f"{point}\n".encode())
        elif point == argument:
            os.kill(os.getpid(), signal.SIGKILL)

    Link.chaos = met


def command_of(args: tuple[Any, ...]) -> str:
    """Name a command: scripts by their names, others as they are."""
    if str(args[0]) in ("EVALSHA", "EVAL"):
        return _NAMES.get(str(args[1]), "script")
    return "-".join(str(arg) for arg in args[:2]) if args[0] in ("CLIENT",) else str(args[0])
