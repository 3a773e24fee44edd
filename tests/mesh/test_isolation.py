"""Values that kill their services: two services die of one, then a child process, and nobody else."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest

from datamesh import Flow, IOVal
from tests.mesh.places import PATIENCE, Place, running
from tests.mesh.services import suspects

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

KILLED = -signal.SIGKILL
LONG = 60.0
"""Seconds in which leases run out and processes start on a busy machine."""
WELL = [f"word {number}" for number in range(12)]

JAILER = """
import asyncio, sys
from datamesh import LocalExecutor
from datamesh.supervise.isolation import Isolation
from datamesh.supervise.served import Served
from datamesh.model.registry import registry
from tests.mesh.services import suspects

async def main(name, path):
    binding = registry.get(f"suspects.{name}@1").compiled
    served = Served.of(binding, executors={}, default=LocalExecutor(), max_value_bytes=1024)
    (frame,) = served.inputs["path"].frames([path])
    await Isolation(served).run(frame.payload, run_id="r", task="t", attempt=1, delivery_id="1-1", blobs={})

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def services(place: Place, count: int) -> AsyncIterator[list[Process]]:
    """Services that may be killed."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(place.service("mortal")) for _ in range(count)]


def dead(processes: list[Process]) -> list[int]:
    return [process.returncode for process in processes if process.returncode is not None]


async def test_two_services_die_of_a_value_and_no_other_value_suffers(place: Place) -> None:
    flow = Flow.from_tasks(suspects.skipped).resolve()
    async with services(place, 3) as processes, place.supervisor(tasks=[]) as supervisor, asyncio.timeout(LONG):
        words = [*WELL[:5], "kill", *WELL[5:]]
        run = await supervisor.start_flow(flow, [IOVal("word", word) for word in words])
        found = await run["survived"].collect()
        await until_dead(processes, 2)
        status = await run.status()
    assert sorted(found) == sorted(WELL)
    assert status.state == "done"
    assert dead(processes)[:2] == [KILLED, KILLED]


async def test_what_a_generator_gave_before_it_died_is_there_once(place: Place) -> None:
    flow = Flow.from_tasks(suspects.split).resolve()
    async with services(place, 3) as processes, place.supervisor(tasks=[]) as supervisor, asyncio.timeout(LONG):
        run = await supervisor.start_flow(flow, [IOVal("words", "a,b,kill,never"), IOVal("words", "c,d")])
        found = await run["part"].collect()
        await until_dead(processes, 2)
    assert sorted(found) == ["a", "b", "c", "d", "kill"]


async def until_dead(processes: list[Process], count: int) -> None:
    """Wait until as many have died; one more would have died of the same value."""
    async with asyncio.timeout(PATIENCE):
        while len(dead(processes)) < count:
            await asyncio.sleep(0.02)
    assert len(dead(processes)) == count


@pytest.mark.parametrize("name", ["endless", "blocked"])
async def test_a_child_ends_with_its_service(name: str, tmp_path: Path, place: Place) -> None:
    path = tmp_path / "pid"
    async with running(("-c", JAILER, name, str(path)), place.environment) as process, asyncio.timeout(LONG):
        while not (text := path.read_text() if path.exists() else ""):
            await asyncio.sleep(0.02)
        child = psutil.Process(int(text))
        assert child.ppid() == process.pid
        os.kill(process.pid, signal.SIGKILL)
        while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.02)
