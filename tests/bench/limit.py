"""The limit: two stages over streams, written by hand with redis-py, no guarantees, everything pipelined.

One coroutine for each stage, reading a stream with a group, adding to the next one and acknowledging in one pipeline.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Any

import msgpack
from redis.asyncio import Redis

_ENTRIES = 100
"""Entries that a stage takes, and sends, at once."""


async def limit(url: str, *, count: int, per_entry: int) -> float:
    """Values per second through two stages, `per_entry` values in each entry."""
    names = [f"limit:{secrets.token_hex(4)}:{stage}" for stage in range(3)]
    client = Redis.from_url(url)
    try:
        for name in names[:2]:
            await client.xgroup_create(name, "g", "0", mkstream=True)
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            group.create_task(_feed(client, names[0], count, per_entry))
            group.create_task(_stage(client, names[0], names[1], count, add=1, factor=1))
            group.create_task(_stage(client, names[1], names[2], count, add=0, factor=3))
            collected = group.create_task(_collect(client, names[2], count))
        seconds = time.perf_counter() - began
        assert collected.result() == [3 * (value + 1) for value in range(count)]
        return count / seconds
    finally:
        await client.delete(*names)
        await client.aclose()


async def _feed(client: Redis, name: str, count: int, per_entry: int) -> None:
    for start in range(0, count, per_entry * _ENTRIES):
        pipeline = client.pipeline(transaction=False)
        for first in range(start, min(count, start + per_entry * _ENTRIES), per_entry):
            pipeline.xadd(name, {"v": msgpack.packb(list(range(first, min(count, first + per_entry))))})
        await pipeline.execute()


async def _stage(client: Redis, source: str, target: str, count: int, *, add: int, factor: int) -> None:
    left = count
    while left:
        rows = _rows(await client.xreadgroup("g", "c", {source: ">"}, count=_ENTRIES, block=1000))
        pipeline = client.pipeline(transaction=False)
        for entry, fields in rows:
            values = msgpack.unpackb(fields[b"v"])
            left -= len(values)
            pipeline.xadd(target, {"v": msgpack.packb([factor * (value + add) for value in values])})
            pipeline.xack(source, "g", entry)
            pipeline.xdel(source, entry)
        await pipeline.execute()


async def _collect(client: Redis, name: str, count: int) -> list[int]:
    values: list[int] = []
    last: Any = "0"
    while len(values) < count:
        for entry, fields in _rows(await client.xread({name: last}, count=_ENTRIES, block=1000)):
            values += msgpack.unpackb(fields[b"v"])
            last = entry
    return values


def _rows(reply: Any) -> list[Any]:
    """Entries of the one stream that was read; redis-py gives them as a list or, in RESP3, as a mapping."""
    streams = list(reply.values()) if isinstance(reply, dict) else [rows for _, rows in reply or ()]
    return [row for rows in streams for part in rows for row in (part if isinstance(part, list) else [part])]
