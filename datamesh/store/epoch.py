"""Epoch: tells that a shard has lost what it had, though its server answers as if nothing had happened.

A random text is kept in the shard from its first use on. A server that was emptied, or that came back without its
data, has none, or has the one that somebody else wrote since.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable

from datamesh.errors import DataLossError, DatameshError, RunError, UnknownRunError
from datamesh.store.protocol import ShardProtocol

_log = logging.getLogger("datamesh.store")
_REMEMBERED = 600.0
"""Seconds after a loss during which a run that is not there counts as lost."""


class Epoch:
    """What one process knows of the epoch of one shard."""

    def __init__(self, protocol: ShardProtocol, where: str) -> None:
        self._protocol = protocol
        self._where = where
        self._value = b""
        self._lost_at: float | None = None
        self._looked_at = time.monotonic()
        self._looking: asyncio.Task[None] | None = None
        self.listeners: list[Callable[[], None]] = []
        """Called, in the event loop, when a loss was found."""

    @property
    def has_lost(self) -> bool:
        """Whether the shard has lost its data lately, so that what is not there may be lost."""
        return self._lost_at is not None and time.monotonic() - self._lost_at < _REMEMBERED

    async def begin(self) -> None:
        """Read the epoch of the shard; the first to come writes it.

        Raises:
            StoreError: The store cannot be reached, or refuses us.
        """
        self._value = await self._read()

    async def look(self, *, every: float = 0.0) -> None:
        """Compare the epoch with what it was; where the store cannot be asked, nothing is known and nothing happens.

        Args:
            every: Seconds since the last look below which this one is left out.
        """
        if not self._value or time.monotonic() - self._looked_at < every:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="datamesh-epoch")
        # Whoever asks may be cancelled while others wait for the same answer.
        await asyncio.shield(self._looking)

    async def missing(self, run_id: str) -> RunError | DataLossError:
        """The error of who holds a run that is not there: whether the shard has lost it, or its retention is over."""
        await self.look()
        if not self.has_lost:
            return UnknownRunError(run_id=run_id)
        return DataLossError(where=f"run {run_id!r} in {self._where}", problem="Redis has lost the data of this shard")

    async def _look(self) -> None:
        try:
            found = await self._read()
        except DatameshError as error:
            _log.debug("the epoch of %s is not known: %s", self._where, error)
            return
        finally:
            self._looked_at = time.monotonic()
        if found == self._value:
            return
        self._value, self._lost_at = found, time.monotonic()
        _log.error(
            "%s has lost its data: Redis was emptied, or came back without it. Runs that were under way there are gone",
            self._where,
        )
        for listener in self.listeners:
            listener()

    async def _read(self) -> bytes:
        key = self._protocol.keys.epoch
        found = await self._protocol.command("GET", key)
        if found is None:
            await self._protocol.command("SET", key, secrets.token_hex(8), "NX")
            found = await self._protocol.command("GET", key)
        return bytes(found or b"")

    async def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
