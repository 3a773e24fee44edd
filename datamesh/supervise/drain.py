"""Drain: the end of a session in good order, which nothing may hold up for longer than the grace period and a little.

What cannot be waited for is left behind: a call that swallows its cancellation, a store that does not answer, a cleanup
that hangs. Others take over what was not given back, once the lease is over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Iterable
from typing import Any

from datamesh.supervise.member import Member

_log = logging.getLogger("datamesh.drain")
RELEASE_SECONDS = 0.9
"""Beyond the grace period, to give back what it was too short for."""
CLEAN_SECONDS = 0.4
"""For dependencies of the service to be cleaned up before it leaves the mesh; they may go on after it."""
CLOSE_SECONDS = 0.3
"""To stop the actors."""
LEAVE_SECONDS = 0.5
"""To tell the mesh."""


async def finish(members: Iterable[Member], grace: float) -> None:
    """Take nothing more, finish what has begun within `grace` seconds, and give back the rest."""
    members = list(members)
    until = time.monotonic() + grace
    await within(grace, "to stop taking", *(member.stop_taking() for member in members))
    left = max(0.0, until - time.monotonic())
    await within(left + RELEASE_SECONDS, "to give back what runs", *(member.drain(left) for member in members))


async def within(seconds: float, what: str, *steps: Coroutine[Any, Any, None]) -> None:
    """Wait for steps, but no longer than that: one that is late is cancelled, and not waited for.

    `asyncio.timeout` would wait for what swallows its cancellation.
    """
    tasks = [asyncio.create_task(step, name="datamesh-drain") for step in steps]
    if not tasks:
        return
    ended, late = await asyncio.wait(tasks, timeout=seconds)
    for task in ended:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("it could not be waited %s", what, exc_info=error)
    if late:
        _log.warning("%g s were not enough %s: left behind", seconds, what)
    for task in late:
        task.cancel()
