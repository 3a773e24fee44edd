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
from collections.abc import Callable, Mapping, Set

from datamesh.depends.overrides import Overrides
from datamesh.depends.scopes import ServiceScope
from datamesh.errors import ServiceBrokenError
from datamesh.model.placement import Placement
from datamesh.model.plan import Plan
from datamesh.settings import Settings
from datamesh.store.connect import Endpoint
from datamesh.store.protocol import Beat
from datamesh.store.store import ShardStore, Store
from datamesh.supervise import drain
from datamesh.supervise.health import Health, ServiceState
from datamesh.supervise.heartbeat import Heartbeat
from datamesh.supervise.launch import Launcher
from datamesh.supervise.loop import Loop
from datamesh.supervise.member import Member, Service
from datamesh.supervise.news import News
from datamesh.supervise.oversight import Actor, Oversight
from datamesh.supervise.reading import Reading
from datamesh.supervise.run_scopes import RunScopes
from datamesh.supervise.served import Served
from datamesh.supervise.slots import Slots
from datamesh.supervise.waiting import Waiting
from datamesh.supervise.watchdog import Watchdog

_log = logging.getLogger("datamesh.supervisor")


class Session:
    """What a supervisor holds while it works.

    Attributes:
        state: Where it stands in its life.
        broken: Done with the reason, once it cannot go on.
    """

    def __init__(
        self, store: Store, served: Mapping[str, Served], settings: Settings, overrides: Overrides,
        endpoint: Callable[[], Endpoint], name: str | None,
    ) -> None:  # fmt: skip
        self.store = store
        self.loop = asyncio.get_running_loop()
        self.slots = Slots(settings.concurrency)
        self.state = ServiceState.STARTING
        self.broken: asyncio.Future[ServiceBrokenError] = self.loop.create_future()
        self._announced = served
        served = {ref: one for ref, one in served.items() if _may_run(one, settings)}
        self._executors = {id(one.executor): one.executor for one in served.values()}.values()
        self._scope = ServiceScope(overrides)
        self._scopes = RunScopes(store, self._scope, active=self._active_runs, pause=max(1.0, settings.lease / 2))
        service_name = name or f"{socket.gethostname()}-{os.getpid()}"
        service = Service(
            name=f"{service_name}.{secrets.token_hex(3)}", served=served, slots=self.slots, lease_ms=settings.lease_ms,
            scope_of=self._scopes.of, joined=self._joined,
        )  # fmt: skip
        self.members = {shard.index: Member(service, shard) for shard in store.shards}
        self.launchers = {
            shard.index: Launcher(shard.protocol, self.members[shard.index].plans, store.contracts, shard.seals)
            for shard in store.shards
        }
        self._heartbeat = Heartbeat(
            [shard.keys for shard in store.shards], endpoint, lease_ms=settings.lease_ms, heard=self._heard
        )
        self._news = [News(shard, self._news_of) for shard in store.shards]
        waiting = [Waiting(shard, self.launchers[shard.index]) for shard in store.shards] if served else []
        self._store_watch = Loop("store-watch", self._watch_store)
        self._loops: list[Loop] = [*self._news, *waiting, self._scopes, self._store_watch]
        self._oversight = Oversight([*self._actors(), *self._loops, self._heartbeat], self._gave_up)
        self._watchdog = Watchdog()
        self._ending: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it takes part in the mesh."""
        return self.state in (ServiceState.WORKING, ServiceState.DRAINING)

    async def start(self) -> None:
        """Announce, join and begin to take work.

        Raises:
            ContractMismatchError: A task was announced by others in another form.
            StoreUnavailableError: The store cannot be reached.
        """
        await self._announce()
        await asyncio.gather(*(news.seek() for news in self._news))
        await asyncio.gather(*(member.start() for member in self.members.values()))
        self._heartbeat.start()
        self.state = ServiceState.WORKING
        for loop in self._loops:
            loop.start()
        self._oversight.start()
        self._watchdog.start()

    async def _announce(self) -> None:
        for ref, served in self._announced.items():
            await self.store.contracts.announce(ref, served.contract())

    def shard_of(self, run_id: str) -> ShardStore:
        return self.store.shard_of(run_id)

    def launcher_of(self, run_id: str) -> Launcher:
        return self.launchers[self.shard_of(run_id).index]

    def tell_of_late_tasks(self, plan: Plan, here: Set[str]) -> None:
        """Say why a run waits for tasks that are among those implemented `here`: they came after the work began."""
        late = sorted(node.ref for node in plan.nodes if node.ref in here and node.ref not in self._announced)
        if late:
            _log.warning("a run waits for %s: implemented here, but only after the work began", ", ".join(late))

    # ------------------------------------------------------------------------------------------------ its health

    def health(self) -> Health:
        """How it is now; may be asked from any thread."""
        return Health(
            self.state,
            lag=round(self._watchdog.lag, 3),
            slots_used=self.slots.used,
            slots_total=self.slots.total,
            hung_threads=sum(getattr(executor, "abandoned", 0) for executor in self._executors),
            actors=tuple(pulse.health() for pulse in self._oversight.pulses),
            error=str(self.broken.result()) if self.broken.done() else "",
        )

    def _actors(self) -> list[Actor]:
        """What works in the shards, of the members and of all who read there."""
        members = [actor for member in self.members.values() for actor in member.actors]
        return [*members, *map(Reading, self.store.shards)]

    def _gave_up(self, error: ServiceBrokenError) -> None:
        """An actor cannot be kept going: leave the mesh, so that others take over what is held here."""
        if self.is_open:
            _log.critical("%s", error)
            self.state = ServiceState.BROKEN
            self.broken.set_result(error)
            self._ending = self.loop.create_task(self.close(leave=True), name="datamesh-ending")

    async def _watch_store(self) -> None:
        """Hear from the store what it finds out by itself: that it lost what it had, that it begins to evict."""
        self.store.on_loss = self._announce
        self._store_watch.pulse.rest()
        await self.store.watch()

    # ------------------------------------------------------------------------------------------------- its end

    async def drain(self, grace: float) -> None:
        """Take nothing more, finish or release what runs within `grace` seconds, and leave the mesh."""
        if self.state is ServiceState.WORKING:
            self.state = ServiceState.DRAINING
            await drain.finish(self.members.values(), grace)
            cleaning = asyncio.create_task(self._scope.aclose(), name="datamesh-cleaning")
            await asyncio.wait((cleaning,), timeout=drain.CLEAN_SECONDS)
            await self.close(leave=True)
            await cleaning
        elif self._ending is not None:
            await asyncio.wait((self._ending,))

    async def keep(self) -> None:
        """Wait for the end of the event loop: with it ends the work, without a drain but without a trace either."""
        try:
            await asyncio.wait((self.broken,))
        finally:
            if self.is_open:
                await self.close(leave=True)

    async def close(self, *, leave: bool) -> None:
        """Stop everything at once; what runs is left to others."""
        if self.state is not ServiceState.BROKEN:
            self.state = ServiceState.STOPPED
        self._watchdog.stop()
        await self._oversight.close()
        for loop in self._loops:
            await loop.close()
        await drain.within(drain.CLOSE_SECONDS, "to stop", *(member.close() for member in self.members.values()))
        await self.slots.close()
        await asyncio.to_thread(self._heartbeat.stop, leave=leave, timeout=drain.LEAVE_SECONDS)
        await self.store.close()

    def abandon(self) -> None:
        """The event loop is ending and nothing can be awaited any more: let the mesh know at once."""
        self.state = ServiceState.STOPPED
        self._watchdog.stop()
        self._heartbeat.stop(leave=True, timeout=1.0)

    # ------------------------------------------------------------------------------------------------ hearing

    def _joined(self, shard: int, member: str) -> None:
        self._heartbeat.set_member(shard, member)

    def _heard(self, shard: int, member: str, beat: Beat) -> None:
        if self.is_open:
            self.members[shard].heard(member, beat)

    def _news_of(self, shard: int, kind: str, run_id: str) -> None:
        if kind == "ended":
            self.members[shard].end_run(run_id)
        elif kind == "room":
            self.store.shards[shard].room.made(run_id)

    def _active_runs(self) -> set[str]:
        return set().union(*(member.active_runs for member in self.members.values()))


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
