"""Frames, deliveries and settlements: what scripts take and give, as the rest of the package sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import msgpack

from datamesh.model.names import is_name

VERSION = 1
"""Of the entries in work streams; those of a later one have a field `V`, and are left to services that know it."""
MOST_VALUES = 256
"""In a frame."""
_KEPT_BYTES, _KEPT_FIELDS = 4096, 16

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
    UNKNOWN = "UNKNOWN"


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
    problem: str = ""
    """Why the entry cannot be run, as it was read; then only `work`, `entry_id` and `raw` say anything."""
    raw: bytes = b""
    """What an entry with a problem holds: its fields in MessagePack, cut."""
    is_newer: bool = False
    """Whether it was written by a later version, whose services may understand it."""

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
    mark: bytes = b""
    """What it has published, so that it is not published again when the value is sent again."""


@dataclass(slots=True)
class Settlement:
    """What happens to one delivery: it ends (step 0), or comes forward and stays (step k)."""

    delivery: Delivery
    step: int = 0
    mark: bytes = b""
    done: int = 0
    skipped: int = 0
    fan_out: int = 0
    """Most values that one invocation has given so far."""
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
            self.done, self.skipped, sum(max(1, b.frame.count) for b in self.burials), self.fan_out, self.failure,
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
            args += (_meta(dead.frame, dead.attempt), dead.frame.lineages, dead.frame.values, dead.reason, dead.mark)
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
    """Read an entry of a work stream; one that cannot be read is told by its `problem`."""
    try:
        named = dict(zip(fields[::2], fields[1::2], strict=True))
        if (version := int(named.get(b"V", b"1"))) > VERSION:
            return _unreadable(work, entry_id, fields, f"it has version {version}, and {VERSION} is known", newer=True)
        return _read(work, entry_id, named)
    except (KeyError, ValueError) as error:
        return _unreadable(work, entry_id, fields, f"it cannot be read: {type(error).__name__}: {error}")


def _read(work: str, entry_id: bytes, named: Mapping[bytes, bytes]) -> Delivery:
    node, count, attempt, flags = named[b"m"].decode().split(" ")
    run_id, _, origin = named[b"r"].decode().partition(" ")
    frame = Frame(int(count), flags, named[b"l"], named[b"v"])
    makes_sense = is_name(run_id) and flags in (PLAIN, WITH_BLOBS) and int(node) >= 0 and int(attempt) >= 1
    if not makes_sense or not 0 <= frame.count <= MOST_VALUES:
        raise ValueError(f"the head {named[b'r'][:80]!r}, {named[b'm'][:80]!r} makes no sense")
    mark = named.get(b"k", b"")
    return Delivery(
        work, entry_id.decode(), run_id, named[b"p"].decode(), int(node), int(attempt), frame, mark, origin=origin
    )


def _unreadable(
    work: str, entry_id: bytes, fields: Sequence[bytes], problem: str, *, newer: bool = False
) -> Delivery:  # fmt: skip
    empty = Frame(0, PLAIN, b"", b"")
    raw = raw_of(fields)
    return Delivery(work, entry_id.decode(), "", "", 0, 1, empty, b"", problem=problem, raw=raw, is_newer=newer)


def raw_of(fields: Sequence[bytes]) -> bytes:
    """What is kept of an entry that is buried as it is: its fields in MessagePack, cut."""
    return bytes(msgpack.packb([bytes(field[:_KEPT_BYTES]) for field in fields[:_KEPT_FIELDS]]))


def raw_fields(delivery: Delivery) -> bytes:
    """The same of an entry that could be read."""
    frame = delivery.frame
    head = f"{delivery.run_id} {delivery.origin}", f"{delivery.node} {_meta(frame, delivery.attempt)}", delivery.digest
    run, meta, digest = (text.encode() for text in head)
    return raw_of([b"r", run, b"m", meta, b"p", digest, b"l", frame.lineages, b"v", frame.values])


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
