"""The ledger: what functions say that they ran, and what readers say that came out, compared at the end.

Functions in other processes append a line for each execution to one file; `O_APPEND` keeps lines whole. Readers keep
what they read. Neither trusts the other, nor the counters of the mesh.
"""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

VARIABLE = "DATAMESH_TEST_LEDGER"


class Line(NamedTuple):
    """One execution of a function."""

    task: str
    id: int
    attempt: int
    pid: int
    at: float
    """Seconds of the monotonic clock, which all processes of a machine share."""


class Pen:
    """What functions write with; without a file it writes nothing."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path or os.environ.get(VARIABLE)
        self._file: int | None = None
        self._pid = 0

    def note(self, task: str, id: int, attempt: int = 1) -> None:
        """Say that an execution begins."""
        if self._path is None:
            return
        if self._file is None or self._pid != os.getpid():
            self._pid = os.getpid()
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._file, f"{task} {id} {attempt} {self._pid} {time.monotonic_ns()}\n".encode())


class Ledger:
    """What functions wrote.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def lines(self, task: str = "") -> Iterator[Line]:
        """Yield executions in the order in which they were written; of one task, or of all."""
        with self.path.open() as file:
            for text in file:
                name, id, attempt, pid, at = text.split()
                if task in ("", name):
                    yield Line(name, int(id), int(attempt), int(pid), int(at) / 1e9)

    def executions(self, task: str = "") -> Counter[tuple[str, int]]:
        """Count executions by task and id."""
        return Counter((line.task, line.id) for line in self.lines(task))

    def times(self, task: str) -> dict[int, list[float]]:
        """List when each id was executed."""
        found: dict[int, list[float]] = defaultdict(list)
        for line in self.lines(task):
            found[line.id].append(line.at)
        return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the values of one stream.

    Attributes:
        lost: Expected and never read.
        doubled: Read more than once.
        phantom: Read, and not expected.
        early: Not there when the stream ended, and there later.
        unfinished: Values of tasks that are still open.
        unheard: Expected ids for which no execution was noted: what came out was never run.
    """

    lost: int
    doubled: int
    phantom: int
    early: int
    unfinished: int = 0
    unheard: int = 0
    example: str = ""

    @property
    def wrong(self) -> int:
        """All of it together."""
        return self.lost + self.doubled + self.phantom + self.early + self.unfinished + self.unheard


def check(
    expected: Iterable[Hashable], first: Sequence[Hashable], again: Sequence[Hashable], *, unfinished: int = 0,
    ran: Mapping[int, int] | None = None, wanted: Iterable[int] = (),
) -> Verdict:  # fmt: skip
    """Compare what should have come out with what did.

    Args:
        expected: Values of the stream.
        first: What was read while it was written, until its end.
        again: The same stream, read once more when everything has come to rest.
        unfinished: Values that are still open.
        ran: Executions by id, from the functions' side.
        wanted: Ids that have to be among them.
    """
    due, seen, later = Counter(expected), Counter(first), Counter(again)
    missing = due - later
    extra = later - due
    doubled = Counter({value: count for value, count in extra.items() if value in due})
    doubled_before = Counter({value: count for value, count in (seen - due).items() if value in due})
    unheard = [id for id in wanted if not ran or not ran.get(id)] if ran is not None else []
    examples = (("lost", missing), ("extra", extra), ("early", later - seen), ("unheard", unheard))
    return Verdict(
        lost=missing.total(),
        doubled=max(doubled.total(), doubled_before.total()),
        phantom=sum(count for value, count in (later | seen).items() if value not in due),
        early=(later - seen).total(),
        unfinished=unfinished,
        unheard=len(unheard),
        example="; ".join(f"{name}: {list(some)[:5]}" for name, some in examples if some),
    )
