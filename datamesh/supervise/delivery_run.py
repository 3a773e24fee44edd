"""DeliveryRun: one delivery from its being taken to its settlement."""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Mapping
from typing import Any

import anyio.from_thread

from datamesh.codec.failure import Failure
from datamesh.codec.values import ValueCodec
from datamesh.depends.context import Context, Kept
from datamesh.depends.scopes import RunScope
from datamesh.errors import DatameshError, PayloadTooLargeError
from datamesh.model.bound import BoundPlan
from datamesh.store.frames import Delivery, Settlement, Status
from datamesh.store.protocol import ShardProtocol
from datamesh.store.room import Room
from datamesh.supervise.calling import Calling
from datamesh.supervise.isolations import Isolations
from datamesh.supervise.progress import Progress
from datamesh.supervise.sending import Sending, Settle
from datamesh.supervise.served import Served
from datamesh.supervise.slots import Slots

_log = logging.getLogger("datamesh.delivery")
_TOLD_SECONDS = 1.0
_MOST_STATE_BYTES = 64 * 1024


class DeliveryRun(ABC):
    """What all modes share: outcomes go out while the delivery goes on, and its end is settled once."""

    def __init__(
        self, delivery: Delivery, bound: BoundPlan | None, served: Served, *, scope: RunScope, protocol: ShardProtocol,
        settle: Settle, slots: Slots, room: Room, isolations: Isolations, service: str,
    ) -> None:  # fmt: skip
        self.delivery = delivery
        self.served = served
        self.slots = slots
        self._protocol = protocol
        self._settle = settle
        self._name = served.binding.task.name if bound is None else bound.plan.nodes[delivery.node].name
        self._reads = () if bound is None else bound.plan.nodes[delivery.node].inputs
        self._service = service
        self._isolations = isolations
        outputs: Mapping[str, int] = {} if bound is None else bound.outputs[delivery.node]
        self._calling = Calling(served, scope, slots)
        self.progress = Progress(delivery, served, outputs, service)
        self.sending = Sending(
            self.progress, protocol, settle=settle, slots=slots, room=room, stopped=lambda: self.interrupt()
        )
        self._main: asyncio.Task[None] | None = None
        self._told = 0.0
        self.is_released = False
        self.is_cancelled = False
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
            await self.sending.end()
            self.retry_ms = self.progress.first_retry_ms
        except DatameshError as error:
            await self._abort(error)

    async def _abort(self, error: DatameshError) -> None:
        """What cannot be settled would stay with us for ever, and its run too: end the run with the reason."""
        _log.error("delivery %s cannot be settled: %s", self.delivery.id, error)
        run_id, attempt = self.delivery.run_id, self.delivery.attempt
        failure = Failure.of(error, task=self._name, attempt=attempt, run_id=run_id, service=self._service)
        await self.sending.patiently(lambda: self._protocol.end(run_id, state="failed", failure=failure.pack()))
        await self._settle(Settlement(self.delivery))

    # -------------------------------------------------------------------------------------- while it goes on

    def context(self, index: int) -> Context | None:
        """The context of the invocation for one value, if the function asks for it."""
        if not self.served.binding.plan.wants_context:
            return None
        context = Context(
            run_id=self.delivery.run_id, task=self._name, attempt=self.delivery.attempt, delivery_id=self.delivery.id,
            is_cancelled=lambda: self.is_cancelled or self.sending.status is not Status.OK,
            on_progress=lambda done, total: self._tell(context, done, total),
            on_checkpoint=lambda state: self._checkpoint(index, state), state=self._state(index),
        )  # fmt: skip
        return context

    def _tell(self, context: Context, done: float, total: float | None) -> None:
        now = time.monotonic()
        if now - self._told >= _TOLD_SECONDS:
            self._told = now
            context.log.info("%g%s done", done, "" if total is None else f" of {total:g}")

    def _checkpoint(self, index: int, state: Any) -> Awaitable[None]:
        """Keep a state; called on the event loop or, by synchronous code, in a thread that waits for it."""
        payload = self._encoded(state)

        async def keep() -> None:
            await self.sending.checkpoint(self.progress.emitter_of(index), payload)

        if self.served.binding.form.is_async:
            return keep()
        anyio.from_thread.run(keep)
        return Kept()

    def _encoded(self, state: Any) -> bytes:
        where = f"the state that task {self._name!r} gives to checkpoint"
        (frame,) = ValueCodec(Any, max_value_bytes=_MOST_STATE_BYTES, where=where).frames([state])
        if frame.blobs:
            size = len(frame.blobs[0].body)
            raise PayloadTooLargeError(where=where, size_bytes=size, limit_bytes=_MOST_STATE_BYTES)
        return bytes(frame.payload)

    def _state(self, index: int) -> Any:
        payload = self.progress.state_of(index)
        if payload is None:
            return None
        return ValueCodec(Any, max_value_bytes=_MOST_STATE_BYTES, where="a checkpoint").values(payload, {})[0]

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
        self.sending.status = Status.FENCED
        self.interrupt()

    @property
    def is_stopped(self) -> bool:
        """Whether a cancellation that arrives is ours: released, the run is over, or somebody else has the delivery."""
        return self.is_released or self.is_cancelled or self.sending.status is not Status.OK

    def interrupt(self) -> None:
        """Stop running the function: nothing that it gives would count any more."""
        self.sending.stop()
        if self._main is not None:
            self._main.cancel()


def uncancel() -> None:
    """The cancellation has done what it was for: the task goes on to settle."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
