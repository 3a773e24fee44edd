"""Durability: waiting until a start is where a fault of Redis cannot take it away any more.

Replication and the append-only file keep the order of writes. So when a write that was made after the start is
confirmed, the start is, too. `WAIT` holds its connection up, so it has one of its own.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from enum import StrEnum
from typing import NoReturn, Self

from datamesh.errors import ConfigurationError, NotDurableError, StoreUnavailableError
from datamesh.store.link import Caller, LinkLost, Reply, ReplyError
from datamesh.store.store import ShardStore, Store

CONFIRM_SECONDS = 10.0
"""Until a start that is not confirmed raises."""
_PART_MS = 2000
_MARGIN = 2.0
_KEPT_MS = 60_000
_PAUSE = 0.1
_FOR_GOOD = frozenset({"ERR", "NOPERM", "WRONGTYPE"})


class Durability(StrEnum):
    """What a start waits for."""

    ACKNOWLEDGED = "acknowledged"
    """The server has it in memory and has said so."""
    REPLICATED = "replicated"
    """A replica has it, too."""
    FSYNC = "fsync"
    """It is on the server's disk."""

    @classmethod
    def of(cls, given: str) -> Self:
        """Read what a user gave.

        Raises:
            ConfigurationError: There is no such level.
        """
        try:
            return cls(given)
        except ValueError:
            levels = ", ".join(repr(level.value) for level in cls)
            raise ConfigurationError(f"durability={given!r} cannot be used: pass one of {levels}") from None


async def probe(store: Store, run_id: str, level: Durability) -> None:
    """Say before anything is written that the server of a run cannot give this durability.

    A server that may not be asked is taken to be able to: `confirm` finds out.

    Raises:
        ConfigurationError: The server can never give it as it is set up.
        NotDurableError: It has no replica now.
        StoreError: It cannot be reached.
    """
    shard = store.shard_of(run_id)
    if level is Durability.REPLICATED and await _told(shard, "replication", "connected_slaves") == "0":
        problem = f"no replica is connected to {store.endpoint}, so it was not even tried"
        raise NotDurableError(run_id=run_id, asked=level.value, problem=problem)
    if level is Durability.FSYNC:
        if not await _knows(shard, "WAITAOF"):
            _cannot(level, f"{store.endpoint} does not know WAITAOF: it takes Redis 7.2 or Valkey 7.2")
        if await _told(shard, "persistence", "aof_enabled") == "0":
            _cannot(level, f"{store.endpoint} keeps no append-only file: set `appendonly yes`")


async def confirm(store: Store, run_id: str, level: Durability, *, seconds: float = CONFIRM_SECONDS) -> None:
    """Wait until a run that was recorded is as durable as asked for; failovers are followed.

    Raises:
        NotDurableError: It is not, within `seconds`. The run is recorded, unless a failover has lost it.
    """
    if level is Durability.ACKNOWLEDGED:
        return
    shard = store.shard_of(run_id)
    link = store.endpoint.link(shard.keys.prefix)
    try:
        async with asyncio.timeout(seconds):
            while True:
                if await _is_confirmed(store, shard, link, run_id, level):
                    return
    except TimeoutError:
        problem = f"it was not confirmed within {seconds:g} s"
        raise NotDurableError(run_id=run_id, asked=level.value, problem=problem) from None
    finally:
        await link.close()


async def _is_confirmed(store: Store, shard: ShardStore, link: Caller, run_id: str, level: Durability) -> bool:
    try:
        return await _waited(shard, link, run_id, level)
    except (LinkLost, ReplyError, StoreUnavailableError) as error:
        if isinstance(error, ReplyError) and error.code in _FOR_GOOD:
            raise NotDurableError(run_id=run_id, asked=level.value, problem=str(error)) from error
        await link.close()
        with suppress(LinkLost, StoreUnavailableError):
            await store.endpoint.moved()
        await asyncio.sleep(_PAUSE)
        return False


async def _waited(shard: ShardStore, link: Caller, run_id: str, level: Durability) -> bool:
    """Write something where the run is, and wait for that: what is confirmed by one server is not by another."""
    if not await link.call("HEXISTS", shard.keys.run(run_id), "state"):
        problem = "it is not there any more: a failover has lost it, or its retention is over"
        raise NotDurableError(run_id=run_id, asked=level.value, problem=problem)
    connection = link.generation
    await link.call("SET", shard.keys.durable, run_id, "PX", _KEPT_MS)
    if level is Durability.REPLICATED:
        confirmed = await link.call("WAIT", 1, _PART_MS, timeout=_PART_MS / 1000 + _MARGIN)
    else:
        confirmed, _ = await link.call("WAITAOF", 1, 0, _PART_MS, timeout=_PART_MS / 1000 + _MARGIN)
    return bool(confirmed) and connection == link.generation


async def _told(shard: ShardStore, section: str, field: str) -> str:
    """One field of `INFO`; an empty text where it may not be asked for."""
    text = await _asked(shard, "INFO", section) or b""
    found = (line.partition(":") for line in text.decode().splitlines())
    return next((value.strip() for name, _, value in found if name == field), "")


async def _knows(shard: ShardStore, command: str) -> bool:
    reply = await _asked(shard, "COMMAND", "INFO", command)
    return reply is None or any(reply)


async def _asked(shard: ShardStore, *command: str) -> Reply:
    """Ask the server of a shard; None where that is refused."""
    try:
        return await shard.protocol.command(*command)
    except ReplyError:
        return None
    except StoreUnavailableError as error:
        if isinstance(error.__cause__, ReplyError):
            return None
        raise


def _cannot(level: Durability, problem: str) -> NoReturn:
    raise ConfigurationError(f"durability={level.value!r} cannot be had: {problem}, or ask for less")
