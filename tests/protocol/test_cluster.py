"""The scripts on a cluster: each shard lives on the node of its slot, and is followed when it moves."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from datamesh.model.task import Task
from datamesh.store.connect import endpoint_of
from datamesh.store.locate import locate
from datamesh.store.store import Store
from tests.protocol.rig import Rig, frames
from tests.servers import KINDS, ClusterServer, Server

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.cluster,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.parametrize("cluster", KINDS, indirect=True),
]

A = Task("a", "in", "mid")
B = Task("b", "mid", "out")


@pytest.fixture
async def store(cluster: ClusterServer, mesh: str) -> AsyncIterator[Store]:
    store = await Store.open(mesh, endpoint_of(locate(cluster.url, None, mesh), None))
    yield store
    await store.close()


def rig_of(cluster: ClusterServer, store: Store, shard: int) -> Rig:
    """The shard, looked at on the node that holds it now."""
    found = store.shards[shard]
    client = cluster.node_of(found.keys.prefix).client
    return Rig(client, store.endpoint, found.keys, found.protocol)


async def test_a_mesh_has_sixteen_shards_on_all_nodes(cluster: ClusterServer, store: Store) -> None:
    assert len(store.shards) == 16
    nodes = {cluster.node_of(shard.keys.prefix) for shard in store.shards}
    assert nodes == set(cluster.nodes)
    again = await Store.open(store.mesh, store.endpoint)
    assert [shard.keys.prefix for shard in again.shards] == [shard.keys.prefix for shard in store.shards]
    await again.close()


async def test_runs_live_in_the_shard_of_their_id(cluster: ClusterServer, store: Store) -> None:
    for number in range(24):
        run_id = f"R{number}"
        rig = rig_of(cluster, store, store.shard_of(run_id).index)
        bound = await rig.bind(A, B)
        await rig.join("m", slots=20)
        key = await rig.protocol.stage(run_id, "t", "b", 0, 1, frames(range(20)))
        staged = [("b", 0, key, 20, 20)]
        await rig.protocol.submit(rig.submission(bound, run_id, staged=staged, deadline_ms=60_000))
        await rig.settle_all("m")
        assert (rig.values(bound, "out", run_id), rig.run(run_id)["state"]) == (list(range(20)), "done")
        assert rig.lasting(run_id) == []


async def test_a_shard_is_followed_to_another_node(cluster: ClusterServer, store: Store) -> None:
    rig = rig_of(cluster, store, 0)
    bound = await rig.bind(A)
    await rig.join("m")
    await rig.start(bound, values=3)
    await rig.settle("m", rig.echo(await rig.take_one("m")))
    slot = int(rig.client.execute_command("CLUSTER", "KEYSLOT", rig.keys.prefix))
    home = cluster.node_of(rig.keys.prefix)
    target = next(node for node in cluster.nodes if node is not home)
    try:
        cluster.move(slot, target)
        rig.client = target.client
        await rig.settle_all("m")
        assert (rig.values(bound, "mid"), rig.run()["state"]) == ([0, 1, 2], "done")
    finally:
        cluster.move(slot, home)
    assert (await rig.protocol.beat("m", lease_ms=60_000)).fenced is False


async def test_a_node_that_was_away_is_found_again(cluster: ClusterServer, store: Store) -> None:
    rig = rig_of(cluster, store, 0)
    bound = await rig.bind(A)
    await rig.join("m")
    home: Server = cluster.node_of(rig.keys.prefix)
    home.client.client_kill_filter(_type="normal", skipme=True)
    await rig.start(bound, values=1)
    await rig.settle_all("m")
    assert rig.run()["state"] == "done"
