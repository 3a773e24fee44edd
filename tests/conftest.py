"""Fixtures that all tests share: servers, a mesh name for each test, and checks that a test leaves nothing behind."""

from __future__ import annotations

import asyncio
import re
import secrets
import threading
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import redis

from tests.servers import ClusterServer, Pool, Server, pool, program

_RUN = re.compile(r"^(?P<run>\{[^}]*\}:run:(?P<id>[^:]+))(:.*)?$")
_OURS = "datamesh-"
_GRACE = 2.0
"""Seconds in which tasks and threads that were told to end may do so."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Asynchronous tests run on asyncio."""
    return "asyncio"


# ---------------------------------------------------------------------------------------------------- servers


@pytest.fixture(scope="session")
def servers() -> Iterator[Pool]:
    """Servers that the tests of this process share."""
    with pool() as shared:
        yield shared


@pytest.fixture
def server(request: pytest.FixtureRequest, servers: Pool) -> Iterator[Server]:
    """An empty server: Valkey, or which `parametrize("server", [...], indirect=True)` chooses."""
    kind = getattr(request, "param", "valkey")
    if program(kind) is None:
        pytest.skip(f"there is no {kind} server on this machine")
    found = servers.server(kind)
    yield found
    if "leaves_runs" not in request.keywords:
        assert not _left_runs(found.client), "these keys of runs that are over would stay for ever"


@pytest.fixture
def redis_url(server: Server) -> str:
    """Address of the empty server."""
    return server.url


@pytest.fixture
def cluster(request: pytest.FixtureRequest, servers: Pool) -> Iterator[ClusterServer]:
    """An empty cluster of three nodes."""
    kind = getattr(request, "param", "valkey")
    if program(kind) is None:
        pytest.skip(f"there is no {kind} server on this machine")
    found = servers.cluster(kind)
    yield found
    if "leaves_runs" not in request.keywords:
        left = [key for node in found.nodes for key in _left_runs(node.client)]
        assert not left, "these keys of runs that are over would stay for ever"


@pytest.fixture
def mesh() -> str:
    """Name of a mesh that no other test uses."""
    return f"test-{secrets.token_hex(4)}"


def _left_runs(client: redis.Redis) -> list[str]:
    """Keys without an expiry that belong to no run that goes on."""
    found: list[str] = []
    for key in sorted(bytes(key).decode() for key in client.scan_iter("*}:run:*", count=1000)):
        match = _RUN.match(key)
        if match is None or client.pttl(key) != -1:
            continue
        state = client.hget(match["run"], "state") if client.type(match["run"]) == b"hash" else None
        if state not in (b"open", b"waiting"):
            found.append(f"{key} (the run is {state!r})")
    return found


# ----------------------------------------------------------------------------------------------- left behind


@pytest.fixture(autouse=True)
def _nothing_left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """No thread and no asyncio task of ours outlives the test that started it."""
    if "anyio_backend" in request.fixturenames:
        request.getfixturevalue("_no_task_left")
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _GRACE
    while (left := _our_threads(before)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, "threads that outlive the test"


@pytest.fixture
async def _no_task_left() -> AsyncIterator[None]:
    yield
    deadline = time.monotonic() + _GRACE
    while (left := _our_tasks()) and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    assert not left, "asyncio tasks that outlive the test"


def _our_threads(before: set[threading.Thread]) -> list[str]:
    return [t.name for t in threading.enumerate() if t not in before and t.name.startswith(_OURS)]


def _our_tasks() -> list[str]:
    return sorted(task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(_OURS))
