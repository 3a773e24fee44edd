"""Tails: readers of run streams never wait for what cannot come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from datamesh.errors import StoreUnavailableError, UnknownRunError
from datamesh.model.task import Task
from datamesh.store.blocked import BlockedRead
from datamesh.store.frames import Entry, end_of
from datamesh.store.tails import Tails
from tests.protocol.rig import Rig
from tests.servers import Server

pytestmark = pytest.mark.anyio

A = Task("a", "in", "mid")


@pytest.fixture
async def tails(rig: Rig) -> AsyncIterator[Tails]:
    link = rig.endpoint.link(rig.keys.prefix, blocking=True)
    tails = Tails(rig.protocol, BlockedRead(link, rig.protocol.link))
    yield tails
    await tails.close()


async def read_all(tails: Tails, key: str, run_key: str) -> list[Entry]:
    found: list[Entry] = []
    while not found or not end_of(found[-1]):
        found += await tails.read(key, found[-1].entry_id if found else "0", run_key=run_key)
    return found


async def test_readers_at_different_places_get_every_entry_from_where_they_stand(rig: Rig, tails: Tails) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, values=200)
    key, run_key = rig.keys.stream("R", 0), rig.keys.run("R")
    every = await read_all(tails, key, run_key)
    assert len(every) == 200
    for place in (0, 3, 100, 150, 198):
        (after, follower) = (every[place].entry_id, every[place + 1].entry_id)
        assert (await tails.read(key, after, run_key=run_key))[0].entry_id == follower


async def test_who_lags_behind_in_a_run_that_has_expired_hears_so(rig: Rig, tails: Tails) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, values=200)
    key, run_key = rig.keys.stream("R", 0), rig.keys.run("R")
    every = await read_all(tails, key, run_key)
    rig.client.delete(key, run_key, *rig.client.keys("*:run:R:*"))
    with pytest.raises(UnknownRunError):
        await tails.read(key, every[5].entry_id, run_key=run_key)


async def test_who_waits_hears_that_the_server_refuses_it(rig: Rig, tails: Tails, server: Server) -> None:
    bound = await rig.bind(A)
    await rig.start(bound, complete=False)
    waiting = asyncio.create_task(tails.read(rig.keys.stream("R", 0), "0", run_key=rig.keys.run("R")))
    await asyncio.sleep(0.05)
    try:
        server.client.config_set("requirepass", "secret")
        server.client.client_kill_filter(_type="normal", skipme=True)
        with pytest.raises(StoreUnavailableError):
            await asyncio.wait_for(waiting, 5)
    finally:
        server.client.config_set("requirepass", "")
