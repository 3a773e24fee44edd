"""Marked: what the mark of a delivery says: how far earlier attempts came, and what became of those who made them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgpack

from datamesh.errors import TamperedDataError
from datamesh.store.frames import Delivery


class Line(NamedTuple):
    """What an invocation has published to one output.

    Attributes:
        sent: Values in all.
        digest: Of those after the last checkpoint.
        start: Values before the last checkpoint; a repetition begins behind them.
    """

    sent: int
    digest: str
    start: int = 0


@dataclass(frozen=True, slots=True)
class Emitted:
    """How far one invocation has come.

    Attributes:
        lines: By output.
        state: What it gave to its last checkpoint, encoded; None without one.
    """

    lines: Mapping[str, Line] = field(default_factory=dict)
    state: bytes | None = None


@dataclass(frozen=True, slots=True)
class Marked:
    """What is kept with a delivery between two settlements.

    Attributes:
        left: Values of the frame that have not ended, by index.
        emitted: By index of the value; those that have published something or have a checkpoint.
        seen: How often holders of the entry had died when this was written.
        carried: Deaths until then that no single value is to blame for.
        charged: Deaths until then that a value is to blame for, by index.
        begun: Index of the value that ran alone: whoever has died since has died of it. -1: none did.
    """

    left: Sequence[int]
    emitted: Mapping[int, Emitted] = field(default_factory=dict)
    seen: int = 0
    carried: int = 0
    charged: Mapping[int, int] = field(default_factory=dict)
    begun: int = -1

    @classmethod
    def read(cls, delivery: Delivery) -> Marked:
        """Read the mark of a delivery; without one, everything is left.

        Raises:
            TamperedDataError: It cannot be read.
        """
        most = max(1, delivery.frame.count)
        if not delivery.mark:
            return cls(range(most), carried=delivery.deaths, seen=delivery.deaths)
        try:
            left, emitted, seen, carried, charged, begun = msgpack.unpackb(delivery.mark, strict_map_key=False)
            if not all(0 <= index < most for index in (*left, *emitted, *charged)):
                raise ValueError("it names values that the frame does not have")
            found = cls(left, {i: _emitted(row) for i, row in emitted.items()}, seen, carried, charged, begun)
        except (ValueError, TypeError, AttributeError) as error:
            raise TamperedDataError(where=f"mark of delivery {delivery.id}", problem=str(error)) from error
        return found._blame(delivery.deaths)

    def _blame(self, deaths: int) -> Marked:
        """Account for those who have died since."""
        fresh, charged = max(0, deaths - self.seen), dict(self.charged)
        if fresh and self.begun >= 0:
            charged[self.begun] = charged.get(self.begun, 0) + 1
            fresh -= 1
        return Marked(self.left, self.emitted, deaths, self.carried + fresh, charged)

    def pack(self) -> bytes:
        emitted = {index: [one.lines, one.state] for index, one in self.emitted.items()}
        row = [list(self.left), emitted, self.seen, self.carried, self.charged, self.begun]
        return bytes(msgpack.packb(row))


def _emitted(row: Sequence[Mapping[str, Sequence[int | str]] | bytes | None]) -> Emitted:
    lines, state = row
    if not isinstance(lines, Mapping) or not isinstance(state, bytes | None):
        raise ValueError("it is not in the form of a mark")
    return Emitted({name: Line(int(n), str(digest), int(start)) for name, (n, digest, start) in lines.items()}, state)
