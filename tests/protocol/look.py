"""Look: everything that stands in a shard, read at one moment, and a link that needs no event loop.

A script reads all keys in one call, so nothing can change in between and a look costs about as much as a settlement.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import hiredis
import msgpack

from datamesh.codec.frame import decode_lineages
from datamesh.store.frames import Frame
from datamesh.store.keys import ShardKeys
from datamesh.store.link import Caller, Reply, ReplyError

T = TypeVar("T")
Lineage = tuple[int, ...]
Values = tuple[Lineage, ...]
_CHUNK_BYTES = 1 << 20
_BACKLOG = re.compile(rb"^(\d+) (\d+) (\d+) (\d+)\n")

_LOOK = """
local out = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
  if not string.find(key, ':plan:', 1, true) then
    local kind = redis.call('TYPE', key)['ok']
    local row = {key, kind, redis.call('PTTL', key), {}}
    if kind == 'hash' then row[4] = redis.call('HGETALL', key)
    elseif kind == 'list' then row[4] = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'zset' then row[4] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    elseif kind == 'string' then row[4] = redis.call('GET', key)
    elseif kind == 'stream' then
      row[4] = redis.call('XRANGE', key, '-', '+')
      local groups = redis.call('XINFO', 'GROUPS', key)
      if #groups > 0 then
        for k = 1, #groups[1], 2 do
          if groups[1][k] == 'last-delivered-id' then row[5] = groups[1][k + 1] end
        end
        row[6] = redis.call('XPENDING', key, 'g', '-', '+', 100000)
        for _, held in ipairs(row[6]) do table.remove(held, 3) end
      end
    end
    out[#out + 1] = row
  end
end
return out
"""


class Piece(NamedTuple):
    """A frame on its way to a task; its values are their lineages."""

    node: int
    values: Values
    attempt: int
    mark: bytes


JUNK_FIELDS = (b"junk", b"junk")
"""Of an entry that cannot be read; in the model it is a frame of no run."""
JUNK_PIECE = Piece(-1, (), 0, b"")


class StraightLink(Caller):
    """A link that waits for each reply where it stands."""

    def __init__(self, path: str) -> None:
        self.generation = 1
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._reader = hiredis.Reader()

    def send(self, *args: bytes | str | int | float) -> Reply:
        """Send a command and return the reply.

        Raises:
            ReplyError: The server answered with an error.
        """
        self._socket.sendall(hiredis.pack_command(args))  # type: ignore[arg-type]
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(_CHUNK_BYTES))
        if isinstance(reply, hiredis.ReplyError):
            raise ReplyError(str(reply))
        return reply

    async def call(self, *args: bytes | str | int | float, timeout: float | None = None) -> Reply:
        return self.send(*args)

    async def unblock(self, by: Caller) -> bool:
        return False

    async def close(self) -> None:
        self._socket.close()


def finish(course: Coroutine[Any, Any, T]) -> T:
    """Run to its end what waits for nothing."""
    try:
        course.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    course.close()
    raise AssertionError("it waits for something")


@dataclass
class Work:
    """A work stream: its entries, up to where they were given out, and who holds what."""

    entries: dict[str, tuple[str, str, Piece]] = field(default_factory=dict)
    """Run id, origin, frame, by entry id."""
    read_to: str | None = None
    """None: it has no group."""
    pending: dict[str, str] = field(default_factory=dict)

    def unread(self) -> list[str]:
        """Ids of the entries that nobody was given yet."""
        after = id_key(self.read_to or "0-0")
        return [entry_id for entry_id in self.entries if id_key(entry_id) > after]


class Tail(NamedTuple):
    """A run stream: values in order, how it ended, and how many end markers it has."""

    values: list[tuple[int, ...]]
    end: str
    ends: int
    failure: bytes


@dataclass
class Look:
    """A shard at one moment; keys without their prefix."""

    raw: list[Any]
    hashes: dict[str, dict[str, bytes]] = field(default_factory=dict)
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    works: dict[str, Work] = field(default_factory=dict)
    backlogs: dict[str, list[Piece]] = field(default_factory=dict)
    tails: dict[str, Tail] = field(default_factory=dict)
    entries: dict[str, list[dict[str, bytes]]] = field(default_factory=dict)
    expiry: dict[str, int] = field(default_factory=dict)

    def without_times(self) -> list[Any]:
        """All that stands there, but for when it expires."""
        return sorted([key, kind, _in_order(kind, content), *group] for key, kind, _, content, *group in self.raw)


class Eye:
    """Looks at a shard again and again."""

    def __init__(self, link: StraightLink, keys: ShardKeys) -> None:
        self._link = link
        self._keys = keys
        self._digest = ""

    def look(self) -> Look:
        """Read everything.

        Raises:
            AssertionError: Something stands there that cannot be.
        """
        if not self._digest:
            self._digest = self._link.send("SCRIPT", "LOAD", _LOOK).decode()
        try:
            rows = self._link.send("EVALSHA", self._digest, 0, self._keys.prefix)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
            self._digest = ""
            return self.look()
        found = Look(rows)
        for key, kind, ttl, content, *group in rows:
            self._place(found, key.decode()[len(self._keys.prefix) :], kind.decode(), content, group)
            found.expiry[key.decode()[len(self._keys.prefix) :]] = ttl
        return found

    @staticmethod
    def _place(found: Look, name: str, kind: str, content: Any, group: Sequence[Any]) -> None:
        match kind:
            case "hash":
                found.hashes[name] = {a.decode(): b for a, b in zip(content[::2], content[1::2], strict=True)}
            case "zset":
                found.scores[name] = {a.decode(): float(b) for a, b in zip(content[::2], content[1::2], strict=True)}
            case "list" if ":b:" in name:
                node = int(name.rpartition(":")[2])
                found.backlogs[name] = [_backlog_piece(node, item) for item in content]
            case "stream" if name.startswith("work:"):
                found.works[name] = _work(content, group)
            case "stream" if re.search(r":s:\d+$", name):
                found.tails[name] = _tail([_named(fields) for _, fields in content])
            case "stream":
                found.entries[name] = [{"id": at, **_named(fields)} for at, fields in content]


def _in_order(kind: bytes, content: Any) -> Any:
    """The fields of a hash stand in any order."""
    return sorted(zip(content[::2], content[1::2], strict=True)) if kind == b"hash" else content


def id_key(entry_id: str) -> tuple[int, int]:
    """Ids of entries in the order of time."""
    ms, _, number = entry_id.partition("-")
    return int(ms), int(number or 0)


def lineages_of(frame: Frame) -> Values:
    """Lineages of a frame; its values must be the same."""
    return _values(frame.count, frame.lineages, frame.values) if frame.count else ()


def later_piece(text: bytes) -> tuple[str, str, str, Piece | None]:
    """What is due: kind, run, origin, and the frame of a retry."""
    head, _, frame = text.partition(b"\n")
    kind, run, node, origin = head.decode().split(" ")
    if kind == "parked":
        return kind, "", "", JUNK_PIECE
    return kind, run, origin, _backlog_piece(int(node), frame) if kind == "retry" else None


@lru_cache(4096)
def _values(count: int, lineages: bytes, values: bytes) -> Values:
    found = tuple(tuple(value) for value in msgpack.unpackb(values))
    assert list(found) == decode_lineages(lineages), f"{found} is said to come from {decode_lineages(lineages)}"
    assert len(found) == count, f"{found} is said to be {count}"
    return found


def _named(fields: Sequence[bytes]) -> dict[str, bytes]:
    return {name.decode(): value for name, value in zip(fields[::2], fields[1::2], strict=True)}


def _work(content: Any, group: Sequence[Any]) -> Work:
    found = Work()
    for entry_id, fields in content:
        found.entries[entry_id.decode()] = _work_entry(tuple(fields))
    if group:
        found.read_to = group[0].decode()
        found.pending = {row[0].decode(): row[1].decode() for row in group[1]}
    return found


@lru_cache(4096)
def _work_entry(fields: tuple[bytes, ...]) -> tuple[str, str, Piece]:
    if fields == JUNK_FIELDS:
        return "", "", JUNK_PIECE
    named = _named(fields)
    node, meta = named["m"].decode().split(" ", 1)
    run, _, origin = named["r"].decode().partition(" ")
    return run, origin, _piece(int(node), meta, named["l"], named["v"], named.get("k", b""))


@lru_cache(4096)
def _backlog_piece(node: int, text: bytes) -> Piece:
    match = _BACKLOG.match(text)
    assert match, f"no frame: {text!r}"
    parts, at = [], match.end()
    for size in map(int, match.groups()):
        parts.append(text[at : at + size])
        at += size
    assert at == len(text), f"{len(text) - at} bytes stand behind {text!r}"
    return _piece(node, parts[0].decode(), *parts[1:])


def _piece(node: int, meta: str, lineages: bytes, values: bytes, mark: bytes) -> Piece:
    count, attempt, _ = meta.split(" ")
    return Piece(node, _values(int(count), lineages, values) if int(count) else (), int(attempt), mark)


def _tail(entries: Sequence[Mapping[str, bytes]]) -> Tail:
    values: list[tuple[int, ...]] = []
    for fields in entries:
        if int(fields["n"]):
            values += _values(int(fields["n"]), fields["l"], fields["v"])
    last: Mapping[str, bytes] = entries[-1] if entries else {}
    return Tail(values, last.get("e", b"").decode(), sum("e" in fields for fields in entries), last.get("x", b""))
