"""A Redis in this process's memory, for tests of one process: only where `memory://` asks for it, never a fallback."""

from __future__ import annotations

import importlib
from typing import Any

from redis.asyncio import Redis

from datamesh.errors import StoreUnavailableError


def memory_client(*, sharing: Redis | None = None) -> Redis:
    """Return a client of a store that lives in this process and ends with it.

    Where it differs from a server, by experiment with fakeredis 2.40:

    - A blocking read that is cancelled goes on reading, and takes the next entry with it: never cancel one, or read
      without `BLOCK`.
    - It accepts commands that the Redis it claims to be does not have (`XACKDEL`), lacks `WAIT` and Lua's `cmsgpack`.
    - A client belongs to the event loop that used it first. Other processes see nothing of it.

    Args:
        sharing: A client made here, whose store the new client uses too. Without, the store is new and empty.

    Raises:
        StoreUnavailableError: fakeredis, or the Lua it runs scripts with, is not installed.
    """
    try:
        importlib.import_module("lupa")  # that it is missing, fakeredis would say at the first script
        import fakeredis
    except ImportError as error:
        raise StoreUnavailableError(
            where="memory://", problem=f"{error.name} is not installed", fix='Run `pip install "fakeredis[lua]"`'
        ) from error
    store: Any = sharing.connection_pool.connection_kwargs["server"] if sharing else fakeredis.FakeServer()
    # RESP2, as on the links to a server: RESP3 gives some replies another shape.
    client: Redis = fakeredis.FakeAsyncRedis(server=store, protocol=2)
    return client
