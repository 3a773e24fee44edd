"""Alone: values of which services may have died, one after another, so that it is known of which.

Each runs in a child process where the function can, and then whoever dies is the child. Else it runs here, under a mark
that says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable

from datamesh.codec.frame import array_of, parts_of
from datamesh.store.frames import Delivery, Frame, Status
from datamesh.store.protocol import ShardProtocol
from datamesh.store.streams import fetch_blobs
from datamesh.supervise.isolation import Died, Finished, NotRun, Raised, is_isolable
from datamesh.supervise.isolations import Isolations
from datamesh.supervise.progress import Progress, placed
from datamesh.supervise.repeating import RaisedElsewhere
from datamesh.supervise.sending import Sending
from datamesh.supervise.served import Served
from datamesh.supervise.slots import Slots
from datamesh.supervise.thread_feed import Accept, Pair


class Alone:
    """Runs what is left of one frame.

    Args:
        isolations: Child processes of this service.
        slots: One of them is given up while all child processes are in use.
        pending: Indexes of the values; others may take from it.
        invoke: Runs a value here.
        fell: Told of what `invoke` raised.
    """

    def __init__(
        self, delivery: Delivery, served: Served, progress: Progress, sending: Sending, protocol: ShardProtocol, *,
        isolations: Isolations, slots: Slots, task: str, service: str, pending: deque[int],
        invoke: Callable[[int], Awaitable[None]], fell: Callable[[int, BaseException], None],
    ) -> None:  # fmt: skip
        self._delivery = delivery
        self._served = served
        self._progress = progress
        self._sending = sending
        self._protocol = protocol
        self._isolations = isolations
        self._slots = slots
        self._task = task
        self._service = service
        self._pending = pending
        self._invoke = invoke
        self._fell = fell
        self._parts = parts_of(delivery.frame.values)

    async def run(self) -> None:
        """Run the values until none is left, or the delivery is not ours any more."""
        elsewhere = is_isolable(self._served.binding)
        while self._pending and self._sending.status is Status.OK:
            await self._run(self._pending.popleft(), elsewhere)
            self._sending.send_early()

    async def _run(self, index: int, elsewhere: bool) -> None:
        suspicion = self._progress.suspicion
        if suspicion.is_lost(index):
            self._progress.fail(index, suspicion.lost(index))
        elif elsewhere and self._progress.state_of(index) is None:
            await self._elsewhere(index)
        else:
            await self._here(index)

    async def _here(self, index: int) -> None:
        self._progress.suspicion.begin(index)
        await self._sending.mark()
        if self._sending.status is not Status.OK:
            return
        try:
            await self._invoke(index)
        except BaseException as error:
            self._fell(index, error)

    async def _elsewhere(self, index: int) -> None:
        payload, run_id = array_of([self._parts[index]]), self._delivery.run_id
        frame = Frame(1, self._delivery.frame.flags, b"", payload)
        blobs = await self._sending.patiently(lambda: fetch_blobs(self._protocol, run_id, frame))
        async with self._isolations.of(self._served, self._service, self._slots) as isolation:
            outcome = await isolation.run(
                payload, run_id=run_id, task=self._task, attempt=self._delivery.attempt, delivery_id=self._delivery.id,
                blobs=blobs, accept=self._accept(index),
            )  # fmt: skip
        match outcome:
            case Finished(pairs):
                self._finish(index, pairs)
            case NotRun():
                await self._here(index)
            case Raised(failure, retry_ms, later):
                delay = retry_ms if later is None else int(1000 * later)
                self._progress.fail(index, RaisedElsewhere(failure, delay, is_charged=later is None))
            case Died():
                self._progress.suspicion.charge(index)
                self._progress.restart(index)
                self._pending.appendleft(index)

    def _accept(self, index: int) -> Accept | None:
        """Takes what a generator yields while it goes on; what others give comes with their end."""
        if not self._served.binding.form.is_generator:
            return None
        emitter = self._progress.emitter(index)
        return lambda pairs: self._sending.accept(emitter, pairs)

    def _finish(self, index: int, pairs: list[Pair]) -> None:
        if self._served.binding.form.is_generator:
            self._progress.finish_generator(index)
        else:
            self._progress.finish(index, placed(pairs, whole=False))
