"""Mesh settings: what all who take part in a mesh have to agree on, kept in Redis by the first to come.

Versions of the protocol live side by side while services are upgraded one after the other: `protocol` is the version
that entries are written in, `least` the oldest one that can still take part. A program takes part in a mesh of its own
version, of the one before and of the one after, unless `least` has gone past it.
"""

from __future__ import annotations

from dataclasses import dataclass

from datamesh.errors import ProtocolMismatchError
from datamesh.store.keys import MeshKeys
from datamesh.store.protocol import ShardProtocol

PROTOCOL = 1
"""The version that this program writes in a new mesh."""
_FIX = "Upgrade the older side one version at a time, or use another `mesh=`"


@dataclass(frozen=True, slots=True)
class MeshSettings:
    """As they are recorded.

    Attributes:
        protocol: Version in which the mesh writes.
        least: Oldest version that may take part.
        shards: How many the mesh has.
    """

    protocol: int
    least: int
    shards: int


async def agree(protocol: ShardProtocol, keys: MeshKeys, *, shards: int, where: str) -> MeshSettings:
    """Read the settings of a mesh; the first to come writes them.

    Args:
        protocol: To reach the server that holds the mesh's own keys.
        keys: Of the mesh.
        shards: How many a new mesh gets.
        where: The mesh, for errors.

    Raises:
        ProtocolMismatchError: This program is too old or too new for the mesh.
        StoreError: The store cannot be reached, or refuses us.
    """
    found = await protocol.command("HMGET", keys.settings, "protocol", "least", "shards")
    if found[0] is None or found[2] is None:
        # Who wrote `protocol` writes `least` too; nobody else may, because it follows from that one's version.
        if await protocol.command("HSETNX", keys.settings, "protocol", PROTOCOL):
            await protocol.command("HSETNX", keys.settings, "least", _least_with(PROTOCOL))
        await protocol.command("HSETNX", keys.settings, "shards", shards)
        found = await protocol.command("HMGET", keys.settings, "protocol", "least", "shards")
    version = int(found[0])
    settings = MeshSettings(version, _least_with(version) if found[1] is None else int(found[1]), int(found[2]))
    if abs(version - PROTOCOL) > 1 or settings.least > PROTOCOL:
        raise ProtocolMismatchError(
            where=where,
            found=f"version {version} that admits {settings.least} and later",
            expected=f"one that works with version {PROTOCOL}",
            fix=_FIX,
        )
    return settings


def _least_with(version: int) -> int:
    """The least version of a mesh that does not say."""
    return version - 1
