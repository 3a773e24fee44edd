"""Endpoints: where a shard's Redis is, and connections to it that never repeat a command by themselves.

redis-py sets a socket timeout of 5 s and repeats a command up to 10 times: an `XADD` whose reply was lost ran 11 times.
So connections are made here, with its classes (authentication, TLS, sockets) but without its timeouts and retries;
scripts are safe to repeat, and `protocol.py` repeats them.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from typing import Any, Protocol

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from datamesh.errors import ConfigurationError, StoreUnavailableError
from datamesh.store.link import Caller, Link, LinkLost
from datamesh.store.locate import Deployment, Location
from datamesh.store.memory import memory_client
from datamesh.store.memory_link import MemoryLink

_KEPT = ("host", "port", "db", "username", "password", "path", "credential_provider", "socket_keepalive", "client_name")
_CLUSTER_SHARDS = 16


class Endpoint(Protocol):
    """Makes links to the server that holds a key."""

    shards: int
    """How many shards a new mesh gets here."""

    def link(self, key: str, *, blocking: bool = False) -> Caller:
        """Make a link to the server that holds `key`; it connects with its first command."""
        ...

    async def moved(self) -> None:
        """Learn anew where keys are, after a server said that one has moved."""
        ...


def endpoint_of(location: Location, client: object | None, socket_path: str | None = None) -> Endpoint:
    """Make the endpoint of a location.

    Args:
        location: As `locate` decided.
        client: The redis-py client that the program passed, if any: synchronous, asynchronous or cluster.
        socket_path: Of the embedded server, if that is the location.

    Raises:
        ConfigurationError: The client is of no kind that can be used, or the deployment is not supported.
    """
    match location.deployment:
        case Deployment.CLIENT:
            return _of_client(client)
        case Deployment.EMBEDDED:
            return Server(UnixDomainSocketConnection, {"path": socket_path})
        case Deployment.MEMORY:
            return Memory(client)
        case Deployment.CLUSTER:
            return Cluster(*_parsed(location.client_url))
        case Deployment.SENTINEL:
            raise ConfigurationError("redis+sentinel:// is not supported yet: pass the URL of the primary")
        case _:
            return Server(*_parsed(location.client_url))


def _parsed(url: str) -> tuple[type[AbstractConnection], dict[str, Any]]:
    options: dict[str, Any] = dict(parse_url(url))
    return options.pop("connection_class", Connection), options


def _of_client(client: object) -> Endpoint:
    nodes = getattr(client, "nodes_manager", None)
    if nodes is not None:
        options = dict(nodes.connection_kwargs)
        start = next(iter(nodes.startup_nodes.values()))
        options |= {"host": start.host, "port": start.port}
        return Cluster(SSLConnection if options.get("ssl") else Connection, options)
    pool = getattr(client, "connection_pool", None)
    if pool is None:
        raise ConfigurationError(
            f"client={client!r} is no Redis client: pass `redis.asyncio.Redis(...)`, `redis.Redis(...)` or `url=`"
        )
    if type(client).__module__.startswith("fakeredis"):
        return Memory(client)
    options = dict(pool.connection_kwargs)
    name = pool.connection_class.__name__
    if "Unix" in name:
        return Server(UnixDomainSocketConnection, options)
    return Server(SSLConnection if "SSL" in name else Connection, options)


async def _open(kind: type[AbstractConnection], options: Mapping[str, Any], where: str) -> AbstractConnection:
    kept = {name: value for name, value in options.items() if name in _KEPT or name.startswith("ssl")}
    if kind is not SSLConnection:
        kept = {name: value for name, value in kept.items() if not name.startswith("ssl")}
    kept.pop("ssl", None)
    connection = kind(
        **kept,
        protocol=2,
        socket_timeout=None,
        socket_connect_timeout=5,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )
    try:
        await connection.connect()
    except (RedisError, OSError) as error:
        await connection.disconnect(nowait=True)
        # What the server or TLS said stands behind an error of the client's own.
        for said in (error, error.__cause__, error.__context__):
            if isinstance(said, AuthenticationError | ResponseError):
                raise StoreUnavailableError(
                    where=where,
                    problem=f"the server refuses us: {said}",
                    fix="Check user name, password and database in the URL or client",
                ) from error
            if isinstance(said, ssl.SSLError):
                raise StoreUnavailableError(
                    where=where,
                    problem=f"TLS failed: {said}",
                    fix="Check the certificates (`ssl_ca_certs=`) and the scheme rediss://",
                ) from error
        raise
    return connection


class Server:
    """One Redis or Valkey: every key is there."""

    shards = 1

    def __init__(self, kind: type[AbstractConnection], options: Mapping[str, Any]) -> None:
        self._kind = kind
        self._options = options

    def link(self, key: str, *, blocking: bool = False) -> Caller:
        return Link(self._connect, blocking=blocking)

    async def _connect(self) -> AbstractConnection:
        return await _open(self._kind, self._options, str(self))

    async def moved(self) -> None:
        """Nothing moves on one server."""

    def __str__(self) -> str:
        path = self._options.get("path")
        return str(path) if path else f"{self._options.get('host', 'localhost')}:{self._options.get('port', 6379)}"


class Cluster:
    """Redis Cluster: the slot of a key tells its node."""

    shards = _CLUSTER_SHARDS

    def __init__(self, kind: type[AbstractConnection], options: Mapping[str, Any]) -> None:
        self._kind = kind
        self._options = dict(options)
        self._known = [(self._options.get("host", "localhost"), int(self._options.get("port", 6379)))]
        self._slots: list[tuple[int, int, tuple[str, int]]] = []
        self._lock = asyncio.Lock()

    def link(self, key: str, *, blocking: bool = False) -> Caller:
        slot = key_slot(key.encode())
        return Link(lambda: self._connect(slot), blocking=blocking)

    async def _connect(self, slot: int) -> AbstractConnection:
        if not self._slots:
            await self.moved()
        for first, last, (host, port) in self._slots:
            if first <= slot <= last:
                return await _open(self._kind, self._options | {"host": host, "port": port}, f"{host}:{port}")
        raise LinkLost(f"no node of the cluster serves slot {slot}")

    async def moved(self) -> None:
        async with self._lock:
            problems = []
            for host, port in list(self._known):
                try:
                    self._slots = await self._ask(host, port)
                except (RedisError, OSError, LinkLost) as error:
                    problems.append(f"{host}:{port}: {error}")
                    continue
                self._known = list(dict.fromkeys([address for _, _, address in self._slots] + self._known))
                return
            raise LinkLost(f"no node of the cluster answers: {'; '.join(problems)}")

    async def _ask(self, host: str, port: int) -> list[tuple[int, int, tuple[str, int]]]:
        connection = await _open(self._kind, self._options | {"host": host, "port": port}, f"{host}:{port}")
        try:
            await connection.send_command("CLUSTER", "SLOTS")
            rows = await connection.read_response(disable_decoding=True)
        finally:
            await connection.disconnect()
        return [(int(row[0]), int(row[1]), (row[2][0].decode() or host, int(row[2][1]))) for row in rows]

    def __str__(self) -> str:
        return f"the cluster of {self._known[0][0]}:{self._known[0][1]}"


class Memory:
    """A Redis in this process, for tests: links share one client and never block inside it.

    Args:
        client: Whose store is used; each event loop has a client of its own for it.
    """

    shards = 1

    def __init__(self, client: Any = None) -> None:
        self._client = memory_client(sharing=client)

    def link(self, key: str, *, blocking: bool = False) -> Caller:
        return MemoryLink(self._client)

    async def moved(self) -> None:
        """Nothing moves in memory."""

    def __str__(self) -> str:
        return "memory://"
