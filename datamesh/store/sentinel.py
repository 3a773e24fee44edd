"""Sentinel: a primary that sentinels watch, and the one that they name when it is gone."""

from __future__ import annotations

import asyncio
import math
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from redis.asyncio.connection import AbstractConnection, SSLConnection
from redis.exceptions import RedisError, ResponseError

from datamesh.errors import ConfigurationError, StoreUnavailableError
from datamesh.store.dial import ASK_SECONDS, Address, answer, dial, kind_of, parsed
from datamesh.store.link import Caller, Link, LinkLost, Reply

DEFAULT_PORT = 26379
_OWN = ("sentinel_username", "sentinel_password")
_FRESH = 0.1
"""Seconds during which an answer of the sentinels serves all who ask."""
_LOOK_SECONDS = 2.0
"""How often the sentinels are asked while links are in use: a primary that was replaced may take writes for a while."""


class Watched(NamedTuple):
    """A primary as it was asked for.

    Attributes:
        service: Its name among the sentinels.
        sentinels: Those to ask first; they tell of others.
        options: To connect to the primary with, without its address.
        sentinel_options: To connect to the sentinels with.
    """

    service: str
    sentinels: Sequence[Address]
    options: Mapping[str, Any]
    sentinel_options: Mapping[str, Any]


def watched_of_url(url: str) -> Watched:
    """Read `redis+sentinel://[user:password@]host:port,host:port/service?sentinel_username=&sentinel_password=&db=`.

    Raises:
        ConfigurationError: It names no sentinel or no service, or an option cannot be read.
    """
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query))
    own = {name.removeprefix("sentinel_"): query.pop(name) for name in _OWN if name in query}
    scheme = "rediss" if parts.scheme.startswith(("rediss", "valkeys")) else "redis"
    # The host is none of theirs: it only makes a URL of it that redis-py reads.
    kind, options = parsed(f"{scheme}://{credentials}{at}primary/?{urlencode(query)}")
    options.pop("host")
    options["ssl"] = issubclass(kind, SSLConnection)
    tls = {name: value for name, value in options.items() if name.startswith("ssl")}
    return Watched(parts.path.strip("/"), addresses(hosts), options, tls | own)


def addresses(hosts: str) -> list[Address]:
    """Read `host:port,host:port`; a port may be left out.

    Raises:
        ConfigurationError: A part is no address.
    """
    found = []
    for text in hosts.split(","):
        try:
            parts = urlsplit(f"//{text.strip()}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or port == 0:
            raise ConfigurationError(f"{text!r} is no address of a sentinel: write host:port,host:port")
        found.append((host, port or DEFAULT_PORT))
    return found


def watched_of_pool(pool: Any) -> Watched:
    """Read the pool of a client that redis-py's `Sentinel.master_for` made, synchronous or not.

    Raises:
        ConfigurationError: It was made by `slave_for`.
    """
    if not pool.is_master:
        raise ConfigurationError("client= reads from replicas: pass one that `Sentinel.master_for(...)` has made")
    clients = [client.connection_pool for client in pool.sentinel_manager.sentinels]
    options = dict(pool.connection_kwargs)
    options["ssl"] = kind_of(options, pool.connection_class.__name__) is SSLConnection
    own = dict(clients[0].connection_kwargs)
    own["ssl"] = kind_of(own, clients[0].connection_class.__name__) is SSLConnection
    known = [(str(one.connection_kwargs["host"]), int(one.connection_kwargs["port"])) for one in clients]
    return Watched(pool.service_name, known, options, own)


class _Followed(Link):
    """A link that tells when it was closed."""

    def __init__(
        self, connect: Callable[[], Awaitable[AbstractConnection]], closed: Callable[[], Awaitable[None]], *,
        blocking: bool,
    ) -> None:  # fmt: skip
        super().__init__(connect, blocking=blocking)
        self._closed = closed

    async def close(self) -> None:
        await super().close()
        await self._closed()


class Sentinel:
    """Links to the primary of now."""

    shards = 1

    def __init__(self, watched: Watched) -> None:
        self._service = watched.service
        self._known = list(dict.fromkeys(watched.sentinels))
        self._options = dict(watched.options)
        self._sentinel_options = {k: v for k, v in watched.sentinel_options.items() if k not in ("host", "port", "db")}
        self._primary: Address | None = None
        self._read_at = -math.inf
        self._lock = asyncio.Lock()
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()
        self._looking: asyncio.Task[None] | None = None

    def link(self, key: str, *, blocking: bool = False) -> Caller:
        link = _Followed(self._connect, self._left, blocking=blocking)
        self._links.add(link)
        return link

    async def _connect(self) -> AbstractConnection:
        # The one of a moment ago may have come back, empty, and think that it is still in charge.
        await self.moved()
        assert self._primary is not None
        host, port = self._primary
        options = self._options | {"host": host, "port": port}
        connection = await dial(kind_of(self._options), options, f"{host}:{port}, the primary of {self._service!r}")
        try:
            is_primary = (await answer(connection, "ROLE"))[0] == b"master"
        except ResponseError:
            is_primary = True  # The user may not ask; a replica says so at the first write.
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        if not is_primary:
            await connection.disconnect(nowait=True)
            # Another sentinel may know more than the one that named it.
            self._known.append(self._known.pop(0))
            raise LinkLost(f"{host}:{port} is no primary any more")
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="datamesh-sentinel")
        return connection

    async def _look(self) -> None:
        """Ask again and again until no link is in use."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not any(link.is_connected for link in self._links):
                return
            with suppress(LinkLost, StoreUnavailableError):
                await self.moved()

    async def _left(self) -> None:
        """A link was closed: with the last one goes the look at the sentinels."""
        looking = self._looking
        if looking is not None and not any(link.is_connected for link in self._links):
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def moved(self) -> None:
        """Ask for the primary anew, and leave the one before if there is another now.

        Raises:
            LinkLost: No sentinel answers.
            StoreUnavailableError: The sentinels do not know the service, or refuse us.
        """
        async with self._lock:
            if time.monotonic() - self._read_at < _FRESH:
                return
            before, self._primary = self._primary, await self._ask()
            self._read_at = time.monotonic()
            if before not in (None, self._primary):
                for link in list(self._links):
                    link.drop(f"the primary of {self._service!r} is {self._primary[0]}:{self._primary[1]} now")

    async def _ask(self) -> Address:
        """Ask one sentinel after the other; who does not answer is asked last the next time."""
        problems: list[str] = []
        refusal: StoreUnavailableError | None = None
        for address in list(self._known):
            try:
                primary = await self._ask_one(address)
            except (RedisError, OSError) as error:
                problems.append(f"{address[0]}:{address[1]}: {error}")
            except StoreUnavailableError as error:
                refusal = error
            else:
                return primary
            self._known.remove(address)
            self._known.append(address)
        raise refusal or LinkLost(f"no sentinel answers: {'; '.join(problems)}")

    async def _ask_one(self, address: Address) -> Address:
        host, port = address
        options = self._sentinel_options | {"host": host, "port": port}
        connection = await dial(kind_of(options), options, f"sentinel {host}:{port}", seconds=ASK_SECONDS)
        try:
            found = await answer(connection, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
            if not found:
                raise StoreUnavailableError(
                    where=f"sentinel {host}:{port}",
                    problem=f"it watches no service {self._service!r}",
                    fix="Check the name behind the last slash of the URL, or let it `SENTINEL MONITOR` the primary",
                )
            with suppress(ResponseError):
                self._learn(await answer(connection, "SENTINEL", "SENTINELS", self._service))
        finally:
            await connection.disconnect(nowait=True)
        return found[0].decode(), int(found[1])

    def _learn(self, rows: Reply) -> None:
        others = [dict(zip(row[::2], row[1::2], strict=True)) for row in rows]
        told = [(other[b"ip"].decode(), int(other[b"port"])) for other in others]
        self._known = list(dict.fromkeys([*self._known, *told]))

    def __str__(self) -> str:
        known = ",".join(f"{host}:{port}" for host, port in self._known)
        return f"the primary of {self._service!r} at the sentinels {known}"
