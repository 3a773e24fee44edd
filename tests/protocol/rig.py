"""Rig: one shard on a real server, its scripts called one at a time, and a look at all that is there."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack
import pytest

from datamesh.codec.frame import decode_lineages, span
from datamesh.model.bound import BoundPlan
from datamesh.model.flow import Flow
from datamesh.model.modes import Mode
from datamesh.model.task import Task
from datamesh.store.connect import Endpoint, endpoint_of
from datamesh.store.frames import PLAIN, Delivery, Frame, Settlement, Status
from datamesh.store.keys import Level, ShardKeys
from datamesh.store.locate import locate
from datamesh.store.plans import plan_fields
from datamesh.store.protocol import Settled, ShardProtocol, Submission
from tests.servers import KINDS

on_both_servers = pytest.mark.parametrize("server", KINDS, indirect=True)
HOUR_MS = 3_600_000
LEASE_MS = 60_000

Lineage = tuple[int, ...]


class Entry(NamedTuple):
    """One entry of a run stream, decoded."""

    values: list[Any]
    lineages: list[Lineage]
    end: str
    failure: bytes


@dataclass
class Rig:
    """One shard, seen by several members at once and by a test that knows everything.

    Attributes:
        client: A synchronous client of redis-py, to look at the server with; scripts go through `protocol`.
        works: Work streams that members join and take from, all levels.
    """

    client: Any
    endpoint: Endpoint
    keys: ShardKeys
    protocol: ShardProtocol
    works: list[str] = field(default_factory=list)
    bounds: dict[str, BoundPlan] = field(default_factory=dict)

    @classmethod
    def on(cls, client: Any, url: str, mesh: str, shard: int = 0) -> Rig:
        endpoint = endpoint_of(locate(url, None, mesh), None)
        keys = ShardKeys(mesh, shard)
        return cls(client, endpoint, keys, ShardProtocol(keys, endpoint.link(keys.prefix), endpoint, patience=2.0))

    async def close(self) -> None:
        await self.protocol.link.close()

    # ------------------------------------------------------------------------------------------------- flows

    async def bind(self, *tasks: Task, tapped: Sequence[str] | None = None, **modes: Mode) -> BoundPlan:
        """Write the plan of a flow; tasks take single values unless `modes` (by task name) or `wait` says otherwise."""
        plan = Flow.from_tasks(*tasks, name="f").resolve().plan
        chosen = {task.ref: modes.get(task.name, Mode.STREAM if task.wait else Mode.EACH) for task in tasks}
        bound = BoundPlan.of(plan, chosen, tapped=[s.name for s in plan.streams] if tapped is None else tapped)
        await self.protocol.write_plan(bound.digest, plan_fields(bound, self.keys))
        self.bounds[bound.digest] = bound
        self.works += [self.keys.work(task.ref, level) for task in tasks for level in Level]
        return bound

    def submission(
        self,
        bound: BoundPlan,
        run_id: str = "R",
        *,
        inputs: Mapping[str, Sequence[Frame]] | None = None,
        complete: bool = True,
        staged: Sequence[tuple[str, int, str, int, int]] = (),
        level: Level = Level.NORMAL,
        deadline_ms: int = 0,
        retention_ms: int = HOUR_MS,
        origin: str = "",
    ) -> Submission:
        """What starts a run; its inputs by name, in frames."""
        frames = [(bound.stream_index[name], frame) for name, some in (inputs or {}).items() for frame in some]
        closed = [bound.stream_index[name] for name in bound.plan.inputs] if complete else []
        return Submission(
            run_id, bound.digest, origin or secrets.token_hex(8), retention_ms, level.value, deadline_ms,
            bound.start_fields, staged, frames, closed, bound.starters,
        )  # fmt: skip

    async def start(
        self, bound: BoundPlan, run_id: str = "R", *, values: int | Sequence[Any] = 0, **options: Any
    ) -> str:
        """Start a run whose inputs get these values (a number: 0, 1, 2, ...), one frame each; return its state."""
        given = list(range(values)) if isinstance(values, int) else list(values)
        inputs = {name: frames(given) for name in bound.plan.inputs}
        status, state, _ = await self.protocol.submit(self.submission(bound, run_id, inputs=inputs, **options))
        assert status == "OK"
        return state

    # ----------------------------------------------------------------------------------------------- members

    async def join(self, member: str, *, slots: int = 1, former: str = "", works: Sequence[str] | None = None) -> str:
        """Make a member; it reads all work streams unless told otherwise."""
        await self.protocol.join(
            member, lease_ms=LEASE_MS, former=former, announcement=f"{slots} {member}",
            works=self.works if works is None else works,
        )  # fmt: skip
        return member

    def expire(self, member: str) -> None:
        """Let the lease of a member be over."""
        assert self.client.zadd(self.keys.members, {member: 1}, xx=True, ch=True) == 1

    def forget_watch(self) -> None:
        """Let the time be over in which a removed member is watched."""
        for orphan, _ in self.client.zrange(self.keys.orphans, 0, -1, withscores=True):
            self.client.zadd(self.keys.orphans, {orphan: 1})

    async def take(self, member: str, most: int = 1000, *, works: Sequence[str] | None = None) -> list[Delivery]:
        works = self.works if works is None else works
        taken = await self.protocol.take(member, most=most, works=works, each=[most] * len(works))
        assert taken is not None
        return taken

    async def take_one(self, member: str) -> Delivery:
        (delivery,) = await self.take(member, 1)
        return delivery

    async def reap(self, member: str, slots: int = 1000) -> list[Delivery]:
        taken = await self.protocol.reap(member, slots=slots, works=self.works)
        assert taken is not None
        return taken

    async def settle(self, member: str, *settlements: Settlement) -> list[Status]:
        statuses = [settled.status for settled in await self.protocol.settle(member, settlements)]
        for settlement, status in zip(settlements, statuses, strict=True):
            if settlement.step and status in (Status.OK, Status.ALREADY):
                # As an owner does: it knows of the last step that it sent.
                settlement.delivery.step = max(settlement.delivery.step, settlement.step)
        return statuses

    async def settle_all(self, member: str, *, each: int = 1000) -> int:
        """Take and settle until nothing is left; every value of an each task goes to each of its outputs."""
        count = 0
        while taken := await self.take(member, each):
            assert set(await self.settle(member, *map(self.echo, taken))) == {Status.OK}
            count += len(taken)
        return count

    # ------------------------------------------------------------------------------------------- settlements

    def bound_of(self, delivery: Delivery) -> BoundPlan:
        return self.bounds[delivery.digest]

    def name_of(self, delivery: Delivery) -> str:
        return self.bound_of(delivery).plan.nodes[delivery.node].name

    def echo(self, delivery: Delivery) -> Settlement:
        """The outcome of a task that gives each output what it got."""
        outputs = self.bound_of(delivery).outputs[delivery.node].values()
        given = [(stream, delivery.frame) for stream in outputs if delivery.frame.count]
        return Settlement(delivery, done=max(1, delivery.frame.count), outputs=given)

    def done(self, delivery: Delivery, **outputs: Sequence[Any]) -> Settlement:
        """The outcome of one delivery, with values by output."""
        index = self.bound_of(delivery).outputs[delivery.node]
        given = [(index[name], frame(values)) for name, values in outputs.items()]
        return Settlement(delivery, done=max(1, delivery.frame.count), outputs=given)

    # ------------------------------------------------------------------------------------------ what is there

    def run(self, run_id: str = "R") -> dict[str, str]:
        """The hash of a run."""
        found = self.client.hgetall(self.keys.run(run_id))
        return {name.decode(): value.decode(errors="replace") for name, value in found.items()}

    def stream(self, bound: BoundPlan, name: str, run_id: str = "R") -> list[Entry]:
        """Entries of a run stream."""
        key = self.keys.stream(run_id, bound.stream_index[name])
        return [_entry(fields) for _, fields in self.client.xrange(key)]

    def values(self, bound: BoundPlan, name: str, run_id: str = "R") -> list[Any]:
        """Values of a run stream."""
        return [value for entry in self.stream(bound, name, run_id) for value in entry.values]

    def ended(self, bound: BoundPlan, name: str, run_id: str = "R") -> str:
        """How a run stream ended ("" if it did not); it must have ended once at most, with its last entry."""
        ends = [entry.end for entry in self.stream(bound, name, run_id)]
        assert not any(ends[:-1]), f"stream {name} goes on after its end"
        return ends[-1] if ends else ""

    def queued(self, bound: BoundPlan, node: str, level: str = "", run_id: str = "R") -> int:
        """Frames of a run in the work stream of a node, taken or not."""
        work = self.keys.work(bound.plan.node(node).ref, level)
        return sum(fields[b"r"].split(b" ")[0] == run_id.encode() for _, fields in self.client.xrange(work))

    def backlog(self, bound: BoundPlan, node: str, run_id: str = "R") -> int:
        return int(self.client.llen(self.keys.backlog(run_id, bound.node_index[node])))

    def snapshot(self, *, times: bool = True) -> dict[str, Any]:
        """Everything on the server, with the moments at which it expires unless told otherwise."""
        found = {}
        for key in sorted(self.client.scan_iter(count=1000)):
            content = _content(self.client, key)
            found[key.decode()] = (content, self.client.pexpiretime(key)) if times else content
        return found

    def lasting(self, run_id: str = "R") -> list[str]:
        """Keys of a run that never expire."""
        every = [key for key in self.client.scan_iter(count=1000) if key.decode().startswith(self.keys.run(run_id))]
        return sorted(key.decode() for key in every if self.client.pttl(key) < 0)


def frame(values: Sequence[Any], *, start: int = 0) -> Frame:
    """One frame, its values numbered from `start`."""
    return Frame(len(values), PLAIN, span((), start, len(values)), msgpack.packb(list(values)))


def frames(values: Sequence[Any], *, size: int = 1) -> list[Frame]:
    """Frames of `size` values."""
    return [frame(values[at : at + size], start=at) for at in range(0, len(values), size)]


def values_of(some: Frame) -> list[Any]:
    """What a frame carries."""
    return list(msgpack.unpackb(some.values)) if some.count else []


def statuses(settled: Sequence[Settled]) -> list[Status]:
    return [one.status for one in settled]


def _entry(fields: Mapping[bytes, bytes]) -> Entry:
    count = int(fields[b"n"])
    values = list(msgpack.unpackb(fields[b"v"])) if count else []
    lineages = decode_lineages(fields[b"l"]) if count else []
    assert len(values) == len(lineages) == count
    return Entry(values, lineages, fields.get(b"e", b"").decode(), fields.get(b"x", b""))


def _content(client: Any, key: bytes) -> Any:
    match client.type(key):
        case b"string":
            return client.get(key)
        case b"hash":
            return dict(sorted(client.hgetall(key).items()))
        case b"list":
            return client.lrange(key, 0, -1)
        case b"set":
            return sorted(client.smembers(key))
        case b"zset":
            return client.zrange(key, 0, -1, withscores=True)
        case b"stream":
            return client.xrange(key), [_group(client, key, group) for group in client.xinfo_groups(key)]
        case other:
            raise AssertionError(f"{key!r} is a {other!r}")


def _group(client: Any, key: bytes, group: Mapping[str, Any]) -> Any:
    held = client.xpending_range(key, group["name"], "-", "+", 100_000)
    return (
        {name: group[name] for name in ("name", "last-delivered-id")},
        [(one["message_id"], one["consumer"], one["times_delivered"]) for one in held],
        sorted(one["name"] for one in client.xinfo_consumers(key, group["name"])),
    )
