"""The protocol: one typed method per script, and the loop that repeats what may be repeated.

Every script is safe to call again with the same arguments, so a lost reply is answered by the same call once more. What
is transient (a lost connection, a failover, a script the server forgot) never reaches a caller before its patience is
over.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from datamesh.errors import StoreUnavailableError
from datamesh.store.connect import Endpoint
from datamesh.store.frames import Delivery, Frame, Settlement, Status, delivery_of
from datamesh.store.keys import ShardKeys
from datamesh.store.link import Caller, LinkLost, Reply, ReplyError
from datamesh.store.script import SCRIPTS

Arg = str | int | float | bytes

_TRANSIENT = frozenset(
    {"LOADING", "READONLY", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "BUSY", "NOREPLICAS", "OOM", "UNBLOCKED"}
)
_MOVED = frozenset({"MOVED", "ASK", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "UNBLOCKED"})
"""What says that another server is in charge now."""
_STATUS = {status.value.encode(): status for status in Status}
_START_IT = "Start it, or set DATAMESH_URL, `url=` or `client=` to another Redis"
_FIXES = {
    "OOM": "Raise its `maxmemory`, or let runs end: what is under way goes on to its end and frees some",
    "NOREPLICAS": "Bring its replicas back, or lower `min-replicas-to-write`",
    "READONLY": "It is a replica: name the primary, or the sentinels (redis+sentinel://)",
    "LOADING": "Wait until it has read its data",
}
_FIRST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0
DEFAULT_PATIENCE = 10.0
"""Seconds that a call goes on trying before it raises."""


class Settled(NamedTuple):
    """Outcome of one settlement."""

    status: Status
    is_full: bool = False
    """Whether a task that it fed is over its high mark: who goes on waits for room."""


class Pushed(NamedTuple):
    """Outcome of a write to an open input: OK, ALREADY, GONE, CLOSED or WAITING."""

    status: str
    is_full: bool
    """Whether a task that it fed is over its high mark: the writer waits for room."""
    origin: str
    """Of the run; empty if there is none."""


class Beat(NamedTuple):
    """What a member hears with its heartbeat."""

    fenced: bool
    expired: int
    orphans: int
    due_ms: int
    """Until something is due; -1: nothing is."""


class Submission(NamedTuple):
    """A run to be recorded."""

    run_id: str
    digest: str
    origin: str
    retention_ms: int
    level: str
    deadline_ms: int
    fields: Mapping[str, int | str]
    staged: Sequence[tuple[str, int, str, int, int]]
    """Kind ("s" or "b"), index, staged key, values, frames."""
    frames: Sequence[tuple[int, Frame]]
    complete: Sequence[int]
    deliveries: Sequence[int]
    quota: str = ""
    """What the run may have, as `Quota.text` gives it."""


class ShardProtocol:
    """The scripts of one shard."""

    def __init__(
        self, keys: ShardKeys, link: Caller, endpoint: Endpoint, *, patience: float | None = DEFAULT_PATIENCE
    ) -> None:
        self.keys = keys
        self.link = link
        self._endpoint = endpoint
        self._patience = patience

    # ------------------------------------------------------------------------------------------------ members

    async def join(
        self, member: str, *, lease_ms: int, former: str, announcement: str, works: Sequence[str],
        pressure: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Become a member and make the groups of the work streams; `pressure` has the marks of each, or ""."""
        k = self.keys
        keys = [k.members, k.services, k.windows, k.pressure, k.orphans, *works]
        await self.run("join", keys, [member, lease_ms, former, announcement, *(pressure or [""] * len(works))])

    async def beat(self, member: str, *, lease_ms: int) -> Beat:
        k = self.keys
        keys = [k.members, k.services, k.windows, k.pressure, k.orphans, k.due]
        reply = await self.run("beat", keys, [member, lease_ms])
        if reply[0] == b"FENCED":
            return Beat(True, 0, 0, -1)
        return Beat(False, int(reply[1]), int(reply[2]), int(reply[3]))

    async def leave(self, member: str) -> None:
        k = self.keys
        await self.run("leave", [k.members, k.services, k.windows, k.orphans], [member])

    async def reap(
        self, member: str, *, slots: int, works: Sequence[str], alive: Sequence[str] = ()
    ) -> list[Delivery] | None:  # fmt: skip
        """Take over what belongs to no member, at most `slots` entries; None: the caller itself is none any more.

        Members past their deadline that are `alive` have not died with what they hold.
        """
        k = self.keys
        keys = [k.members, k.services, k.windows, k.orphans, k.marks, k.frozen, *works]
        reply = await self.run("reap", keys, [member, slots, *alive])
        return None if reply[0] == b"FENCED" else _held_before(reply[1:])

    async def recover(self, member: str, *, works: Sequence[str]) -> list[Delivery] | None:
        """Read all that a member holds, after replies were lost that handed entries to it; None: it is no member."""
        reply = await self.run("recover", [self.keys.members, self.keys.marks, *works], [member])
        return None if reply[0] == b"FENCED" else _held_before(reply[1:])

    # --------------------------------------------------------------------------------------------- deliveries

    async def take(self, member: str, *, most: int, works: Sequence[str], each: Sequence[int]) -> list[Delivery] | None:
        """Take entries without waiting; None: the caller is no member any more."""
        reply = await self.run("take", [self.keys.members, *works], [member, most, *each])
        if reply[0] == b"FENCED":
            return None
        return [
            delivery_of(work.decode(), entry, fields)
            for work, entry, fields in zip(*[iter(reply[1:])] * 3, strict=True)
        ]

    async def settle(self, member: str, settlements: Sequence[Settlement]) -> list[Settled]:
        """Settle many deliveries in one call; a FENCED caller gets that status for each."""
        k = self.keys
        args: list[Arg] = [member, k.plans, k.run_prefix, len(settlements)]
        for settlement in settlements:
            args += settlement.args(k.run_prefix + settlement.delivery.run_id)
        keys = [k.members, k.windows, k.pressure, k.marks, k.due, k.later, k.dead, k.news, k.runs, k.ended]
        reply = await self.run("settle", keys, args)
        if len(reply) == 1:
            return [Settled(Status.FENCED)] * len(settlements)
        return [Settled(_STATUS[word], full == 1) for word, full in zip(reply[::2], reply[1::2], strict=True)]

    async def discard(self, member: str, delivery: Delivery, reason: str, *, delay_ms: int = 0) -> Status:
        """Bury an entry that cannot be run, with what could be read of it; or have it come back later."""
        k = self.keys
        keys = [k.members, delivery.work, k.marks, k.due, k.later, k.dead]
        reply = await self.run("discard", keys, [member, delivery.entry_id, reason, delivery.raw, delay_ms])
        return _STATUS[reply[0]]

    async def promote(self) -> tuple[int, int]:
        """Deliver what is due; returns how much that was and the ms until the next (-1: nothing)."""
        k = self.keys
        keys = [k.windows, k.due, k.later, k.news, k.runs, k.ended, k.waiting]
        reply = await self.run("promote", keys, [k.plans, k.run_prefix])
        return int(reply[0]), int(reply[1])

    async def sweep(self) -> int:
        return int(await self.run("sweep", [self.keys.runs, self.keys.ended], []))

    # --------------------------------------------------------------------------------------------------- runs

    async def submit(self, s: Submission) -> tuple[str, str, str]:
        """Record a run; returns OK, EXISTS, NOPLAN or GONE, and its state and plan where they are known."""
        k = self.keys
        run = k.run(s.run_id)
        args: list[Arg] = [k.plans, k.run_prefix, s.run_id, s.digest, s.retention_ms, s.level, s.deadline_ms, s.origin]
        args += [s.quota, len(s.fields)]
        for name, value in s.fields.items():
            args += (name, value)
        args.append(len(s.staged))
        for row in s.staged:
            args += row
        args.append(len(s.frames))
        for stream, frame in s.frames:
            args.append(stream)
            args += frame
        args += [len(s.complete), *s.complete, len(s.deliveries), *s.deliveries]
        keys = [run, k.plan(s.digest), k.windows, k.due, k.later, k.news, k.runs, k.ended, k.waiting]
        reply = [word.decode() for word in await self.run("submit", keys, args)]
        status, state, digest = (*reply, "", "")[:3]
        return status, state, digest

    async def stage(self, run_id: str, token: str, kind: str, index: int, number: int, frames: Sequence[Frame]) -> str:
        """Bring in a part of a large input; returns the key that submit takes over."""
        counter = f"{self.keys.stage(run_id, token)}:{kind}:{index}:n"
        staged = f"{self.keys.stage(run_id, token)}:{kind}:{index}"
        args: list[Arg] = [kind, number, len(frames)]
        for frame in frames:
            args += frame
        await self.run("stage", [counter, staged], args)
        return staged

    async def wait(
        self,
        run_id: str,
        *,
        origin: str,
        retention_ms: int,
        request: bytes,
        taps: str,
        level: str,
        staged: Sequence[str],
        deadline_ms: int = 0,
    ) -> tuple[str, str]:
        """Record a run that waits for tasks to be announced; its deadline (0: none) counts from now on."""
        k = self.keys
        keys = [k.run(run_id), k.due, k.later, k.news, k.runs, k.ended, k.waiting, *staged]
        args: list[Arg] = [k.plans, k.run_prefix, origin, retention_ms, request, taps, level, deadline_ms]
        reply = await self.run("wait", keys, args)
        return reply[0].decode(), reply[1].decode() if len(reply) > 1 else ""

    async def push(
        self, run_id: str, stream: int, *, writer: str, number: int, frames: Sequence[Frame], close: bool = False,
        origin: str = "",
    ) -> Pushed:  # fmt: skip
        """Add frames to an open input, or close it; only of the run with this origin, if one is given."""
        k = self.keys
        args: list[Arg] = [k.plans, k.run_prefix, stream, writer, number, int(close), origin, len(frames)]
        for frame in frames:
            args += (frame.count, frame.flags, frame.values)
        keys = [k.run(run_id), k.windows, k.pressure, k.due, k.later, k.news, k.runs, k.ended]
        reply = await self.run("push", keys, args)
        return Pushed(reply[0].decode(), reply[1] == 1, reply[2].decode())

    async def end(self, run_id: str, *, state: str, failure: bytes = b"") -> str:
        """End a run early; returns the state it is in then, or an empty text if there is no such run."""
        k = self.keys
        keys = [k.run(run_id), k.news, k.runs, k.ended, k.waiting, k.due, k.later]
        reply = await self.run("end", keys, [k.plans, k.run_prefix, state, failure])
        return reply[1].decode() if len(reply) > 1 else ""

    async def listen(self, run_id: str) -> str:
        """Have facts about the run kept from now on; returns its state, or an empty text if there is no such run."""
        reply = await self.run("listen", [self.keys.run(run_id)], [])
        return reply[1].decode() if len(reply) > 1 else ""

    async def write_plan(self, digest: str, fields: Mapping[str, str | bytes]) -> None:
        args: list[Arg] = []
        for name, value in fields.items():
            args += (name, value)
        await self.run("plan", [self.keys.plan(digest)], args)

    async def put_blobs(self, run_id: str, blobs: Mapping[str, bytes]) -> bool:
        """Keep large values beside their run; False: the run is over."""
        for digest, body in blobs.items():
            reply = await self.run("blob", [self.keys.blobs(run_id), self.keys.run(run_id)], [digest, body])
            if reply[0] != b"OK":
                return False
        return True

    # ------------------------------------------------------------------------------------------------ calling

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Arg]) -> Reply:
        """Run a script, again and again while only transient things go wrong."""
        script = SCRIPTS[name]
        return await self.repeat(lambda: self._evaluate(script.digest, script.source, keys, args))

    async def command(self, *args: Arg) -> Reply:
        """Run a command that reads or may be repeated."""
        return await self.repeat(lambda: self.link.call(*args))

    async def _evaluate(self, digest: str, source: str, keys: Sequence[str], args: Sequence[Arg]) -> Reply:
        try:
            return await self.link.call("EVALSHA", digest, len(keys), *keys, *args)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
            return await self.link.call("EVAL", source, len(keys), *keys, *args)

    async def repeat(self, attempt: Callable[[], object]) -> Reply:
        """Call `attempt` until it succeeds, fails for good, or patience is over.

        Raises:
            StoreUnavailableError: Patience is over, or the server refuses us.
        """
        until = None if self._patience is None else time.monotonic() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return await attempt()  # type: ignore[misc]
            except LinkLost as error:
                problem: Exception = error
                # The node may be gone for good, and another in its place.
                with suppress(LinkLost):
                    await self._endpoint.moved()
            except ReplyError as error:
                problem = error
                if error.code in _MOVED:
                    await self._follow()
                elif error.code not in _TRANSIENT:
                    raise self._refused(error) from error
            if until is not None and time.monotonic() + pause > until:
                fix = _FIXES.get(getattr(problem, "code", ""), _START_IT)
                raise StoreUnavailableError(where=str(self._endpoint), problem=str(problem), fix=fix) from problem
            await asyncio.sleep(pause * (0.5 + random.random()))
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _follow(self) -> None:
        # Where no node answers now, the next attempt asks again.
        with suppress(LinkLost):
            await self._endpoint.moved()
        await self.link.close()

    def _refused(self, error: ReplyError) -> Exception:
        if error.code in ("NOAUTH", "WRONGPASS", "NOPERM"):
            fix = "Check the user's password and rights"
        elif error.code == "MISCONF":
            fix = "Redis cannot write its data to disk: look at its log"
        else:
            return error
        return StoreUnavailableError(where=str(self._endpoint), problem=str(error), fix=fix)


def _held_before(rows: Sequence[Reply]) -> list[Delivery]:
    """Read entries that may have been held by others before, with the marks that these have left."""
    taken = []
    for work, entry_id, times, kept, fields in zip(*[iter(rows)] * 5, strict=True):
        delivery = delivery_of(work.decode(), entry_id, fields)
        delivery.deaths = int(times)
        if kept:
            step, _, delivery.mark = kept.partition(b" ")
            delivery.step = int(step)
        taken.append(delivery)
    return taken
