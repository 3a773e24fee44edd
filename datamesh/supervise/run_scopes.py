"""RunScopes: the dependencies that live as long as a run, of each run that this service has met."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Set

from datamesh.depends.scopes import RunScope, ServiceScope
from datamesh.errors import DatameshError
from datamesh.store.store import Store
from datamesh.supervise.loop import Loop

_log = logging.getLogger("datamesh.supervisor")


class RunScopes(Loop):
    """Makes the scope of a run when it is first asked for, and closes it when the run is over.

    Args:
        store: Says whether a run is over.
        service: The scope that those of runs are built on.
        active: Tells the runs that something is running for.
        pause: Seconds between two looks.
    """

    def __init__(self, store: Store, service: ServiceScope, *, active: Callable[[], Set[str]], pause: float) -> None:
        super().__init__("run-scopes", self._tidy, within=pause + 30.0)
        self._store = store
        self._service = service
        self._active = active
        self._pause = pause
        self._scopes: dict[str, RunScope] = {}

    def of(self, run_id: str) -> RunScope:
        """The scope of a run."""
        scope = self._scopes.get(run_id)
        if scope is None:
            scope = self._scopes[run_id] = RunScope(self._service, run_id)
        return scope

    async def _tidy(self) -> None:
        """Close the scopes of runs that have ended; forget those that hold nothing and are not in use."""
        while True:
            with self.pulse.resting():
                await asyncio.sleep(self._pause)
            active = self._active()
            for run_id, scope in list(self._scopes.items()):
                if run_id in active:
                    continue
                try:
                    if scope.is_unused or await self._is_over(run_id):
                        self._scopes.pop(run_id, None)
                        await scope.aclose()
                except DatameshError as error:
                    _log.warning("cannot look after run %s: %s", run_id, error)
                self.pulse.beat()

    async def _is_over(self, run_id: str) -> bool:
        shard = self._store.shard_of(run_id)
        state = await shard.protocol.command("HGET", shard.keys.run(run_id), "state")
        return state not in (b"open", b"waiting")
