"""Calling: one invocation of a function, with its dependencies, its timeout and its form."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from datamesh.depends.context import Context
from datamesh.depends.scopes import RunScope
from datamesh.model.modes import Form
from datamesh.supervise.served import Served
from datamesh.supervise.slots import Slots
from datamesh.supervise.thread_feed import Accept, Pair, ThreadFeed

Arguments = Mapping[str, Any]
T = TypeVar("T")


class Calling:
    """Calls the function of one implementation, for invocations of one run."""

    def __init__(self, served: Served, scope: RunScope, slots: Slots | None = None) -> None:
        self._served = served
        self._binding = served.binding
        self._scope = scope
        self._slots = slots
        self._plan = served.binding.plan
        self._timeout = served.binding.options.timeout
        self._first_timeout = served.binding.options.first_output_timeout

    @property
    def is_plain(self) -> bool:
        """Whether the function needs nothing but its inputs, and no limit of time."""
        return self._plan.is_empty and self._timeout is None

    @property
    def takes_frames(self) -> bool:
        """Whether a thread may call it for one value after another, once `is_ready`."""
        return self._timeout is None and self._plan.is_immediate(self._scope)

    @property
    def is_ready(self) -> bool:
        """Whether everything that outlasts an invocation is built, so that `arguments_now` answers."""
        return self._plan.is_ready(self._scope)

    def arguments_now(self, context: Context | None) -> Arguments | None:
        """The arguments besides the inputs, if nothing has to be awaited or cleaned up for them; from any thread."""
        if self._timeout is not None:
            return None
        return {} if self._plan.is_empty else self._plan.solve_now(self._scope, context)

    async def result(self, inputs: Arguments, context: Context | None) -> list[Pair]:
        """Call a function that returns; give what it returned as pairs of output and value.

        Raises:
            BaseException: What the function or a dependency raised.
        """
        async with self._arguments(inputs, context) as arguments, self._limit():
            if self._binding.form is Form.COROUTINE:
                return self._binding.outputs_of(await self._binding.function(**arguments))
            function = self._binding.function
            return self._binding.outputs_of(await self._in_thread(lambda: function(**arguments)))

    async def yielded(self, inputs: Arguments, context: Context | None, accept: Accept) -> None:
        """Call a generator and pass on what it yields.

        Raises:
            BaseException: What the function, a dependency or `accept` raised.
        """
        async with self._arguments(inputs, context) as arguments, self._limit(), self._first_limit(accept) as first:
            if self._binding.form is Form.ASYNC_GENERATOR:
                await self._iterate(self._binding.function(**arguments), first)
            else:
                await self._iterate_in_thread(self._binding.function, arguments, first)

    async def _iterate(self, generator: AsyncIterator[Any], accept: Accept) -> None:
        output_of = self._binding.output_of
        try:
            async for item in generator:
                room = accept([output_of(item)])
                if room is not None:
                    await room
        finally:
            close = getattr(generator, "aclose", None)
            if close is not None:
                await close()

    async def _iterate_in_thread(
        self, function: Callable[..., Iterator[Any]], arguments: Arguments, accept: Accept
    ) -> None:
        feed = ThreadFeed(accept)
        output_of = self._binding.output_of

        def iterate() -> None:
            for item in function(**arguments):
                if not feed.put(output_of(item)):
                    return

        try:
            await self._in_thread(iterate)
            feed.transfer()
        finally:
            feed.stop()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """Run a call in the executor. If it is left alone there, it keeps a slot until it ends."""
        loop, ended, begun = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

        def run() -> T:
            begun.set()
            try:
                return call()
            finally:
                with suppress(RuntimeError):  # the loop is gone, and nobody waits
                    loop.call_soon_threadsafe(ended.set)

        try:
            return await self._served.executor.run(run)
        except asyncio.CancelledError:
            if self._slots is not None and begun.is_set() and not ended.is_set():
                self._slots.keep_until(ended)
            raise

    @asynccontextmanager
    async def _arguments(self, inputs: Arguments, context: Context | None) -> AsyncIterator[dict[str, Any]]:
        if self._plan.is_empty:
            yield dict(inputs)
            return
        solved = self._plan.solve_now(self._scope, context)
        if solved is not None:
            yield {**inputs, **solved}
            return
        async with self._plan.solve(self._scope, context) as given:
            yield {**inputs, **given}

    @asynccontextmanager
    async def _limit(self) -> AsyncIterator[None]:
        if self._timeout is None:
            yield
            return
        async with asyncio.timeout(self._timeout):
            yield

    @asynccontextmanager
    async def _first_limit(self, accept: Accept) -> AsyncIterator[Accept]:
        """The first value has to come in time; those behind it may take as long as they need."""
        if self._first_timeout is None:
            yield accept
            return
        async with asyncio.timeout(self._first_timeout) as limit:

            def first(pairs: list[Pair]) -> asyncio.Future[None] | None:
                limit.reschedule(None)
                return accept(pairs)

            yield first
