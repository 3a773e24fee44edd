"""Order: values back in the order of their origin, whatever order they arrived in."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Generic, TypeAlias, TypeVar

T = TypeVar("T")

Lineage: TypeAlias = tuple[int, ...]
"""Where a value comes from: one index for each fan-out. `(3, 0)` is the first value that the fourth input gave."""


def follows(lineage: Lineage, last: Lineage | None) -> bool:
    """Tell whether no value can exist between two lineages.

    That is certain only for the next value of the same fan-out (`(3, 1)` after `(3, 0)`), and for the very first
    (`last` is None, all indexes zero): how many values another fan-out gives is not known before the stream ends.
    """
    if last is None:
        return not any(lineage)
    if len(lineage) != len(last) or not last:
        return False
    return lineage[-1] == last[-1] + 1 and lineage[:-1] == last[:-1]


class Order(Generic[T]):
    """Sort values by lineage, giving out early what no later arrival can precede.

    Values that follow each other without a gap pass straight through. The others are held until the gap before
    them is filled, or until the stream has ended and `rest` gives them out.

    The lineages of one stream are distinct, and none is the beginning of another: a task gives either one value for
    a value or a fan-out of them. So a value that arrives when its place is passed repeats one that was given out (Redis
    lost writes and the task ran again), and it is left out.

    Args:
        after: Values up to this lineage are left out: they were given out by the iteration that is resumed.
    """

    __slots__ = ("_arrivals", "_heap", "_last")

    def __init__(self, after: Lineage | None = None) -> None:
        self._last = after
        self._heap: list[tuple[Lineage, int, T]] = []
        self._arrivals = 0  # breaks ties, so that values themselves are never compared

    @property
    def held(self) -> int:
        """Number of values that wait for an earlier one."""
        return len(self._heap)

    def add(self, arrived: Iterable[tuple[Lineage, T]]) -> list[tuple[Lineage, T]]:
        """Take values as they arrive and return those whose turn it is, in order."""
        ready: list[tuple[Lineage, T]] = []
        for lineage, value in arrived:
            if not self._heap and follows(lineage, self._last):
                self._last = lineage
                ready.append((lineage, value))
            elif self._last is None or lineage > self._last:
                self._hold(lineage, value)
                self._release(ready)
        return ready

    def rest(self) -> list[tuple[Lineage, T]]:
        """Return what is held, in order: the stream has ended, so the gaps stay gaps."""
        ready: list[tuple[Lineage, T]] = []
        while self._heap:
            self._pop(ready)
        return ready

    def _hold(self, lineage: Lineage, value: T) -> None:
        heapq.heappush(self._heap, (lineage, self._arrivals, value))
        self._arrivals += 1

    def _release(self, ready: list[tuple[Lineage, T]]) -> None:
        while self._heap and (self._heap[0][0] == self._last or follows(self._heap[0][0], self._last)):
            self._pop(ready)

    def _pop(self, ready: list[tuple[Lineage, T]]) -> None:
        lineage, _, value = heapq.heappop(self._heap)
        if lineage != self._last:
            ready.append((lineage, value))
        self._last = lineage
