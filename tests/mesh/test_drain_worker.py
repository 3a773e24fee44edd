"""The end of a worker: it exits in time and with the right code, whatever it is doing, and nothing is lost."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from datamesh import Flow, Supervisor, Task
from tests.mesh.commands import PATIENCE
from tests.mesh.workers import WorkerProcess, working
from tests.servers import Server, wait_until

GRACE = 1.0
MARGIN = 3.0
"""Seconds beyond the grace period in which a worker must have exited."""

MODULE = """
import asyncio, pathlib, threading, time
from datamesh import Supervisor, task

began = pathlib.Path("began")

def begin(n):
    with began.open("a") as lines:
        lines.write(f"{n}\\n")

@task(outputs="m")
def hang(n: int) -> int:
    begin(n)
    threading.Event().wait()
    return n

@task(outputs="m")
async def hang_outside(n: int) -> int:
    begin(n)
    return await asyncio.to_thread(threading.Event().wait)

@task(outputs="m")
async def stubborn(n: int) -> int:
    begin(n)
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(3600)
    return n

@task(outputs="m")
async def deaf(n: int) -> int:
    begin(n)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

@task(outputs="m")
async def block(n: int) -> int:
    begin(n)
    time.sleep(n)
    return n

@task(outputs="m")
async def nap(n: int) -> int:
    begin(n)
    await asyncio.sleep(0.5)
    return n

supervisor = Supervisor(tasks=[TASK], lease=2.0)
"""


class Mill:
    """A folder with a service of one task, and the mesh it works in."""

    def __init__(self, folder: Path, server: Server, mesh: str) -> None:
        self.folder = folder
        self.server = server
        self.mesh = mesh

    @contextmanager
    def worker(self, name: str, *, begun: int | None = 1, **others: str) -> Iterator[WorkerProcess]:
        """A worker of one task, once it is at work on the number `begun`."""
        (self.folder / "mill.py").write_text(MODULE.replace("TASK", name), "utf-8")
        options = {"DATAMESH_GRACE": str(GRACE), **others}
        with working("mill", url=self.server.url, mesh=self.mesh, cwd=self.folder, others=options) as worker:
            if begun is not None:
                asyncio.run(self.ask(name, begun))
                wait_until(lambda: (self.folder / "began").exists(), seconds=PATIENCE, what=lambda: worker.log)
            yield worker

    async def ask(self, name: str, n: int) -> None:
        """Start a run of one value, under the name of its task."""
        async with Supervisor(url=self.server.url, mesh=self.mesh, tasks=[]) as supervisor:
            flow = Flow.from_tasks(Task(name=name, inputs={"n": int}, outputs={"m": int})).resolve()
            await supervisor.start_flow(flow, {"n": n}, run_id=name)

    def pending(self) -> int:
        """Entries that somebody holds."""
        works = list(self.server.client.scan_iter(f"{{{self.mesh}:0}}:work:*"))
        return sum(int(self.server.client.xpending(work, "w")["pending"]) for work in works)


@pytest.fixture
def mill(tmp_path: Path, server: Server, mesh: str) -> Mill:
    return Mill(tmp_path, server, mesh)


pytestmark = pytest.mark.leaves_runs


@pytest.mark.parametrize("name", ["hang", "hang_outside", "stubborn", "deaf"])
def test_sigterm_ends_a_worker_whose_function_does_not_end(mill: Mill, name: str) -> None:
    with mill.worker(name) as worker:
        code, took = worker.end(signal.SIGTERM)
        assert code == 0, worker.log
        assert GRACE <= took <= GRACE + MARGIN, worker.log
        assert "draining for at most 1 s" in worker.log
        assert mill.server.client.zcard(f"{{{mill.mesh}:0}}:members") == 0, "it did not leave"


def test_sigterm_ends_a_worker_whose_event_loop_is_blocked(mill: Mill) -> None:
    with mill.worker("block", begun=60) as worker:
        code, took = worker.end(signal.SIGTERM)
        assert (code, took <= GRACE + MARGIN) == (0, True), worker.log
        assert "ended by force" in worker.log


@pytest.mark.parametrize("stop", ["kill", "pause"])
def test_sigterm_ends_a_worker_without_redis(tmp_path: Path, mesh: str, stop: str) -> None:
    with Server() as server:
        mill = Mill(tmp_path, server, mesh)
        with mill.worker("nap") as worker:
            if stop == "kill":
                server.stop(kill=True)
            else:
                server.pause()
            code, took = worker.end(signal.SIGTERM)
            if stop == "pause":
                server.resume()
            assert (code, took <= GRACE + MARGIN) == (0, True), worker.log


def test_a_worker_at_rest_ends_at_once(mill: Mill) -> None:
    with mill.worker("nap", begun=None, DATAMESH_GRACE="20") as worker:
        code, took = worker.end(signal.SIGTERM)
        assert (code, took <= 3.5) == (0, True), worker.log
        assert "ended by force" not in worker.log


def test_what_ends_within_the_grace_is_finished(mill: Mill) -> None:
    with mill.worker("nap", DATAMESH_GRACE="20") as worker:
        code, took = worker.end(signal.SIGINT)
        assert (code, took <= 4.0) == (0, True), worker.log
        assert mill.server.client.hget(f"{{{mill.mesh}:0}}:run:nap", "state") == b"done"


@pytest.mark.parametrize(("name", "n"), [("hang", 1), ("block", 60)])
def test_a_second_signal_ends_a_worker_at_once_with_130(mill: Mill, name: str, n: int) -> None:
    with mill.worker(name, begun=n, DATAMESH_GRACE="60") as worker:
        worker.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert worker.process.poll() is None
        code, took = worker.end(signal.SIGINT)
        assert (code, took <= 1.0) == (130, True), worker.log


def test_a_draining_worker_is_alive_and_not_ready(mill: Mill) -> None:
    with mill.worker("hang", DATAMESH_GRACE="3") as worker:
        worker.process.send_signal(signal.SIGTERM)
        worker.until_logged("draining")
        status, told = worker.ask("/readyz")
        assert (status, told["state"], told["slots_used"]) == (503, "draining", 1)
        assert worker.ask("/healthz")[0] == 200
        assert worker.process.wait(PATIENCE) == 0
