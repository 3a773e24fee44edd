"""The health of a worker as whoever runs it sees it: its port, its exit code, and what its log says."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from datamesh import Flow, Supervisor, Task
from tests.mesh.commands import PATIENCE, begun
from tests.mesh.workers import WorkerProcess, working
from tests.servers import Server, free_ports, wait_until

BLOCKING = """
import pathlib, time
from datamesh import Supervisor, task

@task(outputs="m")
async def block(n: float) -> float:
    with pathlib.Path("began").open("a") as lines:
        lines.write("x")
    time.sleep(n)
    return n

supervisor = Supervisor(tasks=[block], lease=1.0)
"""

BROKEN = """
from datamesh import Supervisor
from datamesh.supervise import oversight
from datamesh.supervise.timers import Timers

async def break_down(self):
    raise ValueError("on purpose")

oversight._FIRST_PAUSE = 0.01
Timers._keep = break_down
supervisor = Supervisor(tasks=[])
"""


async def ask(url: str, mesh: str, seconds: float) -> dict[str, list[float]]:
    """Run the task that blocks; in a service that does not implement it."""
    task = Task(name="block", inputs={"n": float}, outputs={"m": float})
    async with Supervisor(url=url, mesh=mesh, tasks=[]) as supervisor:
        run = await supervisor.start_flow(Flow.from_tasks(task).resolve(), {"n": seconds})
        return await run.result()


def test_a_blocked_event_loop_is_told_and_keeps_its_lease(tmp_path: Path, server: Server, mesh: str) -> None:
    """It blocks for three leases, another service would take over, and yet the function runs once."""
    (tmp_path / "blocking.py").write_text(BLOCKING, "utf-8")
    with (
        working("blocking", url=server.url, mesh=mesh, cwd=tmp_path) as one,
        working("blocking", url=server.url, mesh=mesh, cwd=tmp_path) as other,
    ):
        blocked: list[WorkerProcess] = []

        def is_told() -> bool:
            blocked.extend(worker for worker in (one, other) if worker.ask("/healthz")[0] == 503)
            return bool(blocked)

        async def both() -> None:
            asking = asyncio.create_task(ask(server.url, mesh, 3.5))
            await asyncio.to_thread(wait_until, is_told, seconds=PATIENCE)
            status, told = await asyncio.to_thread(blocked[0].ask, "/readyz")
            assert (status, told["healthy"], told["lag"] >= 1.0) == (503, False, True)
            assert await asking == {"m": [3.5]}

        asyncio.run(both())
        assert (tmp_path / "began").read_text() == "x"
        blocked[0].until_logged("the event loop runs again")
        assert blocked[0].log.count("the event loop has been blocked") == 1
        assert "time.sleep(n)" in blocked[0].log
        assert "in block" in blocked[0].log
        wait_until(lambda: blocked[0].ask("/readyz")[0] == 200, seconds=PATIENCE)


def test_a_worker_that_breaks_for_good_exits_with_1(tmp_path: Path, server: Server, mesh: str) -> None:
    (tmp_path / "broken.py").write_text(BROKEN, "utf-8")
    with working("broken", url=server.url, mesh=mesh, cwd=tmp_path, ready=False) as worker:
        assert worker.process.wait(PATIENCE) == 1
        worker.until_logged("error: timers of shard 0 cannot be kept going: ValueError('on purpose')")
        assert "ValueError: on purpose" in str([line.get("exception") for line in worker.lines])
        assert server.client.zcard(f"{{{mesh}:0}}:members") == 0


def test_the_port_may_be_set_in_the_environment(tmp_path: Path, server: Server, mesh: str) -> None:
    (tmp_path / "blocking.py").write_text(BLOCKING, "utf-8")
    (port,) = free_ports(1)
    others = {"DATAMESH_URL": server.url, "DATAMESH_HEALTH_PORT": str(port), "DATAMESH_HEALTH_HOST": "localhost"}
    with begun(["worker", "blocking", "--log-format", "json"], mesh=mesh, cwd=tmp_path, others=others) as process:
        worker = WorkerProcess(process)
        worker.until_logged("health is answered on")
        assert worker.port == port
        wait_until(lambda: worker.ask("/readyz")[0] == 200, seconds=PATIENCE)
        assert worker.ask("/healthz")[1]["state"] == "working"
        assert worker.ask("/metrics")[0] == 404
        assert worker.end(signal.SIGTERM)[0] == 0


def test_before_it_has_joined_it_is_alive_and_not_ready(tmp_path: Path, server: Server, mesh: str) -> None:
    (tmp_path / "blocking.py").write_text(BLOCKING, "utf-8")
    server.pause()
    try:
        with working("blocking", url=server.url, mesh=mesh, cwd=tmp_path, ready=False) as worker:
            for path, expected in (("/readyz", 503), ("/healthz", 200)):
                status, told = worker.ask(path)
                assert (status, told["state"], told["actors"]) == (expected, "starting", [])
    finally:
        server.resume()
