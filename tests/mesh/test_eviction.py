"""A server that may throw keys away loses runs: it is refused, unless that is allowed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

import pytest

from datamesh import StoreUnavailableError, Supervisor
from datamesh.store import store as store_module
from tests.mesh.places import until
from tests.servers import ClusterServer, Server

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("server", ["valkey", "redis"], indirect=True)]

POLICY = "maxmemory-policy"


@pytest.fixture
def evicting(server: Server) -> Iterator[Server]:
    server.client.config_set(POLICY, "allkeys-lru")
    yield server
    server.client.config_set(POLICY, "noeviction")


async def test_it_is_refused_with_the_ways_out(evicting: Server, mesh: str) -> None:
    with pytest.raises(StoreUnavailableError) as caught:
        await Supervisor(url=evicting.url, mesh=mesh).session()
    for said in ("allkeys-lru", "allow_eviction=True", "CONFIG SET maxmemory-policy noeviction"):
        assert said in str(caught.value)


async def test_it_may_be_allowed(evicting: Server, mesh: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Supervisor(url=evicting.url, mesh=mesh, tasks=[], allow_eviction=True):
        pass
    assert [record.levelname for record in caplog.records if "allkeys-lru" in record.message] == ["WARNING"]


async def test_without_config_the_memory_section_tells(evicting: Server, mesh: str) -> None:
    evicting.client.acl_setuser("app", enabled=True, nopass=True, keys="*", categories=["+@all"], commands=["-config"])
    try:
        with pytest.raises(StoreUnavailableError, match="allkeys-lru"):
            await Supervisor(url=evicting.url.replace("unix://", "unix://app:x@"), mesh=mesh).session()
    finally:
        evicting.client.acl_deluser("app")


async def test_where_nothing_tells_it_goes_on(evicting: Server, mesh: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "datamesh")
    evicting.client.execute_command("ACL", "SETUSER", "app", "on", "nopass", "~*", "+@all", "-config", "-info")
    try:
        async with Supervisor(url=evicting.url.replace("unix://", "unix://app:x@"), mesh=mesh, tasks=[]):
            pass
    finally:
        evicting.client.acl_deluser("app")
    assert len([record for record in caplog.records if "does not tell" in record.message]) == 1


async def test_a_change_is_noticed(
    server: Server, mesh: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_WATCH_SECONDS", 0.05)
    async with Supervisor(url=server.url, mesh=mesh, tasks=[]) as supervisor:
        watch = asyncio.create_task((await supervisor.session()).store.watch())
        try:
            server.client.config_set(POLICY, "volatile-ttl")

            async def is_said() -> bool:
                return any(r.levelname == "ERROR" and "volatile-ttl" in r.message for r in caplog.records)

            await until(is_said)
        finally:
            server.client.config_set(POLICY, "noeviction")
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)


@pytest.mark.cluster
async def test_every_node_of_a_cluster_is_asked(server: Server, cluster: ClusterServer, mesh: str) -> None:
    cluster.nodes[-1].client.config_set(POLICY, "allkeys-random")
    try:
        with pytest.raises(StoreUnavailableError, match="allkeys-random"):
            await Supervisor(url=cluster.url, mesh=mesh).session()
    finally:
        cluster.nodes[-1].client.config_set(POLICY, "noeviction")
