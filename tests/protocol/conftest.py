"""What tests of the scripts share: a shard on each kind of server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from datamesh.model.registry import registry
from tests.protocol.rig import Rig
from tests.servers import Server


@pytest.fixture
async def rig(server: Server, mesh: str) -> AsyncIterator[Rig]:
    """One shard of a mesh of its own."""
    rig = Rig.on(server.client, server.url, mesh)
    yield rig
    await rig.close()


@pytest.fixture(autouse=True)
def _own_registrations() -> Iterator[None]:
    with registry.isolated():
        yield
