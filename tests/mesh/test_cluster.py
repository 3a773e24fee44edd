"""A mesh on a cluster of three nodes: sixteen shards, each with its runs on one node."""

from __future__ import annotations

import anyio
import pytest

from datamesh import IO, Flow, IOVal, Supervisor, Task
from datamesh.model.registry import registry
from tests.faults import flows
from tests.faults.checks import PATIENCE, assert_once, killing, numbers
from tests.faults.processes import services
from tests.servers import ClusterServer

pytestmark = [pytest.mark.anyio, pytest.mark.cluster]

SHARDS = 16


async def test_runs_are_spread_over_all_nodes(cluster: ClusterServer, mesh: str) -> None:
    square = Task(name="square", inputs={"number": int}, outputs={"squared": int})
    sums = Task(name="sums", inputs={"squared": int}, outputs={"total": int}, wait=True)
    with registry.isolated():

        @square
        async def _square(number: int) -> int:
            return number * number

        @sums
        async def _sums(squared: IO[int]) -> int:
            return sum(await squared.collect())

        flow = Flow.from_tasks(square, sums).resolve()
        async with Supervisor(url=cluster.url, mesh=mesh, tasks=[square, sums]) as supervisor:
            runs = [
                await supervisor.start_flow(flow, inputs=[IOVal(name="number", value=value) for value in range(size)])
                for size in range(1, 49)
            ]
            with anyio.fail_after(PATIENCE):
                totals = [await run["total"].first() for run in runs]
    assert totals == [sum(value * value for value in range(size)) for size in range(1, 49)]
    for node in cluster.nodes:
        assert list(node.client.scan_iter(f"{{{mesh}:*:run:*", count=1000)), "a node without runs"


async def test_the_number_of_shards_is_recorded_with_the_mesh(cluster: ClusterServer, mesh: str) -> None:
    for _ in range(2):
        async with Supervisor(url=cluster.url, mesh=mesh, tasks=[]) as supervisor:
            assert len((await supervisor.session()).store.shards) == SHARDS
    assert cluster.node_of(f"{{{mesh}}}:mesh").client.hget(f"{{{mesh}}}:mesh", "shards") == str(SHARDS).encode()


async def test_a_killed_service_is_replaced_on_a_cluster_too(cluster: ClusterServer, mesh: str) -> None:
    with services(2, cluster.url, "double", mesh=mesh, lease=1.0) as (first, _):
        async with Supervisor(url=cluster.url, mesh=mesh, tasks=[]) as supervisor:
            runs = [await supervisor.start_flow(flows.doubling, inputs=numbers(1000)) for _ in range(8)]
            assert await runs[0]["doubled"].first() % 2 == 0
            await killing(first)()
            with anyio.fail_after(PATIENCE):
                for run in runs:
                    assert_once(await run["doubled"].collect(), [2 * value for value in range(1000)])
