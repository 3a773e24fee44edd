"""A cluster changes under a mesh: slots move to other nodes, a master dies and its replica takes over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from redis.crc import key_slot

from datamesh import Flow, IOVal, Supervisor, Task
from datamesh.model.registry import registry
from datamesh.store.blocked import BlockedRead
from datamesh.store.cluster import Cluster
from datamesh.store.connect import endpoint_of
from datamesh.store.locate import locate
from datamesh.store.store import Store
from tests.faults.checks import assert_once
from tests.mesh.places import until
from tests.sentinel import assert_none_lost
from tests.servers import KINDS, ClusterServer, Server, free_ports, program, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.cluster, pytest.mark.timeout(90)]

RECOVERY_SECONDS = 10.0
COUNT, AT = 300, 40
"""Values of a run, and those that are there when a master goes."""

double = Task("double", inputs={"number": int}, outputs={"doubled": int})


@pytest.fixture
def flow() -> Iterator[Flow]:
    with registry.isolated():

        @double
        async def _double(number: int) -> int:
            await asyncio.sleep(0.02)
            return 2 * number

        yield Flow.from_tasks(double).resolve()


def numbers(count: int) -> list[IOVal[int]]:
    return [IOVal("number", number) for number in range(count)]


def service(url: str, mesh: str) -> Supervisor:
    return Supervisor(url=url, mesh=mesh, tasks=[double], lease=2.0, concurrency=4)


@pytest.mark.parametrize("cluster", KINDS, indirect=True)
async def test_slots_move_while_work_goes_on(cluster: ClusterServer, mesh: str, flow: Flow) -> None:
    async with service(cluster.url, mesh) as supervisor, asyncio.timeout(60):
        run = await supervisor.start_flow(flow, numbers(COUNT))
        slot = key_slot((await supervisor.session()).store.shard_of(run.id).keys.prefix.encode())
        home = cluster.node_of(f"{{{mesh}:0}}")
        values: list[int] = []
        times: list[float] = []
        async for value in run["doubled"]:
            values.append(value)
            times.append(time.monotonic())
            if len(values) in (40, 80, 120):
                target = cluster.nodes[len(values) // 40 % 3]
                await asyncio.to_thread(cluster.move, slot, target)
        assert_once(values, [2 * number for number in range(COUNT)])
        assert max(after - before for before, after in pairwise(times)) < RECOVERY_SECONDS
        assert (await run.wait()).state == "done"
        assert home in cluster.nodes


@pytest.mark.parametrize("cluster", KINDS, indirect=True)
async def test_readers_that_are_blocked_follow(cluster: ClusterServer, mesh: str, flow: Flow) -> None:
    """All is quiet when the slot moves: no command is there to learn of it before the readers do."""
    async with service(cluster.url, mesh) as supervisor, asyncio.timeout(30):
        store = (await supervisor.session()).store
        shard = store.shards[3]
        slot = key_slot(shard.keys.prefix.encode())
        home = cluster.node_of(shard.keys.prefix)
        target = next(node for node in cluster.nodes if node is not home)
        await asyncio.to_thread(cluster.move, slot, target)

        async def have_followed() -> bool:
            return {_port(read) for read in (shard.intake, shard.tails._blocked)} == {target.port}

        await until(have_followed, seconds=8)
        run_id = next(name for name in map(str, range(1000)) if store.shard_of(name) is shard)
        run = await supervisor.start_flow(flow, numbers(4), run_id=run_id)
        assert sorted(await run["doubled"].collect()) == [0, 2, 4, 6]
        await asyncio.to_thread(cluster.move, slot, home)


def _port(read: BlockedRead) -> int:
    connection: Any = read._link._connection  # type: ignore[attr-defined]
    return 0 if connection is None else int(connection.port)


async def test_a_slot_that_is_half_way_is_waited_for(cluster: ClusterServer, mesh: str) -> None:
    """A key that the server has sent on already: it asks to be asked elsewhere, once, and is asked again instead."""
    store = await Store.open(mesh, endpoint_of(locate(cluster.url, None, mesh), None))
    shard = store.shards[0]
    slot = key_slot(shard.keys.prefix.encode())
    home = cluster.node_of(shard.keys.prefix)
    target = next(node for node in cluster.nodes if node is not home)
    ids = {node: node.client.execute_command("CLUSTER", "MYID").decode() for node in (home, target)}
    target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[home])
    home.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    home.client.execute_command("MIGRATE", "127.0.0.1", target.port, shard.keys.epoch, 0, 5000)
    asking = asyncio.create_task(shard.protocol.command("GET", shard.keys.epoch))
    done, _ = await asyncio.wait([asking], timeout=0.5)
    assert not done
    for node in (target, home, *cluster.nodes):
        node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])
    async with asyncio.timeout(5):
        assert await asking
    await store.close()
    await asyncio.to_thread(cluster.move, slot, home)


# ------------------------------------------------------------------------------------------------- a dead master


@pytest.fixture(params=KINDS)
def with_replica(request: pytest.FixtureRequest) -> Iterator[tuple[ClusterServer, Server]]:
    """A cluster, and a replica of its first node."""
    if program(request.param) is None:
        pytest.skip(f"there is no {request.param} server on this machine")
    with ClusterServer(request.param) as cluster:
        first = cluster.nodes[0]
        (port,) = free_ports(1)
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-announce-ip", "127.0.0.1")
        with Server(request.param, port=port, options=(*options, "--repl-diskless-sync-delay", "0")) as replica:
            replica.client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port)
            name = first.client.execute_command("CLUSTER", "MYID").decode()
            wait_until(lambda: _follows(replica, name), seconds=10, what="the replica to know its master")
            wait_until(lambda: replica.client.info("replication")["master_link_status"] == "up", seconds=10)
            wait_until(lambda: all(_nodes(node) == 4 for node in cluster.nodes), seconds=10)
            yield cluster, replica


def _follows(replica: Server, name: str) -> bool:
    try:
        return bool(replica.client.execute_command("CLUSTER", "REPLICATE", name))
    except Exception:  # it has not heard of the master yet
        return False


def _nodes(node: Server) -> int:
    told = bytes(node.client.execute_command("CLUSTER", "INFO")).decode()
    return int(told.partition("cluster_known_nodes:")[2].split()[0])


@pytest.mark.parametrize("fault", ["kill", "pause"])
async def test_a_replica_takes_over(
    with_replica: tuple[ClusterServer, Server], mesh: str, flow: Flow, fault: str
) -> None:
    cluster, replica = with_replica
    first = cluster.nodes[0]
    seed = cluster.nodes[1].port
    async with service(f"redis+cluster://127.0.0.1:{seed}", mesh) as supervisor, asyncio.timeout(60):
        store = (await supervisor.session()).store
        names = [name for name in map(str, range(1000)) if cluster.node_of(store.shard_of(name).keys.prefix) is first]
        run = await supervisor.start_flow(flow, numbers(COUNT), run_id=names[0])
        values: list[int] = []
        times: list[float] = []
        async for value in run["doubled"]:
            values.append(value)
            times.append(time.monotonic())
            if len(values) == AT and fault == "kill":
                first.stop(kill=True)
            elif len(values) == AT:
                first.pause()
        assert_none_lost(values, [2 * number for number in range(COUNT)], at=AT)
        assert_once(await run["doubled"].collect(), [2 * number for number in range(COUNT)])
        assert max(after - before for before, after in pairwise(times)) < RECOVERY_SECONDS
        assert isinstance(store.endpoint, Cluster)
        assert ("127.0.0.1", replica.port) in store.endpoint._known
        again = await supervisor.start_flow(flow, numbers(3), run_id=names[1])
        assert sorted(await again["doubled"].collect()) == [0, 2, 4]
        if fault == "pause":
            first.resume()
