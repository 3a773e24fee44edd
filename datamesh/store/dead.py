"""DeadStream: the letters of one shard, which are the values that were buried there, and what may be done with them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from datamesh.model.names import is_name
from datamesh.store.frames import PLAIN, Entry, Frame, entries_of
from datamesh.store.protocol import ShardProtocol

_LETTERS_A_CALL = 100
_NOTHING = Frame(0, PLAIN, b"", b"")


class Head(NamedTuple):
    """Whose values a letter carries.

    Attributes:
        run_id: Of the run.
        origin: Token of its start; empty in letters of an earlier version.
        digest: Of its bound plan.
        node: Index of the task in the plan.
        attempt: The last one.
    """

    run_id: str
    origin: str
    digest: str
    node: int
    attempt: int


@dataclass(frozen=True, slots=True)
class Letter:
    """One entry of the stream.

    Attributes:
        entry_id: In this shard.
        head: None if it is not known whose values they were: the entry of the work stream could not be read.
        frame: The values; empty for a task over whole streams, and without a head.
        reason: A packed failure; without a head a text.
        work: Without a head: the work stream that it was in.
        raw: Without a head: what was in it, cut.
    """

    entry_id: str
    head: Head | None
    frame: Frame
    reason: bytes
    work: str = ""
    raw: bytes = b""

    @property
    def time_ms(self) -> int:
        """When it was buried, by the server's clock."""
        return int(self.entry_id.partition("-")[0])


class DeadStream:
    """The stream of one shard."""

    def __init__(self, protocol: ShardProtocol) -> None:
        self._protocol = protocol
        self._key = protocol.keys.dead

    async def newest(self) -> AsyncGenerator[Letter, None]:
        """All letters that there are now, the newest first; those that come meanwhile are not among them."""
        behind = "+"
        while True:
            rows = await self._protocol.command("XREVRANGE", self._key, behind, "-", "COUNT", _LETTERS_A_CALL)
            letters = [_letter(entry) for entry in entries_of(rows)]
            for letter in letters:
                yield letter
            if len(letters) < _LETTERS_A_CALL:
                return
            behind = f"({letters[-1].entry_id}"

    async def find(self, entry_id: str) -> Letter | None:
        """The letter of this id, if there is one."""
        rows = await self._protocol.command("XRANGE", self._key, entry_id, entry_id)
        return _letter(entries_of(rows)[0]) if rows else None

    async def redrive(self, letter: Letter, head: Head) -> str:
        """Bring a letter back into its run; returns OK, ALREADY, GONE or FULL, as the script says it."""
        k = self._protocol.keys
        reply = await self._protocol.run(
            "redrive", [k.dead, k.run(head.run_id), k.windows], [k.plans, k.run_prefix, letter.entry_id]
        )
        return reply[0].decode()  # type: ignore[no-any-return]

    async def drop(self, entry_ids: Sequence[str]) -> int:
        """Forget letters; returns how many of them were there."""
        return int(await self._protocol.command("XDEL", self._key, *entry_ids))


def _letter(entry: Entry) -> Letter:
    fields = entry.fields
    reason = fields.get(b"x", b"")
    try:
        head, frame = _read(entry)
    except (KeyError, ValueError):
        work = fields.get(b"w", b"").decode(errors="replace")
        return Letter(entry.entry_id, None, _NOTHING, reason, work, fields.get(b"raw", b""))
    return Letter(entry.entry_id, head, frame, reason)


def _read(entry: Entry) -> tuple[Head, Frame]:
    fields = entry.fields
    node, count, attempt, flags = fields[b"m"].decode().split(" ")
    run_id, digest = fields[b"r"].decode(), fields[b"p"].decode()
    if not is_name(run_id) or not is_name(digest):
        raise ValueError("that is no run, or no plan")
    head = Head(run_id, fields.get(b"o", b"").decode(), digest, int(node), int(attempt))
    return head, Frame(int(count), flags, fields[b"l"], fields[b"v"])
