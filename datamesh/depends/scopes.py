"""Scopes: where values live that outlast one invocation, built once however many ask for them.

A service scope belongs to a supervisor, a run scope to one run in it. Values of a run may be built on those of the
service.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Hashable
from typing import Any

import anyio

from datamesh.depends.building import CLEANUP_SECONDS, Leave, open_lasting
from datamesh.depends.callables import describe
from datamesh.depends.graph import Node
from datamesh.depends.overrides import Overrides
from datamesh.errors import ConfigurationError

_log = logging.getLogger("datamesh.depends")


class SharedScope:
    """Values by key, each built once and cleaned up when the scope is closed.

    Belongs to the event loop of its first `get`, and is not thread-safe.

    Attributes:
        values: What is there, by `Node.key`. Look here first: it costs a tenth of a `get`.
    """

    def __init__(self, name: str) -> None:
        self.values: dict[Hashable, Any] = {}
        self._name = name
        self._holders: dict[Hashable, _Holder] = {}
        self._built: list[_Holder] = []
        self._surroundings = contextvars.copy_context()
        self._is_closed = False

    @property
    def is_unused(self) -> bool:
        """Whether there is nothing to close."""
        return not self._holders

    async def get(self, node: Node) -> Any:
        """Return the value of `node`, and build it if nobody has.

        It is built in a task of its own: a caller that is cancelled takes nothing from others who wait.

        Raises:
            ConfigurationError: The scope is closed.
            BaseException: What building it raised. All who wait get it, and the next call tries again.
        """
        if self._is_closed:
            raise self._refusal()
        holder = self._holders.get(node.key)
        if holder is None:
            holder = self._holders[node.key] = _Holder(self, node)
        return await holder.value()

    async def aclose(self) -> None:
        """Clean up, the last value built first. What is still being built is given up.

        A cleanup that fails, or takes more than 10 seconds, is logged and does not keep the others from theirs.
        Cancellation does not cut it short.
        """
        self._is_closed = True
        with anyio.CancelScope(shield=True):
            for holder in [holder for holder in self._holders.values() if holder not in self._built]:
                await holder.end()
            for holder in reversed(self._built.copy()):
                await holder.end()
        self.values.clear()
        self._holders.clear()
        self._built.clear()

    async def _arguments(self, node: Node) -> dict[str, Any]:
        """What the callable of `node` is given; the graph has seen to it that all of it lives long enough."""
        return {name: await self.get(child) for name, child in node.arguments if child is not None}

    def _keep(self, holder: _Holder, value: Any) -> None:
        self.values[holder.node.key] = value
        self._built.append(holder)

    def _forget(self, holder: _Holder) -> None:
        if self._holders.get(holder.node.key) is holder:
            del self._holders[holder.node.key]
            self.values.pop(holder.node.key, None)
            self._built[:] = [kept for kept in self._built if kept is not holder]

    def _refusal(self) -> ConfigurationError:
        return ConfigurationError(f"{self._name} is closed and builds no more values: call nothing after the drain")


class ServiceScope(SharedScope):
    """Values that live from their first use until the supervisor has drained.

    Args:
        overrides: What is replaced, here and in the runs of this service; nothing if it is left out.
    """

    def __init__(self, overrides: Overrides | None = None) -> None:
        super().__init__("the scope of the service")
        self.overrides = overrides or Overrides()
        self._runs: set[RunScope] = set()

    async def aclose(self) -> None:
        """Clean up, run scopes that are still open first, because their values are built on those of this scope."""
        self._is_closed = True
        for run in tuple(self._runs):
            await run.aclose()
        await super().aclose()


class RunScope(SharedScope):
    """Values that live as long as one run in one service.

    Args:
        service: Where the values of scope "service" are.
        run_id: For messages.
    """

    def __init__(self, service: ServiceScope, run_id: str = "") -> None:
        super().__init__(f"the scope of run {run_id!r}")
        self.service = service
        self.overrides = service.overrides

    async def get(self, node: Node) -> Any:
        """Return the value of `node`, be it one of the run or of the service."""
        if node.scope == "service":
            return await self.service.get(node)
        self.service._runs.add(self)
        return await super().get(node)

    async def aclose(self) -> None:
        """Clean up the values of the run; those of the service stay."""
        await super().aclose()
        self.service._runs.discard(self)


class _Holder:
    """One value, in the hands of a task that builds it, waits for its end and cleans it up.

    It is one task, because what a generator enters, like a task group, must be left by the task that entered it.
    """

    def __init__(self, scope: SharedScope, node: Node) -> None:
        self.node = node
        self._scope = scope
        self._ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._ending = asyncio.Event()
        self._task = asyncio.create_task(
            self._hold(), name=f"datamesh value of {describe(node.call)}", context=scope._surroundings.copy()
        )

    async def value(self) -> Any:
        await asyncio.wait((self._ready,))
        return self._ready.result()

    async def end(self) -> None:
        """Have the value cleaned up, and wait for that; or give up building it.

        A thread cannot be interrupted: what is built in one is waited for, and then cleaned up.
        """
        self._ending.set()
        if not self._ready.done() and self.node.form.is_async:
            self._task.cancel()
        await asyncio.wait((self._task,), timeout=CLEANUP_SECONDS)
        if not self._task.done():
            _log.error("%s is not cleaned up after %g seconds: left behind", describe(self.node.call), CLEANUP_SECONDS)
            self._task.cancel()

    async def _hold(self) -> None:
        leaves: list[Leave] = []
        reason: BaseException | None = None
        try:
            await self._build(leaves)
            if leaves:
                await self._ending.wait()
        except BaseException as raised:
            reason = raised
            self._fail(raised)
        for leave in leaves:
            await self._clean_up(leave, reason)

    async def _build(self, leaves: list[Leave]) -> None:
        arguments = await self._scope._arguments(self.node)
        value = await open_lasting(self.node.call, self.node.form, arguments, leaves)
        self._ready.set_result(value)
        self._scope._keep(self, value)

    def _fail(self, error: BaseException) -> None:
        """Make room for the next try, and tell those who wait. A cancellation was not theirs, so they get no such."""
        self._scope._forget(self)
        if not self._ready.done():
            self._ready.set_exception(self._scope._refusal() if isinstance(error, asyncio.CancelledError) else error)
            self._ready.exception()  # marks it as seen: all who waited may be gone, and the next to ask gets a new try

    async def _clean_up(self, leave: Leave, reason: BaseException | None) -> None:
        try:
            await leave(reason)
        except BaseException:
            _log.exception("the cleanup of %s failed", describe(self.node.call))
