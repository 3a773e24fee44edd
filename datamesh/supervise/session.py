"""Session: a supervisor at work in one event loop, from its opening to its drain.

It opens the store, announces what it implements, joins every shard and then starts the actors; each of them stands in a
file of its own. Nothing here runs values.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Set
from typing import Any

from datamesh.depends.overrides import Overrides
from datamesh.depends.scopes import RunScope, ServiceScope
from datamesh.errors import DatameshError
from datamesh.model.placement import Placement
from datamesh.model.plan import Plan
from datamesh.settings import Settings
from datamesh.store.connect import Endpoint
from datamesh.store.protocol import Beat
from datamesh.store.store import ShardStore, Store
from datamesh.supervise.heartbeat import Heartbeat
from datamesh.supervise.launch import Launcher
from datamesh.supervise.member import Member, Service
from datamesh.supervise.news import News
from datamesh.supervise.served import Served
from datamesh.supervise.slots import Slots
from datamesh.supervise.waiting import Waiting

_log = logging.getLogger("datamesh.supervisor")


class Session:
    """What a supervisor holds while it works."""

    def __init__(
        self, store: Store, served: Mapping[str, Served], settings: Settings, overrides: Overrides,
        endpoint: Callable[[], Endpoint], name: str | None,
    ) -> None:  # fmt: skip
        self.store = store
        self.loop = asyncio.get_running_loop()
        self.slots = Slots(settings.concurrency)
        self._settings = settings
        self._announced = served
        served = {ref: one for ref, one in served.items() if _may_run(one, settings)}
        self._served = served
        self._scope = ServiceScope(overrides)
        self._runs: dict[str, RunScope] = {}
        service_name = name or f"{socket.gethostname()}-{os.getpid()}"
        service = Service(
            name=f"{service_name}.{secrets.token_hex(3)}", served=served, slots=self.slots, lease_ms=settings.lease_ms,
            scope_of=self._scope_of, joined=self._joined,
        )  # fmt: skip
        self.members = {shard.index: Member(service, shard) for shard in store.shards}
        self.launchers = {
            shard.index: Launcher(shard.protocol, self.members[shard.index].plans, store.contracts)
            for shard in store.shards
        }
        self._heartbeat = Heartbeat(
            [shard.keys for shard in store.shards], endpoint, lease_ms=settings.lease_ms, heard=self._heard
        )
        self._news = [News(shard, self._run_ended) for shard in store.shards]
        self._waiting = [Waiting(shard, self.launchers[shard.index]) for shard in store.shards]
        self._chores: set[asyncio.Task[None]] = set()
        self.is_open = False

    async def start(self) -> None:
        """Announce, join and begin to take work.

        Raises:
            ContractMismatchError: A task was announced by others in another form.
            StoreUnavailableError: The store cannot be reached.
        """
        for ref, served in self._announced.items():
            await self.store.contracts.announce(ref, served.contract())
        await asyncio.gather(*(news.start() for news in self._news))
        await asyncio.gather(*(member.start() for member in self.members.values()))
        self._heartbeat.start()
        self.is_open = True
        if self._served:
            for waiting in self._waiting:
                self._begin(waiting.start_all())
        self._begin(self._tidy())

    def shard_of(self, run_id: str) -> ShardStore:
        return self.store.shard_of(run_id)

    def launcher_of(self, run_id: str) -> Launcher:
        return self.launchers[self.shard_of(run_id).index]

    def tell_of_late_tasks(self, plan: Plan, here: Set[str]) -> None:
        """Say why a run waits for tasks that are among those implemented `here`: they came after the work began."""
        late = sorted(node.ref for node in plan.nodes if node.ref in here and node.ref not in self._announced)
        if late:
            _log.warning("a run waits for %s: implemented here, but only after the work began", ", ".join(late))

    @property
    def last_beat(self) -> float:
        """When the last heartbeat was answered, by the monotonic clock."""
        return self._heartbeat.last_beat

    async def drain(self, grace: float) -> None:
        """Take nothing more, finish or release what runs within `grace` seconds, and leave the mesh."""
        until = time.monotonic() + grace
        await asyncio.gather(*(member.stop_taking() for member in self.members.values()))
        await asyncio.gather(*(member.drain(max(0.0, until - time.monotonic())) for member in self.members.values()))
        await self._scope.aclose()
        await self.close(leave=True)

    async def close(self, *, leave: bool) -> None:
        """Stop everything at once; what runs is left to others."""
        self.is_open = False
        for task in self._chores:
            task.cancel()
        for news in self._news:
            await news.close()
        await asyncio.gather(*(member.close() for member in self.members.values()))
        await asyncio.to_thread(self._heartbeat.stop, leave=leave)
        await self.store.close()

    def abandon(self) -> None:
        """The event loop is ending and nothing can be awaited any more: let the mesh know at once."""
        self.is_open = False
        self._heartbeat.stop(leave=True, timeout=1.0)

    # ------------------------------------------------------------------------------------------------ hearing

    def _joined(self, shard: int, member: str) -> None:
        self._heartbeat.set_member(shard, member)

    def _heard(self, shard: int, member: str, beat: Beat) -> None:
        if self.is_open:
            self.members[shard].heard(member, beat)

    def _run_ended(self, shard: int, run_id: str) -> None:
        self.members[shard].end_run(run_id)

    def _begin(self, chore: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(chore, name="datamesh-chore")
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    # ------------------------------------------------------------------------------------------------- scopes

    def _scope_of(self, run_id: str) -> RunScope:
        scope = self._runs.get(run_id)
        if scope is None:
            scope = self._runs[run_id] = RunScope(self._scope, run_id)
        return scope

    async def _tidy(self) -> None:
        """Close the scopes of runs that have ended; forget those that hold nothing and are not in use."""
        while True:
            await asyncio.sleep(max(1.0, self._settings.lease / 2))
            active = set().union(*(member.active_runs for member in self.members.values()))
            for run_id, scope in list(self._runs.items()):
                if run_id in active:
                    continue
                try:
                    if scope.is_unused or await self._is_over(run_id):
                        self._runs.pop(run_id, None)
                        await scope.aclose()
                except DatameshError as error:
                    _log.warning("cannot look after run %s: %s", run_id, error)

    async def _is_over(self, run_id: str) -> bool:
        shard = self.shard_of(run_id)
        state = await shard.protocol.command("HGET", shard.keys.run(run_id), "state")
        return state not in (b"open", b"waiting")


def own_labels(settings: Settings) -> dict[str, str]:
    """The labels of this service: what it was given, and facts about its machine."""
    machine = {
        "os": platform.system().lower(),
        "arch": platform.machine(),
        "python": platform.python_version(),
        "python_ver": platform.python_version(),
        "host": socket.gethostname(),
        "cpus": str(os.cpu_count() or 1),
    }
    return machine | {name: str(value) for name, value in settings.labels.items()}


def _may_run(served: Served, settings: Settings) -> bool:
    requires = served.binding.options.requires
    if requires is None or Placement.parse(requires).admits(own_labels(settings)):
        return True
    _log.info("%s is left to services that meet %r", served.ref, requires)
    return False
