"""Reader and Writer: all that IO asks of a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from datamesh.model.order import Lineage


@dataclass(frozen=True, slots=True)
class Chunk:
    """Values that were published together: one frame as a reader sees it.

    Attributes:
        position: Id of the entry, `<milliseconds>-<sequence>`, larger than those of the entries before it.
        values: Decoded, in order of publication; one or more.
        lineages: Returns the lineage of each value. Called only by those who ask, so it may decode when called.
    """

    position: str
    values: Sequence[Any]
    lineages: Callable[[], Sequence[Lineage]]


class Reader(Protocol):
    """Reads one stream of one run. Keeps no place: any number of iterations share it, and reading takes nothing away.

    Cancelling a call must leave the reader usable.
    """

    async def read(self, after: str) -> Sequence[Chunk]:
        """Wait until there is something after an entry, and return it or the first part of it.

        Args:
            after: Id of an entry, which need not exist; "0" is before the first.

        Returns:
            One chunk or more; none when the stream ended without an error and nothing comes after `after`. The answer
            stays the same when it is asked for again.

        Raises:
            RunError: The run failed, was cancelled or timed out, and nothing comes after `after`.
            StoreError: The store cannot be reached; the same call may be repeated.
        """
        ...

    async def last(self) -> Chunk | None:
        """Return the newest chunk that there is now, without waiting for one; None if there is none."""
        ...

    async def is_complete(self) -> bool:
        """Tell whether the stream has ended, in whatever way."""
        ...


class Writer(Protocol):
    """Writes one stream of one run: an input that was left open."""

    async def write(self, values: Sequence[Any]) -> None:
        """Publish values, in order, all or none."""
        ...

    async def complete(self) -> None:
        """End the stream. Completing it again changes nothing."""
        ...
