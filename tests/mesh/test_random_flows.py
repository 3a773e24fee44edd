"""Random flows give the same multiset of outputs on the mesh as when they are evaluated here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings

from datamesh import FlowRun, Supervisor
from datamesh.model.registry import registry
from datamesh.store.embedded import EmbeddedServer
from tests.mesh.random_flows import Case, cases
from tests.servers import ClusterServer

SECONDS = 15.0

quick = settings(
    max_examples=25,
    deadline=None,
    # Shrinking repeats hangs, each to its timeout; the flows are small enough to be read.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    report_multiple_bugs=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def embedded_mesh(mesh: str) -> Iterator[str]:
    """Keep the embedded server of a mesh for all examples of a test."""
    server = EmbeddedServer.acquire(mesh)
    yield mesh
    server.release()


def differs_nowhere(url: str | None, case: Case) -> None:
    """Run a case on two services that share its tasks, and compare."""
    note(repr(case))
    with registry.isolated():
        found = anyio.run(_run, url, case)
    expected = case.expected()
    assert found == {name: expected[name] for name in case.read_back}


async def _run(url: str | None, case: Case) -> dict[str, Counter[int]]:
    flow, tasks = case.build()
    own = {bit: [task for task, share in zip(tasks, case.shares, strict=True) if share & bit] for bit in (1, 2)}
    where: dict[str, Any] = {"url": url, "concurrency": case.concurrency, "lease": 5.0}
    async with Supervisor(tasks=own[1], **where) as first, Supervisor(tasks=own[2], **where):
        with anyio.fail_after(SECONDS):
            run = await first.start_flow(flow, inputs=case.inputs, all_outputs=case.all_outputs)
            return await _collected(run)


async def _collected(run: FlowRun) -> dict[str, Counter[int]]:
    try:
        return {name: Counter(values) for name, values in (await run.result()).items()}
    except BaseException:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            note(repr(await run.status()))
        raise


@pytest.mark.redis
@pytest.mark.parametrize("server", ["valkey", "redis"], indirect=True)
@given(case=cases())
@quick
def test_on_a_server(redis_url: str, case: Case) -> None:
    differs_nowhere(redis_url, case)


@given(case=cases())
@settings(quick, max_examples=10)
def test_on_the_embedded_server(embedded_mesh: str, case: Case) -> None:
    differs_nowhere(f"embedded://{embedded_mesh}", case)


@pytest.mark.cluster
@given(case=cases())
@settings(quick, max_examples=8)
def test_on_a_cluster(cluster: ClusterServer, case: Case) -> None:
    differs_nowhere(cluster.url, case)
