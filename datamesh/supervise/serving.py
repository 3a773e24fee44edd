"""Serving: a service at work until it is told to end, or cannot go on."""

from __future__ import annotations

import asyncio
import logging
from types import TracebackType
from typing import Any, Protocol

from datamesh.settings import Settings
from datamesh.supervise.session import Session
from datamesh.supervise.signals import Signals

_log = logging.getLogger("datamesh.supervisor")


class Service(Protocol):
    """What works while its block lasts: a supervisor."""

    settings: Settings

    async def session(self) -> Session:
        """The work in this event loop."""
        ...

    async def __aenter__(self) -> Any: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


async def serve(service: Service, signals: Signals) -> None:
    """Work until the first signal, then drain.

    Raises:
        ServiceBrokenError: An actor broke again and again.
        StoreUnavailableError: Redis cannot be reached.
    """
    async with service:
        session = await service.session()
        signalled = asyncio.create_task(signals.first(), name="datamesh-signals")
        try:
            await asyncio.wait((signalled, session.broken), return_when=asyncio.FIRST_COMPLETED)
        finally:
            signalled.cancel()
        if session.broken.done():
            raise session.broken.result()
        _log.info("draining for at most %g s", service.settings.grace)
