"""Dial: makes connections that never repeat a command by themselves, and says clearly why one could not be made.

redis-py sets a socket timeout of 5 s and repeats a command up to 10 times: an `XADD` whose reply was lost ran 11 times.
So connections are made here, with its classes (authentication, TLS, sockets) but without its timeouts and retries;
scripts are safe to repeat, and `protocol.py` repeats them.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Mapping
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from datamesh.errors import ConfigurationError, StoreUnavailableError
from datamesh.store.link import Reply

Address = tuple[str, int]

_KEPT = ("host", "port", "db", "username", "password", "path", "credential_provider", "socket_keepalive", "client_name")
_TLS_OPTIONS = frozenset(inspect.signature(SSLConnection.__init__).parameters)
_SECONDS = 4.0
"""Until a server that accepts a connection and says nothing counts as dead."""
ASK_SECONDS = 1.0
"""The same where another server may be asked instead."""


def parsed(url: str) -> tuple[type[AbstractConnection], dict[str, Any]]:
    """Read a URL with the scheme redis, rediss or unix: the class of its connections, and their options.

    Raises:
        ConfigurationError: An option in its query cannot be read.
    """
    try:
        options: dict[str, Any] = dict(parse_url(url))
    except ValueError as error:
        raise ConfigurationError(f"the URL of Redis cannot be used: {error}") from error
    return options.pop("connection_class", Connection), options


def kind_of(options: Mapping[str, Any], name: str = "") -> type[AbstractConnection]:
    """The class of connections of a client, by its options and the name of the class that it uses itself."""
    return SSLConnection if options.get("ssl") or "SSL" in name else Connection


async def dial(
    kind: type[AbstractConnection], options: Mapping[str, Any], where: str, *, seconds: float = _SECONDS
) -> AbstractConnection:
    """Connect and log in.

    Args:
        kind: Class of the connection.
        options: Of redis-py; those that are not about reaching the server are dropped.
        where: The server, for errors.
        seconds: Until it has failed.

    Raises:
        StoreUnavailableError: The server refuses us, or its certificate is refused.
        RedisError: It cannot be used now.
        OSError: It cannot be reached now.
    """
    connection = _make(kind, options, where)
    try:
        async with asyncio.timeout(seconds):
            await connection.connect()
    except TimeoutError:
        await connection.disconnect(nowait=True)
        raise TimeoutError(f"{where} gave no answer within {seconds:g} s") from None
    except (RedisError, OSError) as error:
        await connection.disconnect(nowait=True)
        refusal = _refusal(error, where)
        if refusal is None:
            raise
        raise refusal from error
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def ask(kind: type[AbstractConnection], options: Mapping[str, Any], address: Address, *command: str) -> Reply:
    """Ask one server one thing, over a connection of its own.

    Raises:
        StoreUnavailableError: The server refuses us.
        RedisError: It answered with an error.
        OSError: It gave no answer.
    """
    host, port = address
    connection = await dial(kind, {**options, "host": host, "port": port}, f"{host}:{port}", seconds=ASK_SECONDS)
    try:
        return await answer(connection, *command)
    finally:
        await connection.disconnect(nowait=True)


async def answer(connection: AbstractConnection, *command: str) -> Reply:
    """Send a command over a connection that nobody uses yet, and read its reply."""
    async with asyncio.timeout(ASK_SECONDS):
        await connection.send_command(*command)
        return await connection.read_response(disable_decoding=True)


def _make(kind: type[AbstractConnection], options: Mapping[str, Any], where: str) -> AbstractConnection:
    kept = {name: value for name, value in options.items() if name in _KEPT}
    if issubclass(kind, SSLConnection):
        # Those of synchronous clients that are not known here are off; one that is on must not be left out unheard.
        kept |= {k: v for k, v in options.items() if k.startswith("ssl_") and (k in _TLS_OPTIONS or v)}
    if issubclass(kind, Connection):
        # What drops idle connections on the way does not tell either end.
        kept.setdefault("socket_keepalive", True)
    try:
        return kind(
            **kept, protocol=2, socket_timeout=None, socket_connect_timeout=None, retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )  # fmt: skip
    except (RedisError, TypeError, ValueError) as error:
        raise StoreUnavailableError(
            where=where, problem=f"a connection cannot be made: {error}", fix="Check the options in the URL or client"
        ) from error


def _refusal(error: Exception, where: str) -> StoreUnavailableError | None:
    # What the server or TLS said stands behind an error of the client's own.
    for said in (error, error.__cause__, error.__context__):
        if isinstance(said, AuthenticationError | ResponseError):
            return StoreUnavailableError(
                where=where,
                problem=f"the server refuses us: {said}",
                fix="Check user name, password and database in the URL or client",
            )
        if isinstance(said, ssl.SSLError):
            return StoreUnavailableError(
                where=where,
                problem=f"TLS failed: {said}",
                fix="Check the certificates (`ssl_ca_certs=`) and the scheme rediss://",
            )
    return None
