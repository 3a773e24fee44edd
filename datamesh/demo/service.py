"""A service of the demo: `datamesh worker datamesh.demo.service:supervisor`."""

from __future__ import annotations

import os
import signal
import sys
import threading

from datamesh.demo.documents import count, read, split
from datamesh.demo.tasks import count_words, read_file, split_document
from datamesh.supervise.supervisor import Supervisor

read(read_file)
split(split_document)
count(count_words)


def supervisor() -> Supervisor:
    """Make a service that implements the three tasks."""
    return Supervisor(tasks=[read, split, count])


def child() -> Supervisor:
    """Make a service that ends with the process that started it, however that ends: no service is left behind.

    It watches its standard input, which that process holds open.
    """
    threading.Thread(target=_end_with_parent, name="demo-parent", daemon=True).start()
    return supervisor()


def _end_with_parent() -> None:
    # The descriptor itself: the interpreter waits at its end for a lock that a buffered read would hold.
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
