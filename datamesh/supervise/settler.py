"""Settler: brings what deliveries came to into Redis, everything that has accumulated in one call.

One call is under way at a time. What finishes meanwhile goes with the next, so that a lone value leaves at once, and
under load calls fill up by themselves.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from datamesh.errors import StoreError
from datamesh.store.frames import Delivery, Settlement, Status
from datamesh.store.link import LinkLost, ReplyError
from datamesh.store.protocol import Settled, ShardProtocol
from datamesh.supervise.discarding import discard
from datamesh.supervise.health import Pulse
from datamesh.supervise.loop import problem_of

_log = logging.getLogger("datamesh.settler")
_MOST_ITEMS = 250
_MOST_BYTES = 1 << 20

Pending = tuple[str, Settlement, "asyncio.Future[Settled]"]


class Settler:
    """Settles the deliveries of one shard."""

    def __init__(self, protocol: ShardProtocol, *, member: Callable[[], str], fenced: Callable[[str], None]) -> None:
        self._protocol = protocol
        self._member = member
        self._fenced = fenced
        self._queue: deque[Pending] = deque()
        self._busy: asyncio.Task[None] | None = None
        self.pulse = Pulse("settler", shard=protocol.keys.shard)
        self.pulse.rest()

    def put(self, member: str, settlement: Settlement) -> asyncio.Future[Settled]:
        """Settle a delivery that was taken as `member`; the result comes with the reply.

        A member that was replaced gets FENCED without a call.
        """
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self._queue.append((member, settlement, future))
        if self._busy is None or (self._busy.done() and self.problem() is None):
            self.restart()
        return future

    def problem(self) -> BaseException | None:
        """Why it broke; None while all is well."""
        return problem_of(self._busy)

    def restart(self) -> None:
        """Work on what is left."""
        self._busy = asyncio.create_task(self._work(), name="datamesh-settler")

    async def flush(self, timeout: float) -> None:
        """Wait until nothing is left to settle, for at most `timeout` seconds."""
        if self._busy is not None and not self._busy.done():
            await asyncio.wait([self._busy], timeout=timeout)

    async def close(self) -> None:
        """Drop what is left."""
        if self._busy is not None:
            self._busy.cancel()
            await asyncio.gather(self._busy, return_exceptions=True)
        for _, _, future in self._queue:
            future.cancel()

    async def _work(self) -> None:
        self.pulse.wake()
        while self._queue:
            await self._settle_next(self._member())
            self.pulse.beat()
        self.pulse.rest()

    async def _settle_next(self, member: str) -> None:
        batch: list[Pending] = []
        try:
            self._fill(batch, member)
            if batch:
                await self._settle(member, batch)
        except BaseException:
            # Nobody else would ever answer them. What they belong to is dropped, and taken over anew.
            for item in batch:
                _answer(item, Settled(Status.FENCED))
            self._fenced(member)
            raise

    def _fill(self, batch: list[Pending], member: str) -> None:
        size = 0
        while self._queue and len(batch) < _MOST_ITEMS:
            size += self._queue[0][1].size_bytes
            if batch and size > _MOST_BYTES:
                break
            item = self._queue.popleft()
            if item[0] == member:
                batch.append(item)
            else:
                _answer(item, Settled(Status.FENCED))

    async def _settle(self, member: str, batch: list[Pending]) -> None:
        try:
            results = await self._patiently(member, [settlement for _, settlement, _ in batch])
        except (ReplyError, LinkLost) as error:
            await self._isolate(member, batch, error)
            return
        for item, result in zip(batch, results, strict=True):
            if result.status is Status.UNKNOWN:
                await self._bury(member, item[1].delivery)
                result = Settled(Status.GONE)
            _answer(item, result)
        if any(result.status is Status.FENCED for result in results):
            self._fenced(member)

    async def _bury(self, member: str, delivery: Delivery) -> None:
        """What belongs to no run is not dropped without a trace."""
        problem = f"run {delivery.run_id!r} is not known, or not any more"
        await discard(self._protocol, member, delivery, problem, again_ms=0)

    async def _patiently(self, member: str, settlements: list[Settlement]) -> list[Settled]:
        """What is done is kept until the store is back, or until we are fenced: given up, it would belong to nobody."""
        while True:
            try:
                return await self._protocol.settle(member, settlements)
            except StoreError as error:
                _log.warning("%d deliveries wait for the store to settle: %s", len(settlements), error)

    async def _isolate(self, member: str, batch: list[Pending], error: Exception) -> None:
        """One item must not take the others down with it."""
        if len(batch) > 1:
            for item in batch:
                await self._settle(member, [item])
            return
        _, settlement, future = batch[0]
        _log.error("delivery %s cannot be settled: %s", settlement.delivery.id, error)
        if not future.done():
            future.set_exception(error)


def _answer(item: Pending, result: Settled) -> None:
    if not item[2].done():
        item[2].set_result(result)
