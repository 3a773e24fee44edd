"""Cluster: Redis Cluster, where the slot of a key tells its node, and slots and masters may move at any time."""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from collections.abc import Mapping
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.crc import key_slot
from redis.exceptions import RedisError

from datamesh.errors import StoreUnavailableError
from datamesh.store.dial import Address, ask, dial
from datamesh.store.link import Caller, Link, LinkLost, Reply

_SHARDS = 16
_FRESH = 0.1
"""Seconds during which a map that was read serves all who ask for a new one."""
_KNOWN = 1.0
"""Seconds after which who connects wants a new one: a node that is gone does not say where its slots are."""

Slots = list[tuple[int, int, Address]]
"""First slot, last slot and their master."""


class Cluster:
    """Links that follow their slot: to another node when it moves, to a replica when that is promoted."""

    shards = _SHARDS

    def __init__(self, kind: type[AbstractConnection], options: Mapping[str, Any]) -> None:
        self._kind = kind
        self._options = dict(options)
        self._seed: Address = (self._options.get("host", "localhost"), int(self._options.get("port", 6379)))
        self._known = [self._seed]
        self._slots: Slots = []
        self._read_at = -math.inf
        self._lock = asyncio.Lock()
        self._links: weakref.WeakKeyDictionary[Link, int] = weakref.WeakKeyDictionary()

    def link(self, key: str, *, blocking: bool = False) -> Caller:
        slot = key_slot(key.encode())
        link = Link(lambda: self._connect(slot), blocking=blocking)
        self._links[link] = slot
        return link

    async def _connect(self, slot: int) -> AbstractConnection:
        if time.monotonic() - self._read_at > _KNOWN:
            await self.moved()
        address = _master_of(slot, self._slots)
        if address is None:
            raise LinkLost(f"no node of the cluster serves slot {slot}")
        host, port = address
        return await dial(self._kind, self._options | {"host": host, "port": port}, f"{host}:{port}")

    async def moved(self) -> None:
        """Read the map of slots anew, and leave the nodes that lost a slot to another one.

        Raises:
            LinkLost: No node answers.
            StoreUnavailableError: None does, and one refuses us.
        """
        async with self._lock:
            if time.monotonic() - self._read_at < _FRESH:
                return
            before, self._slots = self._slots, await self._read()
            self._read_at = time.monotonic()
            for link, slot in list(self._links.items()):
                old, new = _master_of(slot, before), _master_of(slot, self._slots)
                if old is not None and new is not None and old != new:
                    link.drop(f"slot {slot} is at {new[0]}:{new[1]} now")

    async def _read(self) -> Slots:
        """Ask one node after the other; who does not answer is asked last the next time."""
        problems: list[str] = []
        refusal: StoreUnavailableError | None = None
        for address in list(self._known):
            try:
                rows = await ask(self._kind, self._options, address, "CLUSTER", "SLOTS")
            except (RedisError, OSError) as error:
                problems.append(f"{address[0]}:{address[1]}: {error}")
            except StoreUnavailableError as error:
                refusal = error
            else:
                return self._learn(address, rows)
            self._known.remove(address)
            self._known.append(address)
        raise refusal or LinkLost(f"no node of the cluster answers: {'; '.join(problems)}")

    def _learn(self, told_by: Address, rows: Reply) -> Slots:
        # Replicas are remembered, for one may be all that is left of its master; nodes that went are forgotten.
        nodes = [_address(node, told_by[0]) for row in rows for node in row[2:]]
        if nodes:
            self._known = list(dict.fromkeys([told_by, *nodes, self._seed]))
        return [(int(row[0]), int(row[1]), _address(row[2], told_by[0])) for row in rows if len(row) > 2]

    def __str__(self) -> str:
        return f"the cluster of {self._seed[0]}:{self._seed[1]}"


def _master_of(slot: int, slots: Slots) -> Address | None:
    return next((address for first, last, address in slots if first <= slot <= last), None)


def _address(node: Reply, told_by: str) -> Address:
    """A node that does not know its own name is where it was asked."""
    host = (node[0] or b"").decode()
    return host if host not in ("", "?") else told_by, int(node[1])
