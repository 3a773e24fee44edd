"""WholeRun: an invocation that reads whole streams, one for each run.

While it waits for its input it needs no slot: the task that writes that input may be waiting for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from datamesh.model.io import IO
from datamesh.model.reader import Chunk, Reader
from datamesh.supervise.delivery_run import DeliveryRun, uncancel
from datamesh.supervise.progress import placed
from datamesh.supervise.slots import Slots
from datamesh.supervise.thread_io import ThreadIO

MakeReader = Callable[[str, str], Reader]
"""Of a parameter and the stream that it reads."""


class WholeRun(DeliveryRun):
    """Runs a function over whole streams."""

    def with_readers(self, make: MakeReader) -> WholeRun:
        """Say where its inputs come from."""
        self._make_reader = make
        return self

    async def work(self) -> None:
        self._main = asyncio.current_task()
        if self.progress.suspicion.is_hopeless:
            self.progress.fail(0, self.progress.suspicion.lost(0))
            return
        try:
            await self._invoke()
        except asyncio.CancelledError:
            if self.is_released:
                self.progress.release()
            elif not self.is_stopped:
                if self._main is not None and self._main.cancelling():
                    raise
                self.progress.fail(0, asyncio.CancelledError("the function was cancelled from within"))
            uncancel()
        except (Exception, SystemExit) as error:
            self.progress.fail(0, error)

    async def _invoke(self) -> None:
        inputs = self._inputs()
        if self.served.binding.form.is_generator:
            emitter = self.progress.emitter(0)
            await self._calling.yielded(inputs, self.context(0), lambda pairs: self.sending.accept(emitter, pairs))
            emitter.check_end()
            self.progress.finish_emitted(0)
        else:
            self.progress.finish(0, placed(await self._calling.result(inputs, self.context(0)), whole=True))

    def _inputs(self) -> Mapping[str, Any]:
        streams = dict(self._reads)
        ios = {
            name: IO[Any](
                stream, _Yielding(self._make_reader(name, stream), self.slots), read_only="it is an input of a task"
            )
            for name, stream in streams.items()
        }
        if self.served.binding.form.is_async:
            return ios
        loop = asyncio.get_running_loop()
        return {name: ThreadIO(io, loop, self.served.executor) for name, io in ios.items()}


class _Yielding:
    """A reader that gives up the slot of its task while it waits."""

    def __init__(self, reader: Reader, slots: Slots) -> None:
        self._reader = reader
        self._slots = slots

    async def read(self, after: str) -> Sequence[Chunk]:
        return await self._without_slot(self._reader.read(after))

    async def last(self) -> Chunk | None:
        return await self._reader.last()

    async def is_complete(self) -> bool:
        return await self._reader.is_complete()

    async def _without_slot(self, read: Awaitable[Sequence[Chunk]]) -> Sequence[Chunk]:
        self._slots.release()
        try:
            found = await read
        except BaseException:
            self._slots.take()
            raise
        await self._slots.regain()
        return found
