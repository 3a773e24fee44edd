"""RunState and RunStatus: what may be said of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


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
