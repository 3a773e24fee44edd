"""Oversight: sees to it that the actors of a session go on. No actor ends unseen.

What breaks is logged and begun again, with growing pauses. What breaks again and again takes the session with it: a
service that looks alive and does nothing is worse than one that is gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

from datamesh.errors import ServiceBrokenError
from datamesh.supervise.health import Pulse
from datamesh.supervise.loop import problem_of

_log = logging.getLogger("datamesh.oversight")
_LOOK_SECONDS = 0.5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
_WITHIN = 5.0
MOST_RESTARTS = 5
"""How often an actor is begun again within `WINDOW`."""
WINDOW = 60.0
"""Seconds."""


class Actor(Protocol):
    """What is watched over."""

    @property
    def pulse(self) -> Pulse:
        """Its signs of life."""
        ...

    def problem(self) -> BaseException | None:
        """Why it broke; None while it goes on."""
        ...

    def restart(self) -> None:
        """Begin again, with nothing lost of what it had in hand."""
        ...


class Oversight:
    """Watches the actors of one session.

    Args:
        actors: That are watched.
        gave_up: Told once, and why, when an actor cannot be kept going.
    """

    def __init__(self, actors: Iterable[Actor], gave_up: Callable[[ServiceBrokenError], None]) -> None:
        self._watches = [_Watch(actor) for actor in actors]
        self._gave_up = gave_up
        self._pulse = Pulse("oversight", within=_WITHIN)
        self._task: asyncio.Task[None] | None = None

    @property
    def pulses(self) -> list[Pulse]:
        """The signs of life of all that are watched, and its own."""
        return [*(watch.actor.pulse for watch in self._watches), self._pulse]

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="datamesh-oversight")
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            for watch in self._watches:
                watch.look(time.monotonic())
            self._pulse.beat()
            await asyncio.sleep(_LOOK_SECONDS)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """It ends by an error, unless it was closed; nobody watches over it but this."""
        problem = problem_of(task)
        if self._task is None or problem is None:
            return
        self._pulse.broke(problem)
        if not isinstance(problem, ServiceBrokenError):
            _log.error("nobody watches over the actors any more", exc_info=problem)
            problem = ServiceBrokenError(actor=str(self._pulse), problem=repr(problem))
        self._gave_up(problem)


class _Watch:
    """One actor, and how often it broke lately."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self._breaks: deque[float] = deque(maxlen=MOST_RESTARTS + 1)
        self._begin_at: float | None = None

    def look(self, now: float) -> None:
        """Begin the actor again if it broke, when it is time to.

        Raises:
            ServiceBrokenError: It broke too often.
        """
        if self._begin_at is None and (problem := self.actor.problem()) is not None:
            self._begin_at = now + self._pause(now, problem)
        if self._begin_at is not None and now >= self._begin_at:
            self._begin_at = None
            self.actor.restart()

    def _pause(self, now: float, problem: BaseException) -> float:
        pulse = self.actor.pulse
        pulse.broke(problem)
        self._breaks.append(now)
        lately = sum(now - at < WINDOW for at in self._breaks)
        if lately > MOST_RESTARTS:
            _log.critical("%s broke %d times within %g s", pulse, lately, WINDOW, exc_info=problem)
            raise ServiceBrokenError(actor=str(pulse), problem=repr(problem)) from problem
        pause = min(_FIRST_PAUSE * 2.0 ** (lately - 1), _LONGEST_PAUSE)
        _log.error("%s broke and is begun again in %g s", pulse, pause, exc_info=problem)
        return pause
