"""RunState and RunStatus: what may be said of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class RunState(StrEnum):
    """Where a run stands; the words are those of the scripts."""

    WAITING = "waiting"
    """Recorded; a task of it was never announced by any service."""
    OPEN = "open"
    """Under way."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"

    @property
    def is_final(self) -> bool:
        return self not in (RunState.WAITING, RunState.OPEN)


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """Counts of one task in one run, in values; a task that takes whole streams counts one.

    Attributes:
        task: Name of the node.
        open: Values addressed to it and not yet settled; an input that may still bring some counts one.
        done: Values settled.
        failed: Values whose failure ended the run.
        skipped: Values given up by its policy.
        dead: Values buried.
        retrying: Frames that wait for their next attempt.
        queued: Places it takes of the window: frames in its work stream, taken or not, one for every 32 values.
        backlog: Frames of this run that wait for the window.
        cancelled: What was open when the run ended, and is run no more.
        full: Whether what feeds it waits, because more is open than its high mark.
        high: Values open above which what feeds it is suspended.
        low: Values open at which that goes on.
    """

    task: str
    open: int
    done: int
    failed: int = 0
    skipped: int = 0
    dead: int = 0
    retrying: int = 0
    queued: int = 0
    backlog: int = 0
    cancelled: int = 0
    full: bool = False
    high: int = 0
    low: int = 0


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """Counts of one stream in one run."""

    stream: str
    values: int
    closed: bool


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What is known of a run at one moment.

    Attributes:
        id: Of the run.
        flow: Name of its flow.
        state: Where it stands.
        missing: Tasks that no live supervisor implements; the run waits for them.
        tasks: By name of the node.
        streams: By name.
        started: Seconds since the epoch, by the server's clock.
        ended: The same; None while it goes on.
        error: What ended it, as text; empty if nothing did.
        published_bytes: Of all values in all streams, as they travel.
    """

    id: str
    flow: str
    state: RunState
    missing: tuple[str, ...] = ()
    tasks: Mapping[str, TaskStatus] = field(default_factory=dict)
    streams: Mapping[str, StreamStatus] = field(default_factory=dict)
    started: float = 0.0
    ended: float | None = None
    error: str = ""
    published_bytes: int = 0

    @property
    def skipped(self) -> int:
        """Values of all tasks that were given up by their policy."""
        return sum(task.skipped for task in self.tasks.values())

    @property
    def dead(self) -> int:
        """Values of all tasks that were buried."""
        return sum(task.dead for task in self.tasks.values())


class RunResult(dict[str, list[Any]]):
    """The outputs of a run by name, collected, and how many values did not come to an output.

    Attributes:
        skipped: Values of all tasks that were given up by their policy.
        dead: Values of all tasks that were buried; see `datamesh dead`.
    """

    def __init__(self, outputs: Mapping[str, list[Any]], *, skipped: int = 0, dead: int = 0) -> None:
        super().__init__(outputs)
        self.skipped = skipped
        self.dead = dead


@dataclass(frozen=True, slots=True)
class RunEvent:
    """A fact about a run, for people.

    Attributes:
        kind: "done" (a task has nothing left to do), "closed" (a stream has got its last value), or the state in which
            the run ended.
        subject: The task, the stream, or the run.
        time: Seconds since the epoch, by the server's clock.
    """

    kind: str
    subject: str
    time: float
