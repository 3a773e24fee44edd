"""Loop: the asyncio task in which an actor works: begun, ended, and begun again if it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from datamesh.supervise.health import WITHIN, Pulse


class Loop:
    """Runs one coroutine function, and knows when it broke.

    Args:
        name: Of the actor.
        run: What it does. It gives its signs of life through `pulse`.
        shard: That it works in, if it does not work for all.
        within: Seconds in which it must get on unless it rests.
        once: It comes to an end by itself.
    """

    def __init__(
        self, name: str, run: Callable[[], Coroutine[Any, Any, None]], *, shard: int | None = None,
        within: float = WITHIN, once: bool = False,
    ) -> None:  # fmt: skip
        self.pulse = Pulse(name, shard=shard, within=within)
        self.pulse.rest()
        self._run = run
        self._once = once
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, or begin again."""
        self.pulse.wake()
        self._task = asyncio.create_task(self._work(), name=f"datamesh-{self.pulse.name}")

    async def _work(self) -> None:
        await self._run()
        if not self._once:
            raise EndedByItself(f"{self.pulse} came to an end")
        self.pulse.beat()
        self.pulse.rest()

    def restart(self) -> None:
        """Begin again after it broke."""
        self.start()

    def problem(self) -> BaseException | None:
        """Why it broke; None while it goes on, and if it was never begun or has been ended."""
        return problem_of(self._task)

    async def close(self) -> None:
        """End it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class EndedByItself(Exception):
    """A loop that should go on for ever has returned."""


def problem_of(task: asyncio.Task[None] | None) -> BaseException | None:
    """Why a task broke; None while it goes on, and if it came to its end."""
    if task is None or not task.done():
        return None
    return asyncio.CancelledError("somebody cancelled it") if task.cancelled() else task.exception()
