"""Frames, deliveries and settlements: what scripts take and give, as the rest of the package sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

PLAIN = "-"
WITH_BLOBS = "b"
"""Flag of a frame in which values stand by reference."""


class Frame(NamedTuple):
    """Values of one stream of one run, in order, as they travel."""

    count: int  # type: ignore[assignment]  # what a tuple calls by this name is of no use here
    flags: str
    lineages: bytes
    values: bytes


class Status(StrEnum):
    """What a script says of one item; the words are those of the scripts."""

    OK = "OK"
    ALREADY = "ALREADY"
    FENCED = "FENCED"
    GONE = "GONE"


@dataclass(slots=True)
class Delivery:
    """One entry of a work stream, taken by this member."""

    work: str
    entry_id: str
    run_id: str
    digest: str
    node: int
    attempt: int
    frame: Frame
    mark: bytes
    """How far an earlier attempt came; empty if none did."""
    deaths: int = 0
    """How many members died while they held it."""
    step: int = 0
    """Number of the last advance that was sent for it."""
    origin: str = ""
    """Token of the start that it belongs to: a run id may be used again when its run is forgotten."""

    @property
    def id(self) -> str:
        return f"{self.run_id}/{self.node}/{self.entry_id}"


class Requeue(NamedTuple):
    """Values of a delivery that go back to their work stream, at once or later."""

    frame: Frame
    attempt: int
    mark: bytes = b""
    delay_ms: int = 0


class Burial(NamedTuple):
    """Values that nobody could be made to take, with the reason."""

    frame: Frame
    attempt: int
    reason: bytes


@dataclass(slots=True)
class Settlement:
    """What happens to one delivery: it ends (step 0), or comes forward and stays (step k)."""

    delivery: Delivery
    step: int = 0
    mark: bytes = b""
    done: int = 0
    skipped: int = 0
    failure: bytes = b""
    outputs: list[tuple[int, Frame]] = field(default_factory=list)
    retries: list[Requeue] = field(default_factory=list)
    returned: list[Requeue] = field(default_factory=list)
    burials: list[Burial] = field(default_factory=list)

    def args(self, run_key: str) -> list[str | int | bytes]:
        """The arguments of `settle.lua` for this item."""
        d = self.delivery
        args: list[str | int | bytes] = [
            d.work, d.entry_id, d.frame.count, run_key, d.origin, d.node, self.step,
            self.step - 1 if self.step else d.step, self.mark,
            self.done, self.skipped, sum(b.frame.count for b in self.burials), self.failure,
            len(self.outputs),
        ]  # fmt: skip
        for stream, frame in self.outputs:
            args.append(stream)
            args.extend(frame)
        args.append(len(self.retries))
        for again in self.retries:
            args += (
                again.delay_ms,
                _meta(again.frame, again.attempt),
                again.frame.lineages,
                again.frame.values,
                again.mark,
            )
        args.append(len(self.returned))
        for again in self.returned:
            args += (_meta(again.frame, again.attempt), again.frame.lineages, again.frame.values, again.mark)
        args.append(len(self.burials))
        for dead in self.burials:
            args += (_meta(dead.frame, dead.attempt), dead.frame.lineages, dead.frame.values, dead.reason)
        return args

    @property
    def size_bytes(self) -> int:
        """About what this item adds to a call."""
        return (
            200
            + sum(len(frame.values) + len(frame.lineages) for _, frame in self.outputs)
            + sum(len(again.frame.values) for again in (*self.retries, *self.returned))
        )


def _meta(frame: Frame, attempt: int) -> str:
    return f"{frame.count} {attempt} {frame.flags}"


def delivery_of(work: str, entry_id: bytes, fields: Sequence[bytes]) -> Delivery:
    """Read an entry of a work stream."""
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    node, count, attempt, flags = named[b"m"].decode().split(" ")
    run_id, _, origin = named[b"r"].decode().partition(" ")
    frame = Frame(int(count), flags, named[b"l"], named[b"v"])
    return Delivery(
        work,
        entry_id.decode(),
        run_id,
        named[b"p"].decode(),
        int(node),
        int(attempt),
        frame,
        named.get(b"k", b""),
        origin=origin,
    )


class Entry(NamedTuple):
    """One entry of a stream that is read without a group."""

    entry_id: str
    fields: Mapping[bytes, bytes]


def entries_of(rows: Sequence[tuple[bytes, Sequence[bytes]]]) -> list[Entry]:
    """Read entries as XRANGE and XREAD give them."""
    return [Entry(entry_id.decode(), dict(zip(fields[::2], fields[1::2], strict=True))) for entry_id, fields in rows]


def frame_of(entry: Entry) -> Frame:
    """The frame that an entry of a run stream carries; it may be empty."""
    fields = entry.fields
    return Frame(int(fields[b"n"]), fields[b"f"].decode(), fields[b"l"], fields[b"v"])


def end_of(entry: Entry) -> str:
    """Empty; or, if the stream ends with this entry, "done" or the state in which its run ended."""
    return entry.fields.get(b"e", b"").decode()
