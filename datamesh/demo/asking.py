"""Asking: one run of the document flow, read while it is made."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from datamesh.demo.documents import Counted, Finished, Skipped, documents_flow
from datamesh.demo.search import Index
from datamesh.errors import StoreError
from datamesh.model.values import IOVal
from datamesh.supervise.flow_run import FlowRun
from datamesh.supervise.supervisor import Supervisor

_LOOK_EVERY = 3.0
"""Seconds."""


@dataclass(slots=True)
class Reading:
    """What has arrived so far.

    Attributes:
        files: How many there are.
        index: Of the passages that arrived.
        begun: When the run was started, by the monotonic clock.
        first: Seconds until its first value arrived; None until then.
        seconds: From its start to its end, or until now.
        read: Files that were read and split.
        passages: That those files have; some may still be under way.
        size_bytes: Of those files.
        skipped: Files that could not be read, and why.
        handled: Values by service and task.
    """

    files: int
    index: Index = field(default_factory=Index)
    begun: float = field(default_factory=time.monotonic)
    first: float | None = None
    seconds: float = 0.0
    read: int = 0
    passages: int = 0
    size_bytes: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    handled: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def values(self) -> int:
        """How many values the services have handled, of all three tasks."""
        return sum(count.total() for count in self.handled.values())

    @property
    def rate(self) -> float:
        """Values per second, from the start of the run."""
        return self.values / self.seconds if self.seconds else 0.0

    def add(self, value: Counted | Finished | Skipped) -> None:
        """Take a value of any of the outputs."""
        self.seconds = time.monotonic() - self.begun
        if self.first is None:
            self.first = self.seconds
        match value:
            case Counted():
                self.index.add(value.path, value.line, value.text, value.words)
                self._tell(value.counted_by, "count")
            case Finished():
                self.read += 1
                self.passages += value.passages
                self.size_bytes += value.size_bytes
                self._tell(value.read_by, "read")
                self._tell(value.split_by, "split")
            case Skipped():
                self.skipped.append(value)
                self._tell(value.read_by, "read")

    def _tell(self, service: str, task: str) -> None:
        self.handled.setdefault(service, Counter())[task] += 1


async def read_all(
    supervisor: Supervisor, files: Sequence[str], *, show: Callable[[Reading], None],
    miss: Callable[[Sequence[str]], None], fail: Callable[[], Coroutine[Any, Any, None]],
) -> Reading:  # fmt: skip
    """Have the services of the mesh read files, and take the results while they are made.

    Args:
        supervisor: Of the mesh.
        files: Absolute paths, as the services see them.
        show: Called with each value.
        miss: Called now and then as long as nothing has arrived, with tasks that no service implements.
        fail: Waits, and raises when there is no point in waiting any longer.

    Raises:
        RunError: The run did not end well.
    """
    reading = Reading(len(files))
    files = [path for path in files if _is_text(path, reading)]
    run = await supervisor.start_flow(documents_flow(), [IOVal("path", path) for path in files])
    watch = asyncio.create_task(fail(), name="demo-watch")
    look = asyncio.create_task(_look(run, reading, miss), name="demo-look")
    work = asyncio.create_task(_take(run, reading, show), name="demo-reading")
    try:
        await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
        await (work if work.done() else watch)
    finally:
        for task in (watch, look, work):
            task.cancel()
        await asyncio.gather(watch, look, work, return_exceptions=True)
        await _leave(run)
    return reading


def _is_text(path: str, reading: Reading) -> bool:
    """Names of files are bytes, and values are text: a name that is none is skipped here."""
    shown = path.encode(errors="replace").decode()
    if shown != path:
        reading.skipped.append(Skipped(shown, "has a name that is not UTF-8", ""))
    return shown == path


async def _take(run: FlowRun, reading: Reading, show: Callable[[Reading], None]) -> None:
    async with aclosing(run["counted"].as_available(run["finished"], run["skipped"])) as values:
        async for value in values:
            reading.add(value)
            show(reading)


async def _look(run: FlowRun, reading: Reading, miss: Callable[[Sequence[str]], None]) -> None:
    while reading.first is None:
        await asyncio.sleep(_LOOK_EVERY)
        missing = (await run.status()).missing
        if missing and reading.first is None:
            miss(missing)


async def _leave(run: FlowRun) -> None:
    """Nobody reads it any more: what is left of it, if anything, need not be done."""
    try:
        await run.cancel()
    except StoreError:
        return
