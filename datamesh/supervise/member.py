"""Member: the presence of a supervisor in one shard, and all that it holds there.

It takes deliveries, runs them and settles them under a member id. Once that id is fenced, whatever is held under it is
dropped, and a fresh id takes its place.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from datamesh.codec.failure import Failure
from datamesh.depends.scopes import RunScope
from datamesh.errors import DatameshError, TamperedDataError
from datamesh.model.bound import BoundPlan
from datamesh.model.modes import Mode
from datamesh.model.reader import Reader
from datamesh.store.frames import Delivery, Settlement
from datamesh.store.keys import Level
from datamesh.store.plans import Plans
from datamesh.store.presence import connection_id, still_alive
from datamesh.store.protocol import Beat, Settled
from datamesh.store.seals import Place
from datamesh.store.store import ShardStore
from datamesh.store.streams import Signatures, StreamReader
from datamesh.supervise.delivery_run import DeliveryRun
from datamesh.supervise.discarding import check_place, discard
from datamesh.supervise.each import EachRun
from datamesh.supervise.intake import Intake
from datamesh.supervise.isolations import Isolations
from datamesh.supervise.oversight import Actor
from datamesh.supervise.served import Served
from datamesh.supervise.settler import Settler
from datamesh.supervise.slots import Slots
from datamesh.supervise.timers import Timers
from datamesh.supervise.whole import WholeRun

_log = logging.getLogger("datamesh.member")
_FLUSH_SECONDS = 5.0
_REAP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Service:
    """What the members of one supervisor have in common.

    Attributes:
        name: Of the service, unique to this supervisor.
        served: Implementations by task ref.
        slots: Invocations at once.
        lease_ms: See `Settings.lease`.
        scope_of: Gives the scope of a run.
        joined: Told the member id of a shard whenever it changes.
        isolations: Child processes for values that services may have died of.
    """

    name: str
    served: Mapping[str, Served]
    slots: Slots
    lease_ms: int
    scope_of: Callable[[str], RunScope]
    joined: Callable[[int, str], None]
    isolations: Isolations = field(default_factory=Isolations)


class Member:
    """Works in one shard."""

    def __init__(self, service: Service, shard: ShardStore) -> None:
        self._service = service
        self._shard = shard
        self._works = {shard.keys.work(ref, level): served for ref, served in service.served.items() for level in Level}
        self.id = ""
        self.plans = Plans(shard.protocol)
        self._settler = Settler(shard.protocol, member=lambda: self.id, fenced=self.fenced)
        self._intake = Intake(
            shard.protocol, shard.intake, slots=service.slots, works=list(self._works), member=lambda: self.id,
            most=self._most, ready=lambda: self._unbegun, deliver=self._deliver, give_back=self._return,
            held=self._holds, fenced=self.fenced,
        )  # fmt: skip
        for served in service.served.values():
            if served.slots is not None:
                served.slots.watch(self._intake.room_made)
        self._timers = Timers(shard.protocol)
        self._active: dict[tuple[str, str], DeliveryRun] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._rejoining: asyncio.Task[None] | None = None
        self._reaping: asyncio.Task[None] | None = None
        self._unbegun = 0
        self._reaped = time.monotonic()
        self._is_draining = False

    # ------------------------------------------------------------------------------------------- coming, going

    @property
    def actors(self) -> list[Actor]:
        """What works here, each in a loop of its own."""
        return [*([self._intake] if self._works else []), self._settler, self._timers]

    async def start(self) -> None:
        """Join and begin to take work."""
        await self._join()
        if self._works:
            self._intake.start()
        self._timers.start()

    async def _join(self) -> None:
        former, self.id = self.id, f"{self._service.name}.{secrets.token_hex(4)}"
        slots, connection = self._service.slots.total, await connection_id(self._shard.protocol)
        await self._shard.protocol.join(
            self.id, lease_ms=self._service.lease_ms, former=former,
            announcement=f"{slots} {self._service.name} {connection}",
            works=list(self._works), pressure=[served.pressure for served in self._works.values()],
        )  # fmt: skip
        self._service.joined(self._shard.index, self.id)

    def fenced(self, member: str) -> None:
        """This id is no member any more: drop what is held under it and come back under another."""
        if member != self.id or self._is_draining or (self._rejoining is not None and not self._rejoining.done()):
            return
        _log.warning("fenced in shard %d as %s: others may have taken its work over", self._shard.index, member)
        for run in list(self._active.values()):
            run.fence()
        self._rejoining = asyncio.create_task(self._rejoin(), name="datamesh-rejoin")

    async def _rejoin(self) -> None:
        try:
            await self._join()
        except DatameshError as error:
            # The next heartbeat of the new id is refused, and so it is tried again.
            _log.warning("could not join shard %d: %s", self._shard.index, error)

    def heard(self, member: str, beat: Beat) -> None:
        """Act on what a heartbeat brought."""
        if beat.fenced:
            self.fenced(member)
            return
        self._timers.due_in(beat.due_ms)
        # A read that a dead member left behind may be handed an entry when nobody looks for it any more.
        is_due = time.monotonic() - self._reaped > _REAP_SECONDS
        is_free = bool(self._works) and not self._is_draining and (self._reaping is None or self._reaping.done())
        if is_free and (beat.expired or beat.orphans or is_due):
            self._reaped = time.monotonic()
            self._reaping = asyncio.create_task(self._reap(beat.expired > 0), name="datamesh-reap")

    async def stop_taking(self) -> None:
        """Take nothing more."""
        self._is_draining = True
        if self._works:
            await self._intake.stop()

    async def drain(self, grace: float) -> None:
        """Finish what has begun within `grace` seconds, give the rest back."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=grace)
        for run in list(self._active.values()):
            run.release()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=2.0)
        await self._settler.flush(_FLUSH_SECONDS)

    async def close(self) -> None:
        """Stop everything at once."""
        self._is_draining = True
        loose = [*self._tasks.values(), self._rejoining, self._reaping]
        tasks = [task for task in loose if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._intake.close()
        await self._timers.close()
        await self._settler.close()
        await self._service.isolations.aclose()

    # ---------------------------------------------------------------------------------------------- deliveries

    def _most(self, work: str) -> int:
        own = self._works[work].slots
        return self._service.slots.total if own is None else own.free

    def _holds(self, work: str, entry_id: str) -> bool:
        return (work, entry_id) in self._tasks

    def _deliver(self, member: str, delivery: Delivery, *, is_extra: bool = False) -> None:
        """Run a delivery; a slot was taken for it, unless it is one too many."""
        if is_extra:
            self._service.slots.take()
        key = (delivery.work, delivery.entry_id)
        if key in self._tasks:
            self._service.slots.release()
            return
        own = self._works[delivery.work].slots
        if own is not None:
            own.take()
        self._unbegun += 1
        task = asyncio.create_task(self._run(member, delivery), name="datamesh-delivery")
        self._tasks[key] = task
        task.add_done_callback(lambda _: self._ended(key, own))

    def _ended(self, key: tuple[str, str], own: Slots | None) -> None:
        self._tasks.pop(key, None)
        self._active.pop(key, None)
        self._service.slots.release()
        if own is not None:
            own.release()

    def _return(self, member: str, delivery: Delivery) -> None:
        """Give an entry back that there is no slot for."""
        if delivery.problem:
            self._deliver(member, delivery, is_extra=True)
            return
        run = self._make(member, delivery, None)
        run.progress.release()
        settlement, _ = run.progress.settlement(final=True)
        self._settler.put(member, settlement)

    async def _run(self, member: str, delivery: Delivery) -> None:
        self._unbegun -= 1
        try:
            admitted = await self._admit(member, delivery)
            if admitted is None:
                return
            run = self._make(member, *admitted)
            self._active[(delivery.work, delivery.entry_id)] = run
            await run.run()
        except Exception as error:
            # Also a fault of ours must end the run: held by a live member, nobody else would come for it.
            await self._give_up(member, delivery, error)
        else:
            if run.retry_ms is not None:
                self._timers.due_in(run.retry_ms)

    async def _admit(self, member: str, delivery: Delivery) -> tuple[Delivery, BoundPlan] | None:
        """Check a delivery. One that cannot be read, belongs to nothing or was not signed by us is buried."""
        problem = delivery.problem
        if not problem:
            try:
                bound = self.plans.cached(delivery.digest) or await self.plans.find(delivery.digest)
                check_place(delivery, bound, self._works[delivery.work].ref)
                if self._shard.seals.is_on and not await self._is_open(delivery):
                    # What was copied from a run that is over is signed well, and is not to be run again.
                    self._settler.put(member, Settlement(delivery))
                    return None
                return self._shard.seals.delivery(delivery, bound), bound
            except TamperedDataError as error:
                problem = str(error)
        await discard(self._shard.protocol, member, delivery, problem, again_ms=self._service.lease_ms)
        if delivery.is_newer:
            self._timers.due_in(self._service.lease_ms)
        return None

    async def _is_open(self, delivery: Delivery) -> bool:
        run_key = self._shard.keys.run(delivery.run_id)
        state, origin = await self._shard.protocol.command("HMGET", run_key, "state", "origin")
        return bool(state == b"open" and origin == delivery.origin.encode())

    def _make(self, member: str, delivery: Delivery, bound: BoundPlan | None) -> DeliveryRun:
        served = self._works[delivery.work]
        kind = EachRun if served.binding.mode is Mode.EACH else WholeRun
        run = kind(
            delivery, bound, served, scope=self._service.scope_of(delivery.run_id), protocol=self._shard.protocol,
            settle=lambda settlement: self._settle(member, settlement, bound), slots=self._service.slots,
            room=self._shard.room, isolations=self._service.isolations, service=self._service.name,
        )  # fmt: skip
        if isinstance(run, WholeRun) and bound is not None:
            run.with_readers(lambda name, stream: self._reader(delivery, bound, served, name, stream))
        return run

    def _settle(
        self, member: str, settlement: Settlement, bound: BoundPlan | None
    ) -> asyncio.Future[Settled]:  # fmt: skip
        # Without a plan it goes back as it came, signature and all.
        sealed = settlement if bound is None else self._shard.seals.settlement(settlement, bound)
        return self._settler.put(member, sealed)

    def _reader(self, delivery: Delivery, bound: BoundPlan, served: Served, name: str, stream: str) -> Reader:
        shard, place = self._shard, Place.of(delivery, bound)
        signatures = Signatures(shard.protocol, shard.seals, delivery.run_id, bound.plan, place)
        index = bound.stream_index[stream]
        return StreamReader(shard.protocol, shard.tails, signatures, delivery.run_id, index, served.inputs[name])

    async def _give_up(self, member: str, delivery: Delivery, error: Exception) -> None:
        """A delivery that cannot be run ends its run, with the reason."""
        _log.error("delivery %s cannot be run: %s", delivery.id, error, exc_info=not isinstance(error, DatameshError))
        ref = self._works[delivery.work].ref
        failure = Failure.of(
            error, task=ref, attempt=delivery.attempt, run_id=delivery.run_id, service=self._service.name
        )
        await self._settler.put(member, Settlement(delivery, failure=failure.pack()))

    def end_run(self, run_id: str) -> None:
        """A run is over: stop what is running for it."""
        for run in list(self._active.values()):
            if run.delivery.run_id == run_id:
                run.cancel()

    @property
    def active_runs(self) -> set[str]:
        """Ids of the runs that something is running for."""
        return {run.delivery.run_id for run in self._active.values()}

    async def _reap(self, has_expired: bool) -> None:
        """Take over what members left behind that are no more; the next heartbeat asks again if that fails."""
        try:
            alive = await still_alive(self._shard.protocol) if has_expired else []
            with self._intake.giving_way():
                while not self._is_draining and await self._take_over(alive):
                    # What was begun before goes before what never was, so it gets the slots that become free.
                    await self._service.slots.wait_free()
        except DatameshError as error:
            _log.warning("could not take over in shard %d: %s", self._shard.index, error)

    async def _take_over(self, alive: Sequence[str]) -> bool:
        """Take over as much as there are free slots for; True: there may be more."""
        slots, member = self._service.slots.free, self.id
        taken = await self._shard.protocol.reap(member, slots=slots, works=list(self._works), alive=alive)
        if taken is None:
            self.fenced(member)
            return False
        for delivery in taken:
            _log.info("took over %s, of which %d holders have died", delivery.id, delivery.deaths)
            self._deliver(member, delivery, is_extra=True)
        return len(taken) >= slots
