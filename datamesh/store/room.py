"""Room: who waits until the tasks that it feeds have caught up.

A generator or a writer of an open input is told by the reply to what it has sent that a task is over its high mark. It
waits here until that task is below its low mark. The script that brings the task there writes so to the news, which
every supervisor reads; a look of our own now and then makes up for news that were lost.
"""

from __future__ import annotations

import asyncio

from datamesh.store.protocol import ShardProtocol

_LOOK_SECONDS = 5.0


class Room:
    """Waits for runs of one shard."""

    def __init__(self, protocol: ShardProtocol) -> None:
        self._protocol = protocol
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}

    async def wait(self, run_id: str) -> None:
        """Wait until nothing of the run is over its high mark, or the run is over.

        Raises:
            StoreError: The store cannot be reached.
        """
        while await self._is_full(run_id):
            told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting = self._waiting.setdefault(run_id, set())
            waiting.add(told)
            try:
                await asyncio.wait([told], timeout=_LOOK_SECONDS)
            finally:
                waiting.discard(told)
                if not waiting:
                    self._waiting.pop(run_id, None)

    def made(self, run_id: str) -> None:
        """The news say that there is room."""
        for told in self._waiting.get(run_id, ()):
            if not told.done():
                told.set_result(None)

    async def _is_full(self, run_id: str) -> bool:
        full = await self._protocol.command("HGET", self._protocol.keys.run(run_id), "full")
        return bool(full and int(full))
