"""Heartbeat: keeps the members of a supervisor alive, from a thread and connections of its own.

A blocked event loop must not cost a healthy service its work, and a lost connection of the loop must not either.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence

from datamesh.errors import DatameshError, StoreUnavailableError
from datamesh.store.connect import Endpoint
from datamesh.store.keys import ShardKeys
from datamesh.store.protocol import Beat, ShardProtocol
from datamesh.supervise.health import Pulse

_log = logging.getLogger("datamesh.heartbeat")
_BEATS_A_LEASE = 4
_MISSED = 0.75
"""Part of a lease without a beat after which it is in danger."""

Heard = Callable[[int, str, Beat], None]
"""Of a shard, a member of it and what its beat brought; called on the supervisor's event loop."""


class Heartbeat:
    """Beats for one member in each shard."""

    def __init__(
        self, keys: Sequence[ShardKeys], endpoint: Callable[[], Endpoint], *, lease_ms: int, heard: Heard
    ) -> None:
        self._keys = keys
        self._endpoint = endpoint
        self._lease_ms = lease_ms
        self._heard = heard
        self._told = 0.0
        self._members: dict[int, str] = {}
        self._stopping: asyncio.Event | None = None
        self._is_stopped = False
        self._leaving = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._problem: BaseException | None = None
        self.pulse = Pulse("heartbeat", within=_MISSED * lease_ms / 1000)

    def set_member(self, shard: int, member: str) -> None:
        """Beat for this member of a shard from now on."""
        self._members[shard] = member

    def start(self) -> None:
        """Begin to beat; the calling event loop hears what the beats bring."""
        self._loop = asyncio.get_running_loop()
        self.restart()

    def restart(self) -> None:
        """Beat again, in another thread."""
        self._problem = None
        self._thread = threading.Thread(target=self._run, name="datamesh-heartbeat", daemon=True)
        self._thread.start()

    def problem(self) -> BaseException | None:
        """Why the thread ended; None while it beats."""
        return self._problem

    def stop(self, *, leave: bool, timeout: float = 2.0) -> None:
        """Stop beating.

        Args:
            leave: Say so, that others need not wait for the lease to pass.
            timeout: Seconds to wait for the thread.
        """
        self._leaving = leave
        self._is_stopped = True
        if self._thread is None or not self._thread.is_alive():
            return
        own, stopping = self._own_loop, self._stopping
        if own is not None and stopping is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                own.call_soon_threadsafe(stopping.set)
        self._thread.join(timeout)

    def _run(self) -> None:
        try:
            asyncio.run(self._beat_until_stopped())
        except BaseException as error:
            # Whatever it is, the thread must not end unseen: without it the service loses its lease.
            self._problem = error

    async def _beat_until_stopped(self) -> None:
        self._own_endpoint = endpoint = self._endpoint()
        shards = [
            ShardProtocol(k, endpoint.link(k.prefix), endpoint, patience=self._lease_ms / 2000) for k in self._keys
        ]
        self._stopping = asyncio.Event()
        self._own_loop = asyncio.get_running_loop()
        try:
            await self._beat_all(shards, self._stopping)
            if self._leaving:
                await asyncio.gather(*(self._leave(shard) for shard in shards))
        finally:
            for shard in shards:
                await shard.link.close()

    async def _beat_all(self, shards: Sequence[ShardProtocol], stopping: asyncio.Event) -> None:
        pause = self._lease_ms / 1000 / _BEATS_A_LEASE
        while not self._is_stopped:
            began = time.monotonic()
            if all(await asyncio.gather(*(self._beat(shard) for shard in shards))):
                self.pulse.beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, pause - (time.monotonic() - began))):
                    await stopping.wait()

    async def _beat(self, shard: ShardProtocol) -> bool:
        """Beat in one shard; False: the store did not answer."""
        index = shard.keys.shard
        member = self._members.get(index)
        if member is None:
            return True
        try:
            async with asyncio.timeout(self._lease_ms / 2000):
                beat = await shard.beat(member, lease_ms=self._lease_ms)
        except TimeoutError:
            # A connection that is half open would say nothing for longer than the lease lasts, nor would a new one to
            # the same server: another may be in its place.
            await shard.link.close()
            with contextlib.suppress(DatameshError, OSError):
                await self._own_endpoint.moved()
            self._missed(index, StoreUnavailableError(where=f"shard {index}", problem="no answer", fix="Look at Redis"))
            return False
        except (DatameshError, OSError) as error:
            self._missed(index, error)
            return False
        self._tell(index, member, beat)
        return True

    def _missed(self, index: int, error: Exception) -> None:
        self.pulse.failed(error)
        now = time.monotonic()
        if now - self._told > self._lease_ms / 1000:
            self._told = now
            _log.warning("no heartbeat in shard %d: %s", index, error)

    def _tell(self, index: int, member: str, beat: Beat) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._heard, index, member, beat)
        except RuntimeError:
            # The loop ended without draining: nobody is left to hear, so the members leave.
            self._leaving = True
            self._is_stopped = True

    async def _leave(self, shard: ShardProtocol) -> None:
        member = self._members.get(shard.keys.shard)
        if member is None:
            return
        try:
            await shard.leave(member)
        except (DatameshError, OSError) as error:
            _log.warning("could not leave shard %d: %s", shard.keys.shard, error)
