"""The first program of the documentation, as typed, wherever its Redis and its implementation are."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from datamesh import ConfigurationError, Flow, IOVal, LocalExecutor, Supervisor, Task
from tests.mesh.places import PATIENCE, ROOT, Place, running

pytestmark = pytest.mark.anyio
PROGRAM = (ROOT / "examples" / "first_program.py").read_text()
EXPECTED = b"0\n2\n4\n6\n8\n"

foobar = Task(name="foobar", inputs=["foo"], outputs=["bar"])


async def run(path: Path, environment: dict[str, str]) -> tuple[bytes, int]:
    async with running([str(path)], environment) as process:
        async with asyncio.timeout(PATIENCE):
            out, _ = await process.communicate()
        assert process.returncode is not None
        return out, process.returncode


def changed(tmp_path: Path, old: str, new: str) -> Path:
    """The program with one line another."""
    assert old in PROGRAM
    path = tmp_path / "program.py"
    path.write_text(PROGRAM.replace(old, new))
    return path


async def test_on_a_machine_without_redis(tmp_path: Path, place: Place) -> None:
    environment = place.environment | {"DATAMESH_RUNTIME_DIR": str(tmp_path)}
    del environment["DATAMESH_URL"]
    began = time.perf_counter()
    assert await run(ROOT / "examples" / "first_program.py", environment) == (EXPECTED, 0)
    assert time.perf_counter() - began < 6  # 3 s on a machine that does nothing else


async def test_with_the_instance_called(tmp_path: Path, place: Place) -> None:
    program = changed(tmp_path, "Supervisor.instance.start_flow", "Supervisor.instance().start_flow")
    assert await run(program, place.environment) == (EXPECTED, 0)


@pytest.mark.parametrize("module", ["redis", "redis.asyncio"])
async def test_with_a_client(tmp_path: Path, place: Place, module: str) -> None:
    client = f"client={module}.from_url({place.url!r}), executor=LocalExecutor()"
    program = changed(tmp_path, "executor=LocalExecutor()", client)
    program.write_text(f"import {module}\n" + program.read_text())
    environment = place.environment | {"DATAMESH_URL": "redis://localhost:1"}
    assert await run(program, environment) == (EXPECTED, 0)
    found = redis.from_url(place.url)
    assert any(place.mesh.encode() in key for key in found.scan_iter(count=1000))
    found.close()


async def test_the_implementation_was_there_before(place: Place) -> None:
    async with place.service("multiplying"), place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        result: dict[str, Any] = await supervisor.start_flow(
            Flow.from_tasks(foobar).resolve(), inputs=[IOVal(name="foo", value=5)]
        )
        assert [value async for value in result["bar"].stream()] == [0, 2, 4, 6, 8]


async def test_the_implementation_comes_after(place: Place) -> None:
    async with place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        result = await supervisor.start_flow(Flow.from_tasks(foobar).resolve(), inputs={"foo": 5})
        status = await result.status()
        assert (status.state, status.missing) == ("waiting", ("foobar@1",))
        async with place.service("multiplying"):
            assert [value async for value in result["bar"]] == [0, 2, 4, 6, 8]


async def test_the_starting_process_may_end_at_once(place: Place) -> None:
    starter = (
        "import asyncio\nfrom datamesh import Flow, Supervisor, Task\n"
        "flow = Flow.from_tasks(Task(name='foobar', inputs=['foo'], outputs=['bar'])).resolve()\n"
        "async def main():\n    await Supervisor.instance.start_flow(flow, inputs={'foo': 5}, run_id='left')\n"
        "Supervisor.attach()\nasyncio.run(main())\n"
    )
    async with running(["-c", starter], place.environment) as process:
        await process.communicate()
        assert process.returncode == 0
    async with place.service("multiplying"), place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        assert await (await supervisor.get_run("left")).result() == {"bar": [0, 2, 4, 6, 8]}


def test_before_any_attach_the_line_to_add_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"Supervisor\.attach\("):
        _ = Supervisor.instance


def test_attaching_twice_is_refused() -> None:
    first = Supervisor.attach(executor=LocalExecutor(), url="redis://localhost:1")
    try:
        assert Supervisor.instance is first
        assert Supervisor.instance() is first
        with pytest.raises(ConfigurationError, match="attached already"):
            Supervisor.attach()
    finally:
        Supervisor.detach()


def test_a_wrong_option_names_those_that_exist() -> None:
    with pytest.raises(ConfigurationError, match=r"concurrency.*lease.*retention"):
        Supervisor(concurency=3)
    with pytest.raises(ConfigurationError, match="DATAMESH_LEASE"):
        Supervisor(lease="soon")
