"""Suspicion: which values of a delivery its holders may have died of.

When a service dies, anything that it ran may have killed it, and most of it has not. So nothing is held against a value
at first. After two deaths the values of a delivery run one after another, in a child process or else under a mark that
says which of them has begun: who dies then has died of that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from datamesh.errors import ServiceLostError
from datamesh.model.policies import Retry
from datamesh.supervise.marked import Emitted, Marked
from datamesh.supervise.served import Served

_ALONE_AFTER = 2
"""Deaths of holders after which values run alone."""
_STREAM_FACTOR = 10
"""A function over a whole stream lives through so many more deaths that others cause."""
_NO_RETRY = Retry()


class Suspicion:
    """Deaths of the holders of one delivery."""

    def __init__(self, marked: Marked, served: Served) -> None:
        self.carried = marked.carried
        """Deaths that no single value is to blame for."""
        self._charged = dict(marked.charged)
        self._begun = -1
        self._task = served.binding.task.name
        self._most = (served.binding.options.retry or _NO_RETRY).deaths

    @property
    def runs_alone(self) -> bool:
        """Whether so many have died that the values run alone."""
        return self.carried >= max(1, min(_ALONE_AFTER, self._most - 1))

    @property
    def is_hopeless(self) -> bool:
        """Whether a function over whole streams is given up."""
        return self.carried >= _STREAM_FACTOR * self._most

    def is_lost(self, index: int) -> bool:
        """Whether no more processes may die of a value."""
        return self._charged.get(index, 0) > 0 and self.deaths(index) >= self._most

    def deaths(self, index: int) -> int:
        """How many have died while they ran a value, as far as is known."""
        return self.carried + self._charged.get(index, 0)

    def begin(self, index: int) -> None:
        """A value runs alone from now on: with the next mark, whoever dies has died of it."""
        self._begun = index

    def charge(self, index: int) -> None:
        """A process that ran only this value has died."""
        self._charged[index] = self._charged.get(index, 0) + 1

    def forget(self) -> None:
        """The delivery came forward: its holders have not died of it."""
        self.carried = 0

    def lost(self, index: int) -> ServiceLostError:
        """Why a value is given up."""
        return ServiceLostError(task=self._task, deaths=self.deaths(index))

    def marked(self, left: Iterable[int], emitted: Mapping[int, Emitted], seen: int) -> Marked:
        """What is kept with the delivery, of which `seen` holders have died so far."""
        left, begun = list(left), self._begun
        self._begun = -1
        charged = {index: n for index, n in self._charged.items() if index in left}
        return Marked(left, emitted, seen, self.carried, charged, begun)

    def mark(self, indexes: Sequence[int]) -> bytes:
        """What is kept with values that go back as a delivery of their own; empty if nothing is held against them."""
        charged = {place: n for place, index in enumerate(indexes) if (n := self._charged.get(index, 0))}
        if not self.carried and not charged:
            return b""
        return Marked(range(len(indexes)), carried=self.carried, charged=charged).pack()
