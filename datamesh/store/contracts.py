"""Contracts: what services have announced of the tasks they implement, so that all of a mesh agree on it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from datamesh.errors import ContractMismatchError
from datamesh.store.keys import MeshKeys
from datamesh.store.protocol import ShardProtocol

_KEPT_SECONDS = 30 * 24 * 3600
Contract = Mapping[str, Any]


class Contracts:
    """The registry of tasks in Redis. A contract never changes, so what was read once is kept."""

    def __init__(self, keys: MeshKeys, protocol: ShardProtocol) -> None:
        self._keys = keys
        self._protocol = protocol
        self._known: dict[str, Contract] = {}

    async def announce(self, ref: str, contract: Contract) -> None:
        """Announce a task, or find that it was announced in the same form.

        Raises:
            ContractMismatchError: It was announced in another form; carries both.
        """
        wire = json.dumps(contract, sort_keys=True)
        await self._protocol.command("SET", self._keys.task(ref), wire, "NX", "EX", _KEPT_SECONDS)
        found = await self._protocol.command("GETEX", self._keys.task(ref), "EX", _KEPT_SECONDS)
        if found is not None and json.loads(found) != json.loads(wire):
            raise ContractMismatchError(
                where=f"task {ref}",
                expected=found.decode(),
                found=wire,
                fix="Another service announced it in another form: "
                "give this one a new `version=`, or the same types and mode",
            )
        self._known[ref] = contract

    async def find(self, refs: Iterable[str]) -> dict[str, Contract]:
        """Return the contracts of the tasks that were ever announced."""
        refs = list(dict.fromkeys(refs))
        for ref in refs:
            if ref not in self._known:
                found = await self._protocol.command("GET", self._keys.task(ref))
                if found is not None:
                    self._known[ref] = json.loads(found)
        return {ref: self._known[ref] for ref in refs if ref in self._known}

    async def close(self) -> None:
        """Close the connection."""
        await self._protocol.link.close()
