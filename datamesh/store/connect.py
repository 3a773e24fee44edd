"""Endpoints: where the Redis of a shard is, and links to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from redis.asyncio.connection import AbstractConnection, UnixDomainSocketConnection

from datamesh.errors import ConfigurationError
from datamesh.store.cluster import Cluster
from datamesh.store.dial import dial, kind_of, parsed
from datamesh.store.link import Caller, Link
from datamesh.store.locate import Deployment, Location
from datamesh.store.memory import memory_client
from datamesh.store.memory_link import MemoryLink
from datamesh.store.sentinel import Sentinel, watched_of_pool, watched_of_url


class Endpoint(Protocol):
    """Makes links to the server that holds a key."""

    shards: int
    """How many shards a new mesh gets here."""

    def link(self, key: str, *, blocking: bool = False) -> Caller:
        """Make a link to the server that holds `key`; it connects with its first command."""
        ...

    async def moved(self) -> None:
        """Learn anew which server is in charge of what, and leave those that are not any more.

        Raises:
            LinkLost: Nobody who knows answers.
            StoreUnavailableError: Who knows refuses us.
        """
        ...


def endpoint_of(location: Location, client: object | None, socket_path: str | None = None) -> Endpoint:
    """Make the endpoint of a location.

    Args:
        location: As `locate` decided.
        client: The redis-py client that the program passed, if any: synchronous or asynchronous, of a server, a
            cluster, or of the primary that sentinels name.
        socket_path: Of the embedded server, if that is the location.

    Raises:
        ConfigurationError: The client is of no kind that can be used, or an option in the URL cannot be read.
    """
    match location.deployment:
        case Deployment.CLIENT:
            return _of_client(client)
        case Deployment.EMBEDDED:
            return Server(UnixDomainSocketConnection, {"path": socket_path})
        case Deployment.MEMORY:
            return Memory(client)
        case Deployment.CLUSTER:
            return Cluster(*parsed(location.client_url))
        case Deployment.SENTINEL:
            return Sentinel(watched_of_url(location.client_url))
        case _:
            return Server(*parsed(location.client_url))


def _of_client(client: object) -> Endpoint:
    nodes = getattr(client, "nodes_manager", None)
    if nodes is not None:
        options = dict(nodes.connection_kwargs)
        start = next(iter(nodes.startup_nodes.values()))
        kind = kind_of(options, getattr(options.get("connection_class"), "__name__", ""))
        return Cluster(kind, options | {"host": start.host, "port": start.port})
    pool: Any = getattr(client, "connection_pool", None)
    if pool is None:
        raise ConfigurationError(
            f"client={client!r} is no Redis client: pass `redis.asyncio.Redis(...)`, `redis.Redis(...)` or `url=`"
        )
    if type(client).__module__.startswith("fakeredis"):
        return Memory(client)
    if hasattr(pool, "sentinel_manager"):
        return Sentinel(watched_of_pool(pool))
    options = dict(pool.connection_kwargs)
    name = pool.connection_class.__name__
    return Server(UnixDomainSocketConnection if "Unix" in name else kind_of(options, name), options)


class Server:
    """One Redis or Valkey: every key is there."""

    shards = 1

    def __init__(self, kind: type[AbstractConnection], options: Mapping[str, Any]) -> None:
        self._kind = kind
        self._options = options

    def link(self, key: str, *, blocking: bool = False) -> Caller:
        return Link(self._connect, blocking=blocking)

    async def _connect(self) -> AbstractConnection:
        return await dial(self._kind, self._options, str(self))

    async def moved(self) -> None:
        """Nothing moves on one server."""

    def __str__(self) -> str:
        path = self._options.get("path")
        return str(path) if path else f"{self._options.get('host', 'localhost')}:{self._options.get('port', 6379)}"


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
