"""Waiting: starts runs that were recorded before anybody had announced their tasks."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence

from datamesh.errors import DatameshError
from datamesh.store.frames import Frame
from datamesh.store.store import ShardStore
from datamesh.supervise.launch import Launch, Launcher
from datamesh.supervise.loop import Loop

_log = logging.getLogger("datamesh.waiting")
_PART = 200
_WITHIN = 30.0


class Waiting(Loop):
    """Looks through the waiting runs of one shard when its service has announced its tasks."""

    def __init__(self, shard: ShardStore, launcher: Launcher) -> None:
        super().__init__("waiting", self.start_all, shard=shard.index, within=_WITHIN, once=True)
        self._shard = shard
        self._launcher = launcher

    async def start_all(self) -> None:
        """Start every run that waits for nothing any more. Several services may do so: one of them starts it."""
        cursor = b"0"
        while True:
            cursor, found = await self._shard.protocol.command("HSCAN", self._shard.keys.waiting, cursor, "COUNT", 100)
            for run_id, request in zip(found[::2], found[1::2], strict=True):
                try:
                    await self._start(run_id.decode(), request)
                except DatameshError:
                    _log.exception("run %s waits and cannot be started", run_id.decode())
                self.pulse.beat()
            if cursor == b"0":
                return

    async def _start(self, run_id: str, request: bytes) -> None:
        launch = Launch.of_request(run_id, request, {})
        modes = await self._launcher.modes(launch.plan)
        if modes is None:
            return
        names: Sequence[str] = json.loads(request)["inputs"]
        frames: Mapping[str, Sequence[Frame]] = {
            name: [self._shard.seals.opened_waiting(launch.waiting_place, name, frame) for frame in found]
            for k, name in enumerate(names)
            if (found := await self._frames(run_id, k)) is not None
        }
        state, _ = await self._launcher.start(Launch.of_request(run_id, request, frames), modes)
        await self._shard.protocol.command("UNLINK", *(self._key(run_id, k) for k in range(max(1, len(names)))))
        _log.info("run %s, which waited for its tasks, is %s", run_id, state)

    async def _frames(self, run_id: str, index: int) -> list[Frame]:
        frames: list[Frame] = []
        while part := await self._shard.protocol.command(
            "LRANGE", self._key(run_id, index), len(frames), len(frames) + _PART - 1
        ):
            frames += map(_frame, part)
        return frames

    def _key(self, run_id: str, index: int) -> str:
        return f"{self._shard.keys.run(run_id)}:w:{index}"


def _frame(packed: bytes) -> Frame:
    """Read what the scripts pack: the lengths of the parts, a newline, the parts."""
    lengths, _, rest = packed.partition(b"\n")
    meta_bytes, lineages_bytes, values_bytes, _ = map(int, lengths.split())
    count, _, flags = rest[:meta_bytes].decode().split(" ")
    at = meta_bytes + lineages_bytes
    return Frame(int(count), flags, rest[meta_bytes:at], rest[at : at + values_bytes])
