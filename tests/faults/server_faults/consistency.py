"""Consistency: all that a shard says about its runs, counted again from what is really there.

A server that lost writes is at an earlier moment, and that moment must make sense by itself: what is open of a task is
what lies in its work stream, in backlogs and among retries; what a stream has published is what readers find; a stream
has ended if nobody writes to it any more, and then once; nothing is in two places.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from datamesh.codec.frame import decode_lineages
from datamesh.store.keys import GROUP, ShardKeys

LeftOf = Callable[[bytes], Sequence[int]]
"""Of the mark of a frame: indexes of the values that are left of it."""

_PACKED = re.compile(rb"^(\d+) (\d+) (\d+) (\d+)\n")
_VALUES_A_PLACE = 32
_MOST = 1_000_000
_Lineage = tuple[int, ...]


@dataclass
class Task:
    """What is there of one task of one run."""

    open: int = 0
    places: int = 0
    """That its frames take in the window."""
    retries: int = 0
    buried: int = 0
    lineages: Counter[_Lineage] = field(default_factory=Counter)


def violations(client: Any, keys: ShardKeys, left_of: LeftOf) -> list[str]:
    """List every contradiction in a shard; nobody may work on it meanwhile.

    Args:
        client: Of the server; a synchronous one of redis-py.
        keys: Of the shard.
        left_of: Reads marks.
    """
    return list(_Recount(client, keys, left_of).all())


class _Recount:
    def __init__(self, client: Any, keys: ShardKeys, left_of: LeftOf) -> None:
        self._client = client
        self._keys = keys
        self._left_of = left_of
        self._tasks: defaultdict[tuple[str, str, int], Task] = defaultdict(Task)
        """By run id, origin and node."""
        self._plans: dict[str, dict[str, str]] = {}

    def all(self) -> Iterator[str]:
        marks = {name.decode(): mark for name, mark in self._client.hgetall(self._keys.marks).items()}
        for work in self._client.scan_iter(self._keys.work("*"), count=1000):
            yield from self._count_work(work.decode(), marks)
        yield from (f"mark {name} belongs to nothing" for name in marks)
        yield from self._count_due()
        self._count_dead()
        owned = self._owned_keys()
        for run_id, names in sorted(owned.items()):
            yield from (f"run {run_id}: {what}" for what in self._check(run_id, names))

    # --------------------------------------------------------------------------------------- what is there

    def _count_work(self, work: str, marks: dict[str, bytes]) -> Iterator[str]:
        entries = {entry_id.decode(): fields for entry_id, fields in self._client.xrange(work)}
        for pending in self._client.xpending_range(work, GROUP, "-", "+", _MOST):
            if pending["message_id"].decode() not in entries:
                yield f"{work}: {pending['message_id']!r} is held by {pending['consumer']!r} and does not exist"
        for entry_id, fields in entries.items():
            mark = marks.pop(f"{work} {entry_id}", b"").partition(b" ")[2] or fields.get(b"k", b"")
            run_id, _, origin = fields[b"r"].decode().partition(" ")
            node, _, meta = fields[b"m"].decode().partition(" ")
            task = self._tasks[run_id, origin, int(node)]
            task.places += max(1, math.ceil(int(meta.split(" ")[0]) / _VALUES_A_PLACE))
            self._add(task, meta, fields[b"l"], mark)

    def _add(self, task: Task, meta: str, lineages: bytes, mark: bytes) -> None:
        count = int(meta.split(" ")[0])
        if not count:  # Of whole streams, and open until it is settled.
            task.open += 1
            return
        left = self._left_of(mark) if mark else range(count)
        known = decode_lineages(lineages)
        task.open += len(left)
        task.lineages.update(known[index] for index in left)

    def _count_due(self) -> Iterator[str]:
        due = {name.decode() for name in self._client.zrange(self._keys.due, 0, -1)}
        later = {name.decode(): text for name, text in self._client.hgetall(self._keys.later).items()}
        yield from (f"{name} is in only one of `due` and `later`" for name in due ^ later.keys())
        for text in later.values():
            head, _, packed = text.partition(b"\n")
            kind, run_id, node, origin = head.decode().split(" ")
            if kind == "retry":
                task = self._tasks[run_id, origin, int(node)]
                task.retries += 1
                self._add(task, *_unpacked(packed))

    def _count_dead(self) -> None:
        for _, fields in self._client.xrange(self._keys.dead):
            if b"m" in fields:
                node, count = fields[b"m"].decode().split(" ")[:2]
                self._tasks[fields[b"r"].decode(), fields[b"o"].decode(), int(node)].buried += int(count)

    def _count_backlog(self, run_id: str, origin: str, node: int) -> None:
        for item in self._client.lrange(self._keys.backlog(run_id, node), 0, -1):
            self._add(self._tasks[run_id, origin, node], *_unpacked(item))

    def _owned_keys(self) -> dict[str, list[str]]:
        owned: dict[str, list[str]] = defaultdict(list)
        for key in self._client.scan_iter(self._keys.run("*"), count=1000):
            name = key.decode().removeprefix(self._keys.run_prefix)
            owned[name.partition(":")[0]].append(key.decode())
        return owned

    # ------------------------------------------------------------------------------------------ what is said

    def _check(self, run_id: str, names: Collection[str]) -> Iterator[str]:
        run = {k.decode(): v.decode(errors="replace") for k, v in self._client.hgetall(self._keys.run(run_id)).items()}
        if "plan" not in run:
            return
        plan = self._plan(run["plan"])
        if not plan:
            yield "its plan is gone"
            return
        if run["state"] == "open":
            yield from self._check_tasks(run_id, run, plan)
        else:
            yield from (f"{name} stays for ever" for name in names if self._client.pttl(name) < 0)
            if self._client.zscore(self._keys.ended, run_id) is None:
                yield "it is over and nobody will forget it"
        if run["state"] == "done" and any(_number(run, f"o:{node}") for node in range(int(plan["nodes"]))):
            yield "it is done with work left"
        for stream in map(int, plan["taps"].split()):
            yield from (f"stream {stream}: {what}" for what in self._check_stream(run_id, run, stream))

    def _check_tasks(self, run_id: str, run: dict[str, str], plan: dict[str, str]) -> Iterator[str]:
        routes = _routes(plan)
        left, writers = 0, Counter[int]()
        for node in range(int(plan["nodes"])):
            self._count_backlog(run_id, run["origin"], node)
            task = self._tasks[run_id, run["origin"], node]
            tokens = _number(run, f"o:{node}")
            left += tokens > 0
            if tokens > 0:
                writers.update(map(int, plan[f"n{node}"].split()))
            open_inputs = [s for s, mode in routes[node] if _number(run, f"c:{s}") > 0 and mode != "stream"]
            is_each = any(mode == "each" for _, mode in routes[node])
            expected = task.open + (len(open_inputs) if is_each else min(1, _number(run, f"i:{node}")))
            claims = {"o": (tokens, expected), "q": (_number(run, f"q:{node}"), task.places)}
            claims["r"] = (_number(run, f"r:{node}"), task.retries)
            claims["x"] = (_number(run, f"x:{node}"), task.buried)
            if any(mode == "wait" for _, mode in routes[node]):
                claims["i"] = (_number(run, f"i:{node}"), len(open_inputs))
            yield from (f"{name}:{node} says {said}, there are {n}" for name, (said, n) in claims.items() if said != n)
            yield from (f"node {node} has {line} twice" for line, n in task.lineages.items() if n > 1)
        if _number(run, "left") != left:
            yield f"left says {run['left']}, there are {left}"
        for stream in {s for n in range(int(plan["nodes"])) for s in map(int, plan[f"n{n}"].split())}:
            if _number(run, f"c:{stream}") != writers[stream]:
                yield f"c:{stream} says {run.get(f'c:{stream}')}, there are {writers[stream]}"

    def _check_stream(self, run_id: str, run: dict[str, str], stream: int) -> Iterator[str]:
        entries = [fields for _, fields in self._client.xrange(self._keys.stream(run_id, stream))]
        count = sum(int(fields[b"n"]) for fields in entries)
        if count != _number(run, f"v:{stream}"):
            yield f"v says {run.get(f'v:{stream}')}, there are {count}"
        ends = [place for place, fields in enumerate(entries) if fields.get(b"e")]
        is_closed = run["state"] != "open" or _number(run, f"c:{stream}") == 0
        if ends != ([len(entries) - 1] if is_closed else []):
            yield f"ends at {ends} of {len(entries)} entries, and is {'closed' if is_closed else 'open'}"
        lineages = Counter(line for fields in entries if int(fields[b"n"]) for line in decode_lineages(fields[b"l"]))
        yield from (f"{line} came {n} times" for line, n in lineages.items() if n > 1)

    def _plan(self, digest: str) -> dict[str, str]:
        if digest not in self._plans:
            found = self._client.hgetall(self._keys.plan(digest))
            self._plans[digest] = {k.decode(): v.decode(errors="replace") for k, v in found.items()}
        return self._plans[digest]


def _unpacked(packed: bytes) -> tuple[str, bytes, bytes]:
    """Meta, lineages and mark of a frame in a backlog or among the retries."""
    sizes = _PACKED.match(packed)
    assert sizes is not None, packed[:50]
    meta, lineages, values, _ = map(int, sizes.groups())
    at = sizes.end()
    return packed[at : at + meta].decode(), packed[at + meta :][:lineages], packed[at + meta + lineages + values :]


def _routes(plan: dict[str, str]) -> dict[int, list[tuple[int, str]]]:
    """For each node: the streams that it reads, and how it is fed."""
    routes: dict[int, list[tuple[int, str]]] = defaultdict(list)
    stream = 0
    while f"s{stream}" in plan:
        words = plan[f"s{stream}"].split()[1:]
        for node, mode in zip(words[::2], words[1::2], strict=True):
            routes[int(node)].append((stream, mode))
        stream += 1
    return routes


def _number(run: dict[str, str], name: str) -> int:
    return int(run.get(name, 0))
