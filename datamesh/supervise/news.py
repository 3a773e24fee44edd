"""News: what every supervisor must hear at once: runs that ended before their work was done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from datamesh.errors import DatameshError
from datamesh.store.store import ShardStore

_log = logging.getLogger("datamesh.news")
_PAUSE = 0.5


class News:
    """Reads the news of one shard, over the connection that its readers share."""

    def __init__(self, shard: ShardStore, ended: Callable[[int, str], None]) -> None:
        self._shard = shard
        self._ended = ended
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin with what is written from now on."""
        newest = await self._shard.tails.newest(self._shard.keys.news)
        self._task = asyncio.create_task(self._run(newest[0].entry_id if newest else "0"), name="datamesh-news")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self, after: str) -> None:
        while True:
            try:
                for entry in await self._shard.tails.read(self._shard.keys.news, after):
                    after = entry.entry_id
                    if entry.fields.get(b"kind") == b"ended":
                        self._ended(self._shard.index, entry.fields[b"run"].decode())
            except DatameshError as error:
                _log.warning("no news: %s", error)
                await asyncio.sleep(_PAUSE)
