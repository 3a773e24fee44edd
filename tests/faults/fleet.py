"""Fleet: services that die, freeze and leave by a schedule drawn from a seed, and come back."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from anyio import to_thread

from tests.faults.processes import Service

_MODULE = "tests.faults.service"

Fault = Callable[[random.Random], Awaitable[None]]


class Fall(NamedTuple):
    """A service that was killed: which, and when, by the monotonic clock."""

    pid: int
    at: float


@dataclass
class Toll:
    """What a schedule has done so far."""

    kills: list[Fall] = field(default_factory=list)
    freezes: list[float] = field(default_factory=list)
    """Seconds that services were frozen for."""
    exits: list[tuple[int, float]] = field(default_factory=list)
    """How services ended that were asked to, and the seconds that it took."""


class Fleet:
    """Services alike, of one mesh.

    Args:
        url: Of their Redis.
        settings: Of each, as `Service` takes them.
    """

    def __init__(self, url: str, **settings: str | float | int) -> None:
        self._url = url
        self._settings = settings
        self._tasks: tuple[str, ...] = ()
        self.services: list[Service] = []
        self._frozen: list[Service] = []
        self.toll = Toll()

    @property
    def alive(self) -> list[Service]:
        """Services whose process has not ended."""
        return [service for service in self.services if service.returncode is None]

    async def start(self, count: int, *tasks: str, url: str = "", **settings: str | float | int) -> list[Service]:
        """Start services and wait until they work; what they serve and how is kept for those that replace them."""
        self._tasks = tasks
        self._settings |= settings
        self._url = url or self._url
        started = [self.make() for _ in range(count)]
        for service in started:
            await to_thread.run_sync(service.wait_until_ready)
        return started

    def make(self, *, folder: str | None = None, **settings: str | float | int) -> Service:
        """Start one more, and don't wait for it."""
        options = self._settings | settings
        service = Service(self._url, *self._tasks, module=_MODULE, folder=folder, **options)
        self.services.append(service)
        return service

    async def add(self, **settings: str | float | int) -> Service:
        """Start one more, with settings of its own, and wait until it works."""
        service = self.make(folder=None, **settings)
        await to_thread.run_sync(service.wait_until_ready)
        return service

    def end(self) -> None:
        """Make sure that all of them are gone."""
        for service in self.services:
            with contextlib.suppress(ProcessLookupError):
                service.resume()
            service.end()

    # --------------------------------------------------------------------------------------------------- schedules

    @contextlib.asynccontextmanager
    async def under(
        self, fault: Fault, chance: random.Random, pause: tuple[float, float], *, most: int = 1_000_000
    ) -> AsyncIterator[Toll]:
        """Let a fault happen again and again, after pauses drawn from a range, as long as the context lasts.

        Args:
            fault: What happens.
            chance: Draws the pauses, and what the fault leaves open.
            pause: Shortest and longest, in seconds.
            most: Times that it happens.
        """
        schedule = asyncio.create_task(self._repeat(fault, chance, pause, most))
        try:
            yield self.toll
        finally:
            schedule.cancel()
            await asyncio.gather(schedule, return_exceptions=True)

    async def _repeat(self, fault: Fault, chance: random.Random, pause: tuple[float, float], most: int) -> None:
        for _ in range(most):
            await asyncio.sleep(chance.uniform(*pause))
            await fault(chance)

    async def kill_one(self, chance: random.Random) -> None:
        """Kill any of them; another takes its place, as an orchestrator would have it.

        Where most have not begun to work since the last time, because the machine is slow, nothing happens: services
        that never live for a moment would prove nothing.
        """
        ready = [service for service in self.services if service.is_ready]
        if 2 * len(ready) < len(self.alive):
            return
        victim = chance.choice(ready)
        self.toll.kills.append(Fall(victim.pid, time.monotonic()))
        await to_thread.run_sync(victim.kill)
        self.make()

    def freezing(self, least: float, most: float) -> Fault:
        """A fault that takes the processor away from any of them for so many seconds."""

        async def freeze_one(chance: random.Random) -> None:
            victim = chance.choice([service for service in self.alive if service not in self._frozen])
            seconds = chance.uniform(least, most)
            self._frozen.append(victim)
            victim.stop()
            try:
                await asyncio.sleep(seconds)
                self.toll.freezes.append(seconds)
            finally:
                self._frozen.remove(victim)
                victim.resume()

        return freeze_one

    async def restart_all(self, *, grace: float) -> None:
        """Ask one after another to end, as a rolling upgrade does: the next goes when the new one works."""
        for old in self.alive:
            await self.add()
            began = time.monotonic()
            old.terminate()
            code = await to_thread.run_sync(old.wait, grace + 10)
            self.toll.exits.append((code, time.monotonic() - began))

    async def keep(self, count: int) -> None:
        """Replace those that die by themselves, until cancelled."""
        while True:
            for _ in range(count - len(self.alive)):
                self.make()
            await asyncio.sleep(0.05)
