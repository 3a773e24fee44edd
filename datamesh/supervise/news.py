"""News: what every supervisor must hear at once: runs that ended before their work was done, or have room again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from datamesh.errors import DatameshError
from datamesh.store.store import ShardStore
from datamesh.supervise.loop import Loop

_log = logging.getLogger("datamesh.news")
_PAUSE = 0.5


class News(Loop):
    """Reads the news of one shard, over the connection that its readers share."""

    def __init__(self, shard: ShardStore, heard: Callable[[int, str, str], None]) -> None:
        """Call `heard` with the shard, the kind of the news ("ended", "room") and the run."""
        super().__init__("news", self._listen, shard=shard.index)
        self._shard = shard
        self._heard = heard
        self._after = "0"

    async def seek(self) -> None:
        """Have it begin with what is written from now on."""
        newest = await self._shard.tails.newest(self._shard.keys.news)
        self._after = newest[0].entry_id if newest else "0"

    async def _listen(self) -> None:
        while True:
            try:
                with self.pulse.resting():
                    entries = await self._shard.tails.read(self._shard.keys.news, self._after)
                for entry in entries:
                    self._after = entry.entry_id
                    self._heard(self._shard.index, entry.fields[b"kind"].decode(), entry.fields[b"run"].decode())
                self.pulse.beat()
            except DatameshError as error:
                _log.warning("no news: %s", error)
                self.pulse.failed(error)
                await asyncio.sleep(_PAUSE)
