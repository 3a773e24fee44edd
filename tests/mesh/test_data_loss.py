"""Redis loses what it had: it is said loudly, nobody waits for what will never come, and work begins again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from datamesh import IO, DataLossError, Flow, IOVal, ProtocolMismatchError, Supervisor, Task, UnknownRunError
from datamesh.model.registry import registry
from datamesh.store import mesh as mesh_module
from datamesh.store.connect import endpoint_of
from datamesh.store.link import Link
from datamesh.store.locate import locate
from datamesh.store.store import Store
from tests.mesh.places import PATIENCE, until
from tests.servers import ClusterServer, Server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

NOTICED_SECONDS = 5.0
SERVED_SECONDS = 2.0

sleepy = Task("sleepy", inputs={"number": int}, outputs={"same": int})
nobody = Task("nobody", inputs={"number": int}, outputs={"same": int})


@pytest.fixture
def flow() -> Iterator[Flow]:
    with registry.isolated():

        @sleepy
        async def _sleepy(number: int) -> int:
            await asyncio.sleep(number)
            return number

        yield Flow.from_tasks(sleepy).resolve()


def numbers(*values: int) -> list[IOVal[int]]:
    return [IOVal("number", value) for value in values]


def losses(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.message for r in caplog.records if r.levelname == "ERROR" and "has lost its data" in r.message]


@pytest.mark.parametrize("server", ["valkey", "redis"], indirect=True)
async def test_readers_are_released_and_new_runs_are_served(
    server: Server, mesh: str, flow: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    service = Supervisor(url=server.url, mesh=mesh, tasks=[sleepy])
    starter = Supervisor(url=server.url, mesh=mesh, tasks=[])
    async with service, starter, asyncio.timeout(PATIENCE):
        run = await starter.start_flow(flow, numbers(60))
        readers = [asyncio.create_task(run["same"].collect()), asyncio.create_task(run.wait())]
        await until(lambda: _is_read(starter, 3))
        began = time.monotonic()
        server.client.flushall()
        for reader in readers:
            with pytest.raises(DataLossError, match=run.id):
                await reader
        assert time.monotonic() - began < NOTICED_SECONDS
        began = time.monotonic()
        again = await starter.start_flow(flow, numbers(0))
        assert await again["same"].collect() == [0]
        assert time.monotonic() - began < SERVED_SECONDS
        assert 1 <= len(losses(caplog)) <= 2, "once in each of the two"
        with pytest.raises(DataLossError):
            await run["same"].collect()
        assert time.monotonic() - began < SERVED_SECONDS


async def _is_read(supervisor: Supervisor, streams: int) -> bool:
    """Whether a process waits at so many streams: the news, and those that a test reads."""
    tails = (await supervisor.session()).store.shards[0].tails
    return len([channel for channel in tails._channels.values() if channel.waiters]) >= streams


async def test_who_only_waits_notices_it_too(server: Server, mesh: str, caplog: pytest.LogCaptureFixture) -> None:
    flow = Flow.from_tasks(nobody).resolve()
    async with Supervisor(url=server.url, mesh=mesh, tasks=[]) as starter, asyncio.timeout(PATIENCE):
        run = await starter.start_flow(flow, numbers(1))
        reader = asyncio.create_task(run["same"].collect())
        await until(lambda: _is_read(starter, 2))
        began = time.monotonic()
        server.client.flushall()
        with pytest.raises(DataLossError):
            await reader
        assert time.monotonic() - began < NOTICED_SECONDS
        assert len(losses(caplog)) == 1


async def test_the_settings_and_contracts_of_the_mesh_come_back(server: Server, mesh: str, flow: Flow) -> None:
    async with Supervisor(url=server.url, mesh=mesh, tasks=[sleepy]), asyncio.timeout(PATIENCE):
        before = server.client.hgetall(f"{{{mesh}}}:mesh")
        server.client.flushall()

        async def are_back() -> bool:
            contract = server.client.exists(f"{{{mesh}}}:task:sleepy@1")
            return bool(contract) and server.client.hgetall(f"{{{mesh}}}:mesh") == before

        await until(are_back)


async def test_a_server_that_came_back_empty(mesh: str, flow: Flow, caplog: pytest.LogCaptureFixture) -> None:
    with Server("redis") as server:
        supervisor = Supervisor(url=server.url, mesh=mesh, tasks=[sleepy])
        async with supervisor, asyncio.timeout(PATIENCE):
            run = await supervisor.start_flow(flow, numbers(60))
            reader = asyncio.create_task(run["same"].collect())
            await until(lambda: _is_read(supervisor, 2))
            server.stop(kill=True)
            server.start()
            began = time.monotonic()
            with pytest.raises(DataLossError):
                await reader
            assert time.monotonic() - began < NOTICED_SECONDS
            again = await supervisor.start_flow(flow, numbers(0))
            assert await again["same"].collect() == [0]
        assert len(losses(caplog)) == 1


async def test_a_server_that_came_back_whole_has_lost_nothing(
    mesh: str, flow: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    with Server("redis", persist=True) as server:
        supervisor = Supervisor(url=server.url, mesh=mesh, tasks=[sleepy])
        async with supervisor, asyncio.timeout(PATIENCE):
            run = await supervisor.start_flow(flow, numbers(1))
            server.stop(kill=True)
            server.start()
            assert await run["same"].collect() == [1]
            server.client.delete(f"{{{mesh}:0}}:run:{run.id}")
            epoch = (await supervisor.session()).store.shards[0].epoch
            assert isinstance(await epoch.missing(run.id), UnknownRunError)
        assert not losses(caplog)


@pytest.mark.cluster
async def test_one_node_of_a_cluster_is_emptied(
    cluster: ClusterServer, mesh: str, flow: Flow, caplog: pytest.LogCaptureFixture
) -> None:
    async with Supervisor(url=cluster.url, mesh=mesh, tasks=[sleepy]) as supervisor, asyncio.timeout(40):
        runs = [await supervisor.start_flow(flow, numbers(5)) for _ in range(30)]
        readers = [asyncio.create_task(run["same"].collect()) for run in runs]
        await asyncio.sleep(0.5)
        store = (await supervisor.session()).store
        node = cluster.nodes[0]
        lost = {run.id for run in runs if cluster.node_of(store.shard_of(run.id).keys.prefix) is node}
        assert lost
        node.client.flushall()
        results = dict(
            zip((run.id for run in runs), await asyncio.gather(*readers, return_exceptions=True), strict=True)
        )
        assert {run_id for run_id, result in results.items() if isinstance(result, DataLossError)} == lost
        assert all(result == [5] for run_id, result in results.items() if run_id not in lost)
        shards = {store.shard_of(run_id).index for run_id in lost}
        assert all(any(f"shard {index} of" in line for line in losses(caplog)) for index in shards)


async def test_errors_without_end_do_not_make_a_busy_loop(
    server: Server, mesh: str, flow: Flow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A work stream of another type: each read fails at once, however long it may block."""
    async with Supervisor(url=server.url, mesh=mesh, tasks=[sleepy]), asyncio.timeout(PATIENCE):
        calls: list[float] = []
        monkeypatch.setattr(Link, "chaos", lambda when, args: calls.append(time.monotonic()) if when == "before" else 0)
        work = f"{{{mesh}:0}}:work:sleepy@1"
        server.client.delete(work)
        server.client.set(work, "not a stream")
        await asyncio.sleep(4.0)
        late = [at for at in calls if at > time.monotonic() - 3.0]
        assert len(late) < 20 * 3
        assert len([r for r in caplog.records if "cannot take work" in r.message]) < 20 * 4
        server.client.delete(work)


# --------------------------------------------------------------------------------------------------- versions


async def opened(server: Server, mesh: str) -> Store:
    return await Store.open(mesh, endpoint_of(locate(server.url, None, mesh), None))


@pytest.mark.parametrize(
    ("ours", "recorded", "is_admitted"),
    [
        (5, {"protocol": 5, "least": 4}, True),
        (5, {"protocol": 4}, True),
        (5, {"protocol": 6}, True),
        (5, {"protocol": 6, "least": 5}, True),
        (5, {"protocol": 6, "least": 6}, False),
        (5, {"protocol": 5, "least": 6}, False),
        (5, {"protocol": 3}, False),
        (5, {"protocol": 7, "least": 1}, False),
    ],
)
async def test_versions_that_live_side_by_side(
    server: Server, mesh: str, monkeypatch: pytest.MonkeyPatch, ours: int, recorded: dict[str, int], is_admitted: bool
) -> None:
    for name, value in {"shards": 1, **recorded}.items():
        server.client.hset(f"{{{mesh}}}:mesh", name, str(value))
    monkeypatch.setattr(mesh_module, "PROTOCOL", ours)
    if is_admitted:
        store = await opened(server, mesh)
        assert store.settings.protocol == recorded["protocol"]
        await store.close()
    else:
        with pytest.raises(ProtocolMismatchError, match="Upgrade the older side"):
            await opened(server, mesh)


async def test_the_first_to_come_records_its_version(
    server: Server, mesh: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version in (5, 6, 4):
        monkeypatch.setattr(mesh_module, "PROTOCOL", version)
        await (await opened(server, mesh)).close()
    recorded = server.client.hgetall(f"{{{mesh}}}:mesh")
    assert recorded == {b"protocol": b"5", b"least": b"4", b"shards": b"1", b"signed": b""}


async def test_open_inputs_of_a_lost_run(server: Server, mesh: str) -> None:
    whole = Task("whole", inputs=["number"], outputs=["total"])
    with registry.isolated():

        @whole
        async def _whole(number: IO[int]) -> int:
            return sum(await number.collect())

        flow = Flow.from_tasks(whole).resolve()
        async with Supervisor(url=server.url, mesh=mesh, tasks=[whole]) as supervisor:
            async with asyncio.timeout(PATIENCE):
                run = await supervisor.start_flow(flow, open_inputs=True)
                await run.inputs["number"].write(1)
                reader = asyncio.create_task(run["total"].collect())
                await until(lambda: _is_read(supervisor, 3))
                server.client.flushall()
                with pytest.raises(DataLossError):
                    await reader
