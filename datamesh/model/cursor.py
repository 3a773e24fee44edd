"""StreamCursor and Position: where an iteration over a stream begins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from datamesh.errors import ConfigurationError
from datamesh.model.order import Lineage

_LARGEST = 2**64 - 1  # both halves of an entry id are unsigned 64-bit numbers
_POSITION = re.compile(r"([0-9]{1,20}(?:-[0-9]{1,20})?):([0-9]{1,9})(?:@((?:[0-9]{1,20}(?:\.[0-9]{1,20})*)?))?")


class StreamCursor(StrEnum):
    """Where an iteration begins, if not at a position given out earlier."""

    FROM_FIRST = "from_first"
    """The first value of the stream: every reader sees everything."""
    FROM_LATEST = "from_latest"
    """The newest value there is when the iteration begins, or the first one if there is none yet."""
    ONLY_NEW = "only_new"
    """Values published after the iteration began: when its first value is asked for, or at its `begin()`."""


def entry_key(entry: str) -> tuple[int, int]:
    """Return the two numbers of an entry id `<milliseconds>-<sequence>`, by which ids are ordered."""
    milliseconds, _, sequence = entry.partition("-")
    return int(milliseconds), int(sequence or 0)


def entry_before(entry: str) -> str:
    """Return the largest id below `entry`: reading after it gives `entry` itself again."""
    milliseconds, sequence = entry_key(entry)
    if sequence:
        return f"{milliseconds}-{sequence - 1}"
    return f"{milliseconds - 1}-{_LARGEST}" if milliseconds else "0"


@dataclass(frozen=True, slots=True)
class Position:
    """A place between two values of a stream, written `<entry>:<taken>`, or `<entry>:<taken>@<lineage>` when ordered.

    Attributes:
        entry: Id of an entry of the stream, "0" before the first.
        taken: How many values of that entry lie before the place.
        lineage: Set by an ordered iteration. What lies before the place is then: everything up to `entry` and
            `taken`, and of what comes after, each value whose lineage is not greater than this.
    """

    entry: str = "0"
    taken: int = 0
    lineage: Lineage | None = None

    def __str__(self) -> str:
        place = f"{self.entry}:{self.taken}"
        return place if self.lineage is None else f"{place}@{'.'.join(map(str, self.lineage))}"

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Return the position that `text` spells, None if it spells none."""
        match = _POSITION.fullmatch(text)
        if match is None or max(entry_key(match[1])) > _LARGEST:
            return None
        lineage = None if match[3] is None else tuple(int(step) for step in match[3].split(".") if step)
        return cls(match[1], int(match[2]), lineage)


START = str(Position())
"""The position before the first value of any stream."""


def starting_at(cursor: StreamCursor | str, *, ordered: bool) -> StreamCursor | Position:
    """Return what a cursor means; `FROM_FIRST` is a position like others.

    Raises:
        ConfigurationError: It is neither a `StreamCursor` nor a position, or it is a position of an ordered iteration
            and this one is not ordered.
    """
    if cursor == StreamCursor.FROM_FIRST:
        return Position()
    if cursor in (StreamCursor.FROM_LATEST, StreamCursor.ONLY_NEW):
        return StreamCursor(cursor)
    position = Position.parse(cursor) if isinstance(cursor, str) else None
    if position is None:
        accepted = ", ".join(f"StreamCursor.{member.name}" for member in StreamCursor)
        raise ConfigurationError(
            f"{cursor!r} is no place in a stream: pass {accepted}, or a position that an iteration gave out, "
            f"`io.position`, such as {START!r}"
        )
    if position.lineage is not None and not ordered:
        raise ConfigurationError(
            f"position {cursor!r} was given out by an ordered iteration: pass `ordered=True` to resume it"
        )
    return position
