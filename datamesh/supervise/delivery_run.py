"""DeliveryRun: one delivery from its being taken to its settlement."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from datamesh.codec.failure import Failure
from datamesh.depends.context import Context
from datamesh.depends.scopes import RunScope
from datamesh.errors import ConfigurationError, DatameshError, StoreError
from datamesh.model.bound import BoundPlan
from datamesh.store.frames import Delivery, Settlement, Status
from datamesh.store.link import LinkLost
from datamesh.store.protocol import Settled, ShardProtocol
from datamesh.supervise.calling import Calling
from datamesh.supervise.emitter import Emitter
from datamesh.supervise.progress import Progress
from datamesh.supervise.served import Served
from datamesh.supervise.slots import Slots
from datamesh.supervise.thread_feed import Pair

_log = logging.getLogger("datamesh.delivery")
_PAUSE = 0.5
_TOLD_SECONDS = 1.0
_ROOM = 1024
"""Values that a generator may be ahead of what is sent."""

T = TypeVar("T")
Settle = Callable[[Settlement], "asyncio.Future[Settled]"]


class DeliveryRun(ABC):
    """What all modes share: outcomes go out while the delivery goes on, and its end is settled once."""

    def __init__(
        self, delivery: Delivery, bound: BoundPlan | None, served: Served, *, scope: RunScope, protocol: ShardProtocol,
        settle: Settle, slots: Slots, service: str,
    ) -> None:  # fmt: skip
        self.delivery = delivery
        self.served = served
        self.slots = slots
        self._protocol = protocol
        self._settle = settle
        self._name = served.binding.task.name if bound is None else bound.plan.nodes[delivery.node].name
        self._reads = () if bound is None else bound.plan.nodes[delivery.node].inputs
        self._service = service
        self._outputs: Mapping[str, int] = {} if bound is None else bound.outputs[delivery.node]
        self._calling = Calling(served, scope)
        self.progress = Progress(delivery, served, self._outputs, service)
        self._flushing: asyncio.Task[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._is_checking = False
        self._main: asyncio.Task[None] | None = None
        self._told = 0.0
        self.is_released = False
        self.is_cancelled = False
        self.status = Status.OK
        self.retry_ms: int | None = None
        """When the first of the retries that it left behind is due."""

    @abstractmethod
    async def work(self) -> None:
        """Run the function for everything that is left, and tell `progress` of it."""

    async def run(self) -> None:
        """Do the work and settle it. Ends without an error whatever happens; a cancelled delivery stays unsettled."""
        try:
            await self.work()
            self._main = None
            await self._finish()
        except DatameshError as error:
            await self._abort(error)

    async def _finish(self) -> None:
        if self._flushing is not None:
            await asyncio.wait([self._flushing])
        if self.status is Status.FENCED:
            return
        settlement, blobs = self.progress.settlement(final=True)
        if blobs and not await self.patiently(lambda: self._protocol.put_blobs(self.delivery.run_id, blobs)):
            settlement = Settlement(self.delivery)
        self.status = (await self._settle(settlement)).status
        if settlement.retries:
            self.retry_ms = min(again.delay_ms for again in settlement.retries)

    async def _abort(self, error: DatameshError) -> None:
        """What cannot be settled would stay with us for ever, and its run too: end the run with the reason."""
        _log.error("delivery %s cannot be settled: %s", self.delivery.id, error)
        run_id, attempt = self.delivery.run_id, self.delivery.attempt
        failure = Failure.of(error, task=self._name, attempt=attempt, run_id=run_id, service=self._service)
        await self.patiently(lambda: self._protocol.end(run_id, state="failed", failure=failure.pack()))
        await self._settle(Settlement(self.delivery))

    async def patiently(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Repeat something safe to repeat until the store is back; user code has nothing to do with its absence."""
        while True:
            try:
                return await attempt()
            except (StoreError, LinkLost) as error:
                _log.warning("delivery %s waits for the store: %s", self.delivery.id, error)
                await asyncio.sleep(_PAUSE)

    # -------------------------------------------------------------------------------------- while it goes on

    def context(self) -> Context | None:
        """The context of one invocation, if the function asks for it."""
        if not self.served.binding.plan.wants_context:
            return None
        context = Context(
            run_id=self.delivery.run_id, task=self._name, attempt=self.delivery.attempt, delivery_id=self.delivery.id,
            is_cancelled=lambda: self.is_cancelled, on_checkpoint=_refuse_checkpoint,
            on_progress=lambda done, total: self._tell(context, done, total),
        )  # fmt: skip
        return context

    def _tell(self, context: Context, done: float, total: float | None) -> None:
        now = time.monotonic()
        if now - self._told >= _TOLD_SECONDS:
            self._told = now
            context.log.info("%g%s done", done, "" if total is None else f" of {total:g}")

    def accept(self, emitter: Emitter, pairs: list[Pair]) -> asyncio.Future[None] | None:
        """Take what a generator yielded, and send it as soon as the generator pauses.

        Raises:
            DatameshError: What it yielded before cannot be sent.
        """
        if emitter.error is not None:
            raise emitter.error
        for name, value in pairs:
            emitter.add(name, value)
        if not self._is_checking and (self._flushing is None or self._flushing.done()):
            self._is_checking = True
            asyncio.get_running_loop().call_soon(self._check)
        if emitter.count < _ROOM:
            return None
        if self._room is None or self._room.done():
            self._room = asyncio.get_running_loop().create_future()
        return self._room

    def _check(self) -> None:
        self._is_checking = False
        self.send_early()

    def send_early(self) -> None:
        """Send what there is, without waiting for the end of the delivery."""
        if (self._flushing is None or self._flushing.done()) and self.progress.is_dirty and self.progress.left:
            self._flushing = asyncio.create_task(self._flush(), name="datamesh-flush")

    async def _flush(self) -> None:
        try:
            while self.progress.is_dirty and self.status is Status.OK:
                await self._send_part()
        except DatameshError as error:
            _log.error("delivery %s cannot go on: %s", self.delivery.id, error)
            self.status = Status.FENCED
        finally:
            self._make_room()
        if self.status is not Status.OK:
            self.interrupt()

    async def _send_part(self) -> None:
        settlement, blobs = self.progress.settlement(final=False)
        self._make_room()
        if blobs and not await self.patiently(lambda: self._protocol.put_blobs(self.delivery.run_id, blobs)):
            self.status = Status.GONE
            return
        settled = await self._settle(settlement)
        if settled.status is not Status.ALREADY:
            self.status = settled.status

    def _make_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    # -------------------------------------------------------------------------------------- ending it early

    def release(self) -> None:
        """Stop, and give back what has not ended, as it would be after a crash."""
        self.is_released = True
        self.interrupt()

    def cancel(self) -> None:
        """Stop: the run is over."""
        self.is_cancelled = True
        self.interrupt()

    def fence(self) -> None:
        """Stop: the delivery belongs to somebody else."""
        self.status = Status.FENCED
        self.interrupt()

    @property
    def is_stopped(self) -> bool:
        """Whether a cancellation that arrives is ours: released, the run is over, or somebody else has the delivery."""
        return self.is_released or self.is_cancelled or self.status is not Status.OK

    def interrupt(self) -> None:
        """Stop running the function: nothing that it gives would count any more."""
        if self._main is not None:
            self._main.cancel()


def uncancel() -> None:
    """The cancellation has done what it was for: the task goes on to settle."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def _refuse_checkpoint(state: object) -> None:
    raise ConfigurationError(
        "context.checkpoint keeps no states in this version: "
        "yield what must not be repeated, or make the repetition cheap"
    )
