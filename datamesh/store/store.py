"""Store: the mesh as one process sees it in Redis. The only door to it."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from datamesh.errors import ProtocolMismatchError, StoreUnavailableError
from datamesh.store.blocked import BlockedRead
from datamesh.store.connect import Endpoint
from datamesh.store.contracts import Contracts
from datamesh.store.keys import MeshKeys, ShardKeys
from datamesh.store.link import LinkLost, ReplyError
from datamesh.store.protocol import ShardProtocol
from datamesh.store.tails import Tails

PROTOCOL = 1


@dataclass(frozen=True, slots=True)
class ShardStore:
    """One shard, with the connections of this process to it."""

    index: int
    keys: ShardKeys
    protocol: ShardProtocol
    tails: Tails
    intake: BlockedRead

    async def close(self) -> None:
        await self.tails.close()
        await self.intake.close()
        await self.protocol.link.close()


class Store:
    """A mesh that was opened."""

    def __init__(self, mesh: str, endpoint: Endpoint, shards: tuple[ShardStore, ...], contracts: Contracts) -> None:
        self.mesh = mesh
        self.endpoint = endpoint
        self.shards = shards
        self.contracts = contracts

    @classmethod
    async def open(cls, mesh: str, endpoint: Endpoint) -> Store:
        """Open a mesh; the first to do so decides its number of shards.

        Raises:
            StoreUnavailableError: The server cannot be reached, or refuses us.
            ProtocolMismatchError: The mesh there speaks another protocol.
        """
        keys = MeshKeys(mesh)
        first = ShardProtocol(ShardKeys(mesh, 0), endpoint.link(keys.settings), endpoint, patience=0.0)
        await _greet(first, endpoint)
        # It is there and lets us in: from here on a lost connection is worth another try.
        patient = ShardProtocol(ShardKeys(mesh, 0), first.link, endpoint)
        await patient.command("HSETNX", keys.settings, "shards", endpoint.shards)
        await patient.command("HSETNX", keys.settings, "protocol", PROTOCOL)
        protocol, shards = await patient.command("HMGET", keys.settings, "protocol", "shards")
        if int(protocol) != PROTOCOL:
            await first.link.close()
            raise ProtocolMismatchError(
                where=f"mesh {mesh!r} at {endpoint}",
                found=int(protocol),
                expected=PROTOCOL,
                fix="Upgrade the older side, or use another `mesh=`",
            )
        contracts = Contracts(keys, patient)
        return cls(mesh, endpoint, tuple(_shard(mesh, index, endpoint) for index in range(int(shards))), contracts)

    def shard_of(self, run_id: str) -> ShardStore:
        """Return the shard in which a run lives."""
        return self.shards[zlib.crc32(run_id.encode()) % len(self.shards)]

    async def close(self) -> None:
        for shard in self.shards:
            await shard.close()
        await self.contracts.close()


def _shard(mesh: str, index: int, endpoint: Endpoint) -> ShardStore:
    keys = ShardKeys(mesh, index)
    protocol = ShardProtocol(keys, endpoint.link(keys.prefix), endpoint)
    tails = Tails(protocol, BlockedRead(endpoint.link(keys.prefix, blocking=True), protocol.link))
    return ShardStore(
        index, keys, protocol, tails, BlockedRead(endpoint.link(keys.prefix, blocking=True), protocol.link)
    )


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
