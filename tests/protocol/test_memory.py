"""The scripts on the store in memory, which runs them in Lua of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import fakeredis
import pytest

from datamesh.store.connect import Memory
from datamesh.store.keys import ShardKeys
from datamesh.store.protocol import ShardProtocol
from tests.protocol.rig import Rig
from tests.protocol.simulation import simulate

pytestmark = pytest.mark.anyio


@pytest.fixture
async def rig(mesh: str) -> AsyncIterator[Rig]:
    """One shard in memory."""
    server = fakeredis.FakeServer()
    endpoint = Memory(fakeredis.FakeAsyncRedis(server=server))
    keys = ShardKeys(mesh, 0)
    rig = Rig(
        fakeredis.FakeRedis(server=server), endpoint, keys, ShardProtocol(keys, endpoint.link(keys.prefix), endpoint)
    )
    yield rig
    await rig.close()
    rig.client.close()


@pytest.mark.parametrize("seed", range(3))
async def test_random_flows_on_the_store_in_memory(rig: Rig, seed: int) -> None:
    counts = await simulate(rig, seed)
    assert counts["steps"] > 0
