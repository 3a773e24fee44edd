"""Health: how a service is, told by each of its actors. Asking costs no call to Redis, and any thread may ask."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

WITHIN = 8.0
"""Seconds in which an actor that has something to do gets on; a blocked read of Redis takes half of that."""
BLOCKED = 1.0
"""Seconds without a turn after which an event loop counts as blocked."""

_MOST_ERROR = 500

Clock = Callable[[], float]


class ServiceState(StrEnum):
    """Where a service stands in its life."""

    STARTING = "starting"
    WORKING = "working"
    DRAINING = "draining"
    STOPPED = "stopped"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class ActorHealth:
    """How one actor is.

    Attributes:
        name: Of the actor, such as "intake".
        shard: That it works in; None: it works for all.
        is_healthy: Whether it gets on, or has nothing to do.
        is_resting: Whether it has nothing to do.
        age: Seconds since it last got on, without those in which it had nothing to do.
        within: Seconds from which on `age` is too much.
        restarts: How often it broke and was begun again.
        error: What it last broke with, or an empty text.
    """

    name: str
    shard: int | None
    is_healthy: bool
    is_resting: bool
    age: float
    within: float
    restarts: int
    error: str


@dataclass(frozen=True, slots=True)
class Health:
    """How a service is.

    Attributes:
        state: Where it stands in its life.
        lag: Seconds for which its event loop has not had a turn.
        slots_used: Invocations that run.
        slots_total: Invocations that may run at once.
        hung_threads: Synchronous calls that nobody waits for any more and that still hold a thread.
        actors: How each actor is.
        error: What it broke with for good, or an empty text.
    """

    state: ServiceState
    lag: float = 0.0
    slots_used: int = 0
    slots_total: int = 0
    hung_threads: int = 0
    actors: Sequence[ActorHealth] = ()
    error: str = ""

    @property
    def is_healthy(self) -> bool:
        """Whether it may go on; if not for long, it is better started anew."""
        if self.state in (ServiceState.BROKEN, ServiceState.STOPPED) or self.lag >= BLOCKED:
            return False
        return all(actor.is_healthy for actor in self.actors) and not 0 < self.slots_total <= self.hung_threads

    @property
    def is_ready(self) -> bool:
        """Whether it takes work."""
        return self.state is ServiceState.WORKING and self.is_healthy

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {"healthy": self.is_healthy, "ready": self.is_ready, **dataclasses.asdict(self)}


class Pulse:
    """The signs of life that one actor gives: that it got on, and that it has nothing to do.

    Args:
        name: Of the actor.
        shard: That it works in, if it does not work for all.
        within: Seconds in which it must get on unless it rests.
        clock: Tells seconds.
    """

    def __init__(
        self, name: str, *, shard: int | None = None, within: float = WITHIN, clock: Clock = time.monotonic
    ) -> None:
        self.name = name
        self.shard = shard
        self._within = within
        self._clock = clock
        self._since = clock()
        self._rested: float | None = None
        self._restarts = 0
        self._error = ""

    def __str__(self) -> str:
        return self.name if self.shard is None else f"{self.name} of shard {self.shard}"

    def beat(self) -> None:
        """It got on."""
        self._since = self._clock()
        self._error = ""

    def rest(self) -> None:
        """It has nothing to do, from now on."""
        if self._rested is None:
            self._rested = self._clock()

    def wake(self) -> None:
        """It has something to do; the rest does not count as time in which it did not get on."""
        rested, self._rested = self._rested, None
        if rested is not None:
            self._since += self._clock() - rested

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Have nothing to do while the block lasts."""
        self.rest()
        try:
            yield
        finally:
            self.wake()

    def failed(self, error: BaseException) -> None:
        """It did not get on, and why."""
        # It goes out over HTTP, to people and their terminals.
        text = f"{type(error).__name__}: {error}"[:_MOST_ERROR]
        self._error = text.encode("unicode_escape").decode("ascii")[:_MOST_ERROR]

    def broke(self, error: BaseException) -> None:
        """Its loop has ended; it is unhealthy until it gets on again."""
        self.failed(error)
        self._restarts += 1
        self._rested = None
        self._since = min(self._since, self._clock() - self._within)

    def health(self) -> ActorHealth:
        """How the actor is now."""
        rested, since = self._rested, self._since
        age = max(0.0, (self._clock() if rested is None else rested) - since)
        is_healthy = rested is not None or age < self._within
        return ActorHealth(
            self.name, self.shard, is_healthy, rested is not None, round(age, 3), self._within, self._restarts,
            self._error,
        )  # fmt: skip
