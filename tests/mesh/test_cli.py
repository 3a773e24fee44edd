"""The command line: a service as a command, and what the commands say about its runs."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.mesh.commands import PATIENCE, begun, datamesh, new_mesh, python

SHOP = """
import asyncio
from collections.abc import AsyncIterator
from datamesh import Flow, IOVal, Supervisor, task

@task(outputs="paid")
async def pay(order: int) -> int:
    if order < 0:
        raise ValueError(f"order {order} [owes]")
    if order == 0:
        await asyncio.sleep(3600)
    return order

supervisor = Supervisor(tasks=[pay], name="shop")
pinned = Supervisor(tasks=[pay], url="redis://localhost:1", mesh="elsewhere")
"""

ASK = """
import asyncio, sys
from shop import Flow, IOVal, Supervisor, pay

async def ask(run_id, orders):
    async with Supervisor(tasks=[]) as supervisor:
        flow = Flow.from_tasks(pay, name="shopping").resolve()
        run = await supervisor.start_flow(flow, [IOVal("order", order) for order in orders], run_id=run_id)
        if "wait" in sys.argv:
            await run.wait()

asyncio.run(ask(sys.argv[1], [int(order) for order in sys.argv[2].split(",")]))
"""


class Shop:
    """A folder with a service, and a mesh whose server lives as long as the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mesh = new_mesh()
        (folder / "shop.py").write_text(SHOP, "utf-8")
        (folder / "ask.py").write_text(ASK, "utf-8")

    def say(self, *args: str) -> subprocess.CompletedProcess[str]:
        return datamesh(*args, mesh=self.mesh, cwd=self.folder)

    def ask(self, run_id: str, *args: str) -> None:
        done = python("ask.py", run_id, *args, mesh=self.mesh, cwd=self.folder)
        assert done.returncode == 0, done.stderr

    def json(self, *args: str) -> Any:
        done = self.say(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture
def worker(shop: Shop) -> Iterator[subprocess.Popen[str]]:
    """The service at work."""
    with begun(["worker", "shop", "--log-format", "json"], mesh=shop.mesh, cwd=shop.folder) as process:
        assert process.stderr is not None
        first = json.loads(process.stderr.readline())
        assert "embedded server" in first["message"]
        yield process


def test_a_service_works_and_drains(shop: Shop, worker: subprocess.Popen[str]) -> None:
    shop.ask("r1", "1,2,3", "wait")
    (run,) = shop.json("runs")
    assert (run["id"], run["flow"], run["state"], run["done"], run["open"]) == ("r1", "shopping", "done", 3, 0)
    status = shop.json("show", "r1")
    assert status["tasks"]["pay"]["done"] == 3
    assert status["streams"]["paid"] == {"stream": "paid", "values": 3, "closed": True}
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=PATIENCE) == 0


def test_runs_are_listed_newest_first_with_what_became_of_them(shop: Shop, worker: subprocess.Popen[str]) -> None:
    shop.ask("good", "1", "wait")
    shop.ask("bad", "-1", "wait")
    shop.ask("long", "0")
    text = shop.say("runs").stdout.splitlines()
    assert [line.split()[:3] for line in text[1:]] == [
        ["long", "shopping", "open"],
        ["bad", "shopping", "failed"],
        ["good", "shopping", "done"],
    ]
    assert [run["id"] for run in shop.json("runs", "--limit", "1")] == ["long"]
    assert "task 'pay' failed at attempt 1: ValueError: order -1 [owes]" in shop.say("show", "bad").stdout


def test_a_run_is_cancelled_once(shop: Shop, worker: subprocess.Popen[str]) -> None:
    shop.ask("long", "0")
    assert shop.say("cancel", "long").stdout == "run long of shopping is cancelled\n"
    assert shop.say("cancel", "long").stdout == "run long of shopping is cancelled\n"
    assert "run 'long' was cancelled" in shop.say("show", "long").stdout


def test_a_run_tells_which_services_it_waits_for_and_starts_when_one_comes(shop: Shop) -> None:
    with ExitStack() as stack:
        # Somebody must hold the embedded server while nobody else does.
        stack.enter_context(begun(["worker", "nothing"], mesh=shop.mesh, cwd=_nothing(shop.folder)))
        _until_served(shop)
        shop.ask("early", "1")
        said = shop.say("show", "early").stdout
        assert "run early of shopping is waiting" in said
        assert "waits for a service that implements pay@1" in said
        stack.enter_context(begun(["worker", "shop"], mesh=shop.mesh, cwd=shop.folder))
        until = time.monotonic() + PATIENCE
        while shop.json("show", "early")["state"] != "done":
            assert time.monotonic() < until


def _nothing(folder: Path) -> Path:
    (folder / "nothing.py").write_text("from datamesh import Supervisor\nsupervisor = Supervisor(tasks=[])\n", "utf-8")
    return folder


def _until_served(shop: Shop) -> None:
    assert shop.say("runs").returncode == 0


def test_no_runs_is_said_and_says_where(shop: Shop) -> None:
    said = shop.say("runs")
    assert (said.returncode, said.stdout) == (0, "")
    assert f"no runs in mesh '{shop.mesh}', the embedded server" in said.stderr
    assert shop.json("runs") == []


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["show", "nope"], 1, "error: there is no run 'nope'"),
        (["cancel", "no pe"], 1, "error: 'no pe' cannot be the name of a run id"),
        (["runs", "--url", "redis://localhost:1"], 1, "error: Redis at localhost:1: "),
        (["runs", "--url", "http://localhost"], 1, "error: url 'http://localhost' is of no known kind"),
        (["runs", "--mesh", "a b"], 1, "error: 'a b' cannot be the name of a mesh"),
        (["worker", "shop", "--url", "redis://localhost:1"], 1, "error: Redis at localhost:1: "),
        (["worker", "shop:pinned"], 1, "error: Redis at localhost:1: "),
        (
            ["worker", "shop:pinned", "--mesh", "m"],
            1,
            "error: shop:pinned sets mesh='elsewhere' itself: leave out --mesh m",
        ),
        (
            ["worker", "shop:pinned", "--url", "redis://:pw@h"],
            1,
            "chooses its Redis itself: leave out --url redis://:***@h",
        ),
        (["worker", "shop:nope"], 1, "error: shop:nope: there is no 'nope' in the module; it has the supervisor"),
        (["worker", "shop", "--concurrency", "0"], 2, "Invalid value for '--concurrency'"),
        (["worker", "shop", "--log-format", "xml"], 2, "Invalid value for '--log-format'"),
        (["worker", "shop", "--health-port", "65536"], 2, "Invalid value for '--health-port'"),
        (["worker", "shop", "--health-host", "192.0.2.1", "--health-port", "0"], 1, "error: health port 192.0.2.1:0 "),
        (["worker"], 2, "Missing argument 'MODULE:SUPERVISOR'"),
        (["walk"], 2, "No such command 'walk'"),
    ],
)
def test_an_error_is_one_clear_line(shop: Shop, args: list[str], code: int, said: str) -> None:
    done = shop.say(*args)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert code == 2 or len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1


def test_version_names_the_package_and_python(shop: Shop) -> None:
    assert shop.say("version").stdout.startswith("datamesh ")
