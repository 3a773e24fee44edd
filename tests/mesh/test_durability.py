"""What a start waits for: nothing, a replica, or the disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from datamesh import ConfigurationError, Flow, IOVal, NotDurableError, Supervisor, Task
from datamesh.store.durability import Durability, confirm, probe
from datamesh.store.store import Store
from tests.sentinel import Watched
from tests.servers import Server, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

nobody = Task("nobody", inputs={"number": int}, outputs={"same": int})


async def started(supervisor: Supervisor) -> tuple[Store, str]:
    run = await supervisor.start_flow(Flow.from_tasks(nobody).resolve(), [IOVal("number", 1)])
    return (await supervisor.session()).store, run.id


async def cancelled(supervisor: Supervisor, run_id: str) -> None:
    await (await supervisor.get_run(run_id)).cancel()


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with Watched("redis", sentinels=1) as found:
        yield found


async def test_levels_by_name() -> None:
    assert [Durability.of(name) for name in ("acknowledged", "replicated", "fsync")] == list(Durability)
    with pytest.raises(ConfigurationError, match="'replicated'"):
        Durability.of("safe")


async def test_a_replica_confirms(watched: Watched, mesh: str) -> None:
    async with Supervisor(url=watched.url, mesh=mesh, tasks=[]) as supervisor, asyncio.timeout(20):
        store, run_id = await started(supervisor)
        await probe(store, run_id, Durability.REPLICATED)
        await confirm(store, run_id, Durability.REPLICATED)
        assert watched.replica.client.hexists(store.shard_of(run_id).keys.run(run_id), "state")
        await cancelled(supervisor, run_id)


async def test_a_replica_that_hangs_does_not(watched: Watched, mesh: str) -> None:
    async with Supervisor(url=watched.primary.url, mesh=mesh, tasks=[]) as supervisor, asyncio.timeout(20):
        store, run_id = await started(supervisor)
        watched.replica.pause()
        try:
            began = time.monotonic()
            with pytest.raises(NotDurableError, match="not confirmed within 1 s") as caught:
                await confirm(store, run_id, Durability.REPLICATED, seconds=1.0)
            assert time.monotonic() - began < 3
            assert (caught.value.run_id, caught.value.asked) == (run_id, "replicated")
            # Others are not held up by who waits.
            waiting = asyncio.create_task(confirm(store, run_id, Durability.REPLICATED, seconds=10.0))
            began = time.monotonic()
            _, other = await started(supervisor)
            assert time.monotonic() - began < 0.5
            watched.replica.resume()
            await waiting
        finally:
            watched.replica.resume()
        await cancelled(supervisor, run_id)
        await cancelled(supervisor, other)


async def test_no_replica_at_all(server: Server, mesh: str) -> None:
    async with Supervisor(url=server.url, mesh=mesh, tasks=[]) as supervisor:
        store = (await supervisor.session()).store
        with pytest.raises(NotDurableError, match="no replica"):
            await probe(store, "run", Durability.REPLICATED)
        await probe(store, "run", Durability.ACKNOWLEDGED)
        await confirm(store, "run", Durability.ACKNOWLEDGED)


async def test_a_run_that_is_gone_is_not_durable(watched: Watched, mesh: str) -> None:
    async with Supervisor(url=watched.url, mesh=mesh, tasks=[]) as supervisor:
        store = (await supervisor.session()).store
        with pytest.raises(NotDurableError, match="not there any more"):
            await confirm(store, "never", Durability.REPLICATED)


async def test_a_failover_while_it_waits(mesh: str) -> None:
    with Watched("redis", sentinels=1) as watched:
        async with Supervisor(url=watched.url, mesh=mesh, tasks=[], lease=2.0) as supervisor, asyncio.timeout(40):
            store, run_id = await started(supervisor)
            await confirm(store, run_id, Durability.REPLICATED)
            watched.primary.stop(kill=True)
            waiting = asyncio.create_task(confirm(store, run_id, Durability.REPLICATED, seconds=25.0))
            await asyncio.to_thread(watched.wait_for_promotion)
            await asyncio.to_thread(watched.primary.start)
            await waiting
            await cancelled(supervisor, run_id)


async def test_on_disk(mesh: str) -> None:
    with Server("valkey", persist=True) as server:
        async with Supervisor(url=server.url, mesh=mesh, tasks=[]) as supervisor, asyncio.timeout(20):
            store, run_id = await started(supervisor)
            await probe(store, run_id, Durability.FSYNC)
            await confirm(store, run_id, Durability.FSYNC)
            server.client.config_set("appendonly", "no")
            with pytest.raises(ConfigurationError, match="appendonly yes"):
                await probe(store, run_id, Durability.FSYNC)
            with pytest.raises(NotDurableError, match=r"(?i)appendonly"):
                await confirm(store, run_id, Durability.FSYNC)
            await cancelled(supervisor, run_id)


@pytest.mark.parametrize("server", ["redis"], indirect=True)
async def test_a_server_that_cannot_wait_for_its_disk(server: Server, mesh: str) -> None:
    if server.client.info("server")["redis_version"] >= "7.2":
        pytest.skip("this server can")
    async with Supervisor(url=server.url, mesh=mesh, tasks=[]) as supervisor:
        store = (await supervisor.session()).store
        with pytest.raises(ConfigurationError, match=r"WAITAOF.*Redis 7\.2"):
            await probe(store, "run", Durability.FSYNC)


async def test_what_was_confirmed_outlives_a_kill(mesh: str) -> None:
    with Watched("redis", sentinels=1) as watched:
        async with Supervisor(url=watched.url, mesh=mesh, tasks=[], lease=2.0) as supervisor, asyncio.timeout(40):
            runs = []
            for _ in range(50):
                store, run_id = await started(supervisor)
                await confirm(store, run_id, Durability.REPLICATED)
                runs.append(run_id)
            watched.primary.stop(kill=True)
            await asyncio.to_thread(watched.wait_for_promotion)
            keys = store.shards[0].keys
            wait_until(lambda: watched.has(watched.replica, "role", "master"))
            assert all(watched.replica.client.hexists(keys.run(run_id), "state") for run_id in runs)
