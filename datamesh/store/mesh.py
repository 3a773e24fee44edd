"""Mesh settings: what all who take part in a mesh have to agree on, kept in Redis by the first to come.

Versions of the protocol live side by side while services are upgraded one after the other: `protocol` is the version
that entries are written in, `least` the oldest one that can still take part. A program takes part in a mesh of its own
version, of the one before and of the one after, unless `least` has gone past it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from datamesh.errors import ProtocolMismatchError
from datamesh.store.keys import MeshKeys
from datamesh.store.protocol import ShardProtocol

PROTOCOL = 1
"""The version that this program writes in a new mesh."""
_KEYS_KEPT = 8
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


async def agree(
    protocol: ShardProtocol, keys: MeshKeys, *, shards: int, where: str, key_ids: Sequence[str] = ()
) -> MeshSettings:  # fmt: skip
    """Read the settings of a mesh; the first to come writes them.

    Args:
        protocol: To reach the server that holds the mesh's own keys.
        keys: Of the mesh.
        shards: How many a new mesh gets.
        where: The mesh, for errors.
        key_ids: Names of the keys that this program signs with, none if it does not.

    Raises:
        ProtocolMismatchError: This program is too old or too new for the mesh, or does not sign as the others do.
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
    await _agree_on_keys(protocol, keys, where, list(key_ids))
    return settings


async def _agree_on_keys(protocol: ShardProtocol, keys: MeshKeys, where: str, own: list[str]) -> None:
    """What is signed with other keys, or not at all, would be buried by whoever takes it, one value after another."""
    found = await protocol.command("HGET", keys.settings, "signed")
    if found is None:
        await protocol.command("HSETNX", keys.settings, "signed", " ".join(own))
        found = await protocol.command("HGET", keys.settings, "signed")
    known = (found or b"").decode().split()
    if not own and not known:
        return
    if not set(own) & set(known):
        raise ProtocolMismatchError(
            where=where,
            found=f"values signed with {', '.join(known)}" if known else "values that are not signed",
            expected=f"values signed with {', '.join(own)}" if own else "values that are not signed",
            fix="Give all services a key in common in `signing_keys=`, or use another `mesh=`",
        )
    if own[0] not in known:
        # The latest are enough: a key that nobody uses any more is forgotten in the end.
        await protocol.command("HSET", keys.settings, "signed", " ".join([*known, own[0]][-_KEYS_KEPT:]))


def _least_with(version: int) -> int:
    """The least version of a mesh that does not say."""
    return version - 1
