"""R14: in a cluster, the slots that hold the mesh move from node to node and a master is killed, while runs go on."""

from __future__ import annotations

import asyncio
import random
import time

from datamesh.store.keys import ShardKeys
from tests.faults.board import Budget, Figures, scenario
from tests.faults.processes import services
from tests.faults.server_faults.load import LEASE, Load
from tests.faults.server_faults.stages import MODULE
from tests.replicas import ReplicatedCluster
from tests.servers import wait_until

_MESH = "moving"
_SHARDS = 16
_SLOTS = 16384
_FAILOVER_SECONDS = 20.0


@scenario("R14", seconds=240.0)
async def moving_cluster(budget: Budget) -> Figures:
    """Move all slots of the mesh, and others, then kill the master that holds most of it."""
    slots_to_move = budget.of(full=50, short=18, tiny=6)
    chance = budget.chance("slots")
    figures = Figures()
    durable = {"durability": "replicated"}
    with (
        ReplicatedCluster("valkey") as cluster,
        services(2, cluster.url, module=MODULE, mesh=_MESH, lease=LEASE) as two,
    ):
        async with Load(url=cluster.url, mesh=_MESH, chance=chance, starters=6, start=durable) as load:
            await load.moved(since=time.monotonic())
            longest = 0.0
            for slot in _chosen(cluster, slots_to_move, chance):
                began = time.monotonic()
                await asyncio.to_thread(cluster.move, slot, chance.choice(cluster.nodes))
                longest = max(longest, await load.moved(since=began))
            killed = time.monotonic()
            await asyncio.to_thread(cluster.kill, cluster.nodes[-1])
            await asyncio.to_thread(wait_until, cluster.is_whole, seconds=_FAILOVER_SECONDS)
            whole = time.monotonic()
            # What is confirmed by a replica takes one.
            await asyncio.to_thread(cluster.revive)
            back = await load.all_moved(since=whole)
            verdict = await load.finish(60.0)
        down = sum(service.returncode is not None for service in two)
    figures.add("slots moved", slots_to_move)
    figures.add("longest stall by a move s", longest, most=5)
    figures.add("cluster whole again s", whole - killed)
    figures.add("moving again after that s", back, most=10)
    figures.add("attempts charged", verdict.charged, most=0)
    figures.add("services down", down, most=0)
    verdict.report(figures)
    return figures


def _chosen(cluster: ReplicatedCluster, count: int, chance: random.Random) -> list[int]:
    """Slots of the shards, as far as they go, and others."""
    client = cluster.nodes[0].client
    shards = [
        int(client.execute_command("CLUSTER", "KEYSLOT", ShardKeys(_MESH, shard).prefix)) for shard in range(_SHARDS)
    ]
    others = chance.sample(sorted(set(range(_SLOTS)) - set(shards)), max(0, count - len(shards)))
    chosen = [*shards, *others][:count]
    chance.shuffle(chosen)
    return chosen
