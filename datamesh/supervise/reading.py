"""Reading: what all readers of a shard have in common, as an actor that is watched over."""

from __future__ import annotations

from datamesh.store.store import ShardStore
from datamesh.supervise.health import Pulse
from datamesh.supervise.loop import problem_of


class Reading:
    """The loop in which the readers of one shard wait. It rests: that the store answers, others tell."""

    def __init__(self, shard: ShardStore) -> None:
        self.pulse = Pulse("readers", shard=shard.index)
        self.pulse.rest()
        self._tails = shard.tails

    def problem(self) -> BaseException | None:
        """Why nobody reads any more for those who wait."""
        return problem_of(self._tails.reading)

    def restart(self) -> None:
        """Read on."""
        self._tails.read_on()
        self.pulse.beat()
        self.pulse.rest()
