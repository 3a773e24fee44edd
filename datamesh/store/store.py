"""Store: the mesh as one process sees it in Redis. The only door to it."""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

from datamesh.codec.seal import sealing_of
from datamesh.errors import DatameshError, StoreUnavailableError
from datamesh.store.blocked import BlockedRead
from datamesh.store.connect import Endpoint
from datamesh.store.contracts import Contracts
from datamesh.store.epoch import Epoch
from datamesh.store.eviction import Eviction
from datamesh.store.keys import MeshKeys, ShardKeys
from datamesh.store.link import LinkLost, ReplyError
from datamesh.store.mesh import MeshSettings, agree
from datamesh.store.protocol import ShardProtocol
from datamesh.store.room import Room
from datamesh.store.seals import Seals
from datamesh.store.tails import Tails

_log = logging.getLogger("datamesh.store")
_WATCH_SECONDS = 60.0
_AGAIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ShardStore:
    """One shard, with the connections of this process to it."""

    index: int
    keys: ShardKeys
    protocol: ShardProtocol
    tails: Tails
    intake: BlockedRead
    room: Room
    epoch: Epoch
    seals: Seals

    @classmethod
    def of(cls, mesh: str, index: int, endpoint: Endpoint, seals: Seals) -> Self:
        """Make the connections of a shard; none is opened yet."""
        keys = ShardKeys(mesh, index)
        protocol = ShardProtocol(keys, endpoint.link(keys.prefix), endpoint)
        epoch = Epoch(protocol, f"shard {index} of mesh {mesh!r} at {endpoint}")
        tails, intake = (
            BlockedRead(endpoint.link(keys.prefix, blocking=True), protocol.link, endpoint=endpoint, epoch=epoch)
            for _ in range(2)
        )
        return cls(index, keys, protocol, Tails(protocol, tails, epoch), intake, Room(protocol), epoch, seals)

    async def close(self) -> None:
        await self.epoch.close()
        await self.tails.close()
        await self.intake.close()
        await self.protocol.link.close()


class Store:
    """A mesh that was opened.

    Attributes:
        settings: What all who take part in the mesh have agreed on.
        on_loss: Awaited by `watch` when shards have lost their data, after the settings of the mesh were written
            again: whoever announced tasks announces them again.
    """

    def __init__(
        self, mesh: str, endpoint: Endpoint, shards: tuple[ShardStore, ...], contracts: Contracts,
        settings: MeshSettings, patient: ShardProtocol,
    ) -> None:  # fmt: skip
        self.mesh = mesh
        self.endpoint = endpoint
        self.shards = shards
        self.contracts = contracts
        self.settings = settings
        self.on_loss: Callable[[], Awaitable[None]] | None = None
        self._protocol = patient
        self._eviction = Eviction([shard.protocol.link for shard in shards], f"Redis at {endpoint}")
        self._loss = asyncio.Event()
        for shard in shards:
            shard.epoch.listeners.append(self._loss.set)

    @classmethod
    async def open(
        cls, mesh: str, endpoint: Endpoint, *, allow_eviction: bool = False, signing_keys: Sequence[str] = ()
    ) -> Store:  # fmt: skip
        """Open a mesh; the first to do so decides its number of shards.

        Args:
            mesh: Its name.
            endpoint: Where it is.
            allow_eviction: Work on servers that may throw keys away when their memory is full.
            signing_keys: What is written is signed with the first, what is read may be signed with any.

        Raises:
            StoreUnavailableError: A server cannot be reached, refuses us, or evicts keys.
            ProtocolMismatchError: The mesh there speaks another protocol.
        """
        keys, seals = MeshKeys(mesh), Seals(sealing_of(signing_keys))
        first = ShardProtocol(ShardKeys(mesh, 0), endpoint.link(keys.settings), endpoint, patience=0.0)
        # Once it is there and lets us in, a lost connection is worth another try.
        patient = ShardProtocol(ShardKeys(mesh, 0), first.link, endpoint)
        try:
            await _greet(first, endpoint)
            settings = await agree(
                patient, keys, shards=endpoint.shards, where=f"mesh {mesh!r} at {endpoint}", key_ids=seals.key_ids
            )
        except BaseException:
            await first.link.close()
            raise
        shards = tuple(ShardStore.of(mesh, index, endpoint, seals) for index in range(settings.shards))
        store = cls(mesh, endpoint, shards, Contracts(keys, patient), settings, patient)
        try:
            await asyncio.gather(*(shard.epoch.begin() for shard in shards))
            await store._eviction.refuse(allow=allow_eviction)
        except BaseException:
            await store.close()
            raise
        return store

    def shard_of(self, run_id: str) -> ShardStore:
        """Return the shard in which a run lives."""
        return self.shards[zlib.crc32(run_id.encode()) % len(self.shards)]

    async def watch(self) -> None:
        """Look after the servers until cancelled: whether they begin to evict, and what a loss of data leaves to do."""
        loop = asyncio.get_running_loop()
        look_at = loop.time() + _WATCH_SECONDS
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(look_at):
                    await self._loss.wait()
            if self._loss.is_set():
                await self._restore()
            if loop.time() >= look_at:
                look_at = loop.time() + _WATCH_SECONDS
                await self._eviction.look()

    async def close(self) -> None:
        for shard in self.shards:
            await shard.close()
        await self.contracts.close()

    async def _restore(self) -> None:
        """Write again what the mesh has lost; where that fails, it is tried again."""
        self._loss.clear()
        where = f"mesh {self.mesh!r} at {self.endpoint}"
        try:
            key_ids = self.shards[0].seals.key_ids
            await agree(self._protocol, MeshKeys(self.mesh), shards=len(self.shards), where=where, key_ids=key_ids)
            if self.on_loss is not None:
                await self.on_loss()
        except DatameshError as error:
            _log.error("%s could not be restored after a loss of data: %s", where, error)
            self._loss.set()
            await asyncio.sleep(_AGAIN_SECONDS)


async def _greet(protocol: ShardProtocol, endpoint: Endpoint) -> None:
    """Say clearly what is wrong with a server before anything is asked of it."""
    try:
        await protocol.link.call("PING")
    except LinkLost as error:
        raise StoreUnavailableError(
            where=f"Redis at {endpoint}",
            problem=str(error),
            fix="Start it, or set DATAMESH_URL, `url=` or `client=` to another Redis, "
            "or to nothing for the embedded server",
        ) from error
    except ReplyError as error:
        raise StoreUnavailableError(
            where=f"Redis at {endpoint}", problem=str(error), fix="Check user name and password in the URL or client"
        ) from error
