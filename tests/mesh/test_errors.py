"""What goes wrong says what, where and what to do, and leaves nothing half-written."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest

from datamesh import (
    IO,
    ContractMismatchError,
    CyclicFlowError,
    DataError,
    DatameshError,
    DuplicateIOError,
    FloatingIOError,
    Flow,
    IOVal,
    Retry,
    StoreUnavailableError,
    Supervisor,
    Task,
    TaskFailedError,
    UnknownInputError,
    UnknownRunError,
    UnresolvedFlowError,
    task,
)
from datamesh.model.registry import registry
from datamesh.supervise.each import EachRun
from tests.mesh.places import PATIENCE, Place, until
from tests.servers import Server

pytestmark = pytest.mark.anyio


def one() -> Flow:
    return Flow.from_tasks(Task("one", inputs=["a", "b"], outputs=["c"]))


async def test_starts_that_are_refused(place: Place) -> None:
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        with pytest.raises(UnresolvedFlowError, match=r"\.resolve\(\)"):
            await supervisor.start_flow(one(), {"a": 1, "b": 1})
        flow = one().resolve()
        with pytest.raises(FloatingIOError) as floating:
            await supervisor.start_flow(flow, [IOVal("a", 1)], run_id="refused")
        assert floating.value.missing == ("b",)
        with pytest.raises(UnknownInputError) as unknown:
            await supervisor.start_flow(flow, {"a": 1, "b": 1, "d": 1}, run_id="refused")
        assert (unknown.value.unknown, unknown.value.inputs) == (("d",), ("a", "b"))
        with pytest.raises(UnknownRunError, match="refused"):
            await supervisor.get_run("refused")


def test_flows_that_are_refused() -> None:
    foo = Task("foo", inputs="x", outputs="y")
    bar = Task("bar", inputs="y", outputs="x")
    with pytest.raises(CyclicFlowError, match="foo -> bar"):
        Flow.from_tasks(foo, bar).resolve()
    with pytest.raises(DuplicateIOError, match="'y'"):
        Flow.from_tasks(foo, Task("baz", inputs="z", outputs="y")).resolve()
    with pytest.raises(ContractMismatchError, match="str"):
        Flow.from_tasks(Task("p", outputs={"s": int}), Task("q", inputs={"s": str})).resolve()


async def test_a_wrong_password(server: Server, mesh: str) -> None:
    server.client.config_set("requirepass", "right")
    try:
        password = server.url.replace("unix://", "unix://:wrong@")
        for url in (server.url, password):
            with pytest.raises(StoreUnavailableError, match=r"(?i)password"):
                await Supervisor(url=url, mesh=mesh).session()
        async with Supervisor(url=server.url.replace("unix://", "unix://:right@"), mesh=mesh):
            pass
    finally:
        server.client.auth("right")
        server.client.config_set("requirepass", "")


async def test_redis_is_down_at_the_start(tmp_path: Path) -> None:
    for url in ("redis://127.0.0.1:1", f"unix://{tmp_path}/none.sock"):
        supervisor = Supervisor(url=url)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(StoreUnavailableError) as caught:
                await supervisor.start_flow(one().resolve(), {"a": 1, "b": 1})
        assert ("127.0.0.1:1" if "redis:" in url else "none.sock") in str(caught.value)
        assert "DATAMESH_URL" in str(caught.value)
        await supervisor.drain()


async def test_it_may_start_once_redis_is_there(tmp_path: Path, mesh: str) -> None:
    with Server("redis") as server:
        server.stop()
        supervisor = Supervisor(url=server.url, mesh=mesh)
        with pytest.raises(StoreUnavailableError):
            await supervisor.session()
        server.start()
        async with supervisor, asyncio.timeout(PATIENCE):
            assert (await supervisor.session()).is_open


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_redis_goes_away_in_mid_run_and_comes_back(kind: str, mesh: str) -> None:
    @task(outputs="number")
    async def produce(limit: IO[int]) -> AsyncIterator[int]:
        for n in range(await limit.first()):
            yield n
            await asyncio.sleep(0.01)

    @task(outputs="square")
    async def square(number: int) -> int:
        return number * number

    with Server(kind, persist=True) as server:
        async with Supervisor(url=server.url, mesh=mesh, lease=5.0) as supervisor, asyncio.timeout(30):
            run = await supervisor.start_flow(Flow.from_tasks(produce, square).resolve(), {"limit": 120})
            reader = asyncio.create_task(run["square"].collect(ordered=True))

            async def has_begun() -> bool:
                return bool(await run["square"].latest() >= 400)

            await until(has_begun)
            await asyncio.to_thread(server.stop)
            await asyncio.sleep(0.3)
            await asyncio.to_thread(server.start)
            assert await reader == [n * n for n in range(120)]
            assert (await run.wait()).state == "done"


async def test_a_changed_contract_needs_a_new_version(place: Place) -> None:
    def serve(kind: type, version: int = 1) -> Task:
        declared = Task("shared", inputs={"n": kind}, outputs={"m": kind}, version=version)

        async def implementation(n: int) -> int:
            return n

        implementation.__annotations__ = {"n": kind, "return": kind}
        declared(implementation)
        return declared

    with registry.isolated():
        async with place.supervisor(tasks=[serve(int)]):
            pass
    with registry.isolated():
        with pytest.raises(ContractMismatchError) as caught:
            await place.supervisor(tasks=[serve(str)]).session()
        assert "int" in caught.value.expected
        assert "str" in caught.value.found
        assert "version" in str(caught.value)
        assert "shared@1" in str(caught.value)
    with registry.isolated():
        async with place.supervisor(tasks=[serve(str, version=2)]):
            pass


async def test_retries_count_executions(place: Place) -> None:
    calls: list[int] = []

    @task(outputs="m", retry=Retry(attempts=4, backoff=0.01))
    async def shaky(n: int) -> int:
        calls.append(n)
        if len(calls) < 4:
            raise OSError("not yet")
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(shaky).resolve(), {"n": 7})
        assert await run["m"].first() == 7
    assert len(calls) == 4


async def test_the_last_attempt_is_told(place: Place) -> None:
    calls: list[int] = []

    @task(outputs="m", retry=Retry(attempts=3, backoff=0.01))
    def never(n: int) -> int:
        calls.append(n)
        raise OSError("never")

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(never).resolve(), {"n": 7})
        with pytest.raises(TaskFailedError) as caught:
            await run["m"].first()
        assert (caught.value.attempt, len(calls)) == (3, 3)


@pytest.mark.parametrize("policy", ["skip", "dead"])
async def test_failures_that_do_not_end_the_run(place: Place, policy: str) -> None:
    @task(outputs="m", on_error=policy)
    async def picky(n: int) -> int:
        if n % 3 == 0:
            raise ValueError(n)
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(picky).resolve(), [IOVal("n", n) for n in range(9)])
        assert sorted(await run["m"].collect()) == [1, 2, 4, 5, 7, 8]
        status = (await run.wait()).tasks["picky"]
        assert (status.done, status.skipped, status.dead) == ((6, 3, 0) if policy == "skip" else (6, 0, 3))


async def test_a_timeout_of_a_task(place: Place) -> None:
    @task(outputs="m", timeout=0.05)
    async def stuck(n: int) -> int:
        await asyncio.sleep(60)
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(stuck).resolve(), {"n": 7})
        with pytest.raises(TaskFailedError, match="TimeoutError"):
            await run["m"].first()


async def test_a_function_that_exits_or_cancels_itself_fails_alone(place: Place) -> None:
    @task(outputs="m", on_error="skip")
    async def rude(n: int) -> int:
        if n == 1:
            raise SystemExit(3)
        if n == 2:
            raise asyncio.CancelledError
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(rude).resolve(), [IOVal("n", n) for n in range(4)])
        assert sorted(await run["m"].collect()) == [0, 3]


def test_errors_have_one_root() -> None:
    assert issubclass(TaskFailedError, DatameshError)
    assert not issubclass(StoreUnavailableError, ConnectionError)


class Hostile(pydantic.BaseModel):
    """A type whose own code fails with errors that nobody expects of it."""

    n: int

    @pydantic.field_serializer("n")
    def _write(self, n: int) -> int:
        if n == 13:
            raise RuntimeError("will not be written")
        return n

    @pydantic.field_validator("n")
    @classmethod
    def _read(cls, n: int) -> int:
        if n == 14:
            raise RuntimeError("will not be read")
        return n


@pytest.mark.parametrize("n", [13, 14])
@pytest.mark.parametrize("form", ["function", "generator", "stream"])
async def test_types_with_code_of_their_own_that_fails(place: Place, n: int, form: str) -> None:
    hostile = Task("hostile", inputs="n", outputs="made")

    async def returns(n: int) -> Hostile:
        return Hostile.model_construct(n=n)

    async def yields(n: int) -> AsyncIterator[Hostile]:
        yield Hostile.model_construct(n=n)

    async def streams(n: IO[int]) -> AsyncIterator[Hostile]:
        yield Hostile.model_construct(n=await n.first())

    forms: dict[str, Callable[..., Any]] = {"function": returns, "generator": yields, "stream": streams}
    hostile(forms[form])

    @task(outputs="m")
    async def take(made: Hostile) -> int:
        return made.n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(hostile, take).resolve(), {"n": n})
        with pytest.raises((TaskFailedError, DataError), match="will not be"):
            await run["m"].first()
        assert (await run.wait()).state == "failed"


async def test_a_fault_of_the_engine_ends_the_run(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    @task(outputs="m")
    async def echo(n: int) -> int:
        return n

    async def broken(self: EachRun) -> None:
        raise AttributeError("nobody expects this")

    monkeypatch.setattr(EachRun, "work", broken)
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(echo).resolve(), {"n": 1})
        with pytest.raises(TaskFailedError, match="nobody expects this"):
            await run["m"].first()


async def test_lineages_that_cannot_be_read_fail_the_values_and_block_nobody(place: Place, server: Server) -> None:
    @task(outputs="m")
    async def twice(n: int) -> list[IOVal[int]]:
        return [IOVal("m", n), IOVal("m", n)]

    flow = Flow.from_tasks(twice).resolve()
    prefix = f"{{{place.mesh}:0}}"
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, open_inputs=True)
        fields: dict[Any, Any] = server.client.hgetall(f"{prefix}:run:{run.id}")
        entry: dict[Any, Any] = {"r": b"%s %s" % (run.id.encode(), fields[b"origin"]), "p": fields[b"plan"]}
        server.client.xadd(
            f"{prefix}:work:twice@1", {**entry, "m": "0 3 1 -", "l": b"\xc1\xc1", "v": b"\x93\x01\x02\x03"}
        )
        assert (await run.wait()).state == "failed"
        # It goes on with what comes next.
        last = await supervisor.start_flow(flow, {"n": 4})
        assert await last["m"].collect() == [4, 4]


@pytest.mark.parametrize("values", [b"\xc1", b"\x93\x01", b""], ids=["no values", "cut", "nothing"])
@pytest.mark.parametrize("flags", ["-", "b"])
async def test_values_that_cannot_be_read_fail_the_run_with_the_reason(
    place: Place, server: Server, values: bytes, flags: str
) -> None:
    @task(outputs="m")
    async def double(n: int) -> int:
        return 2 * n

    flow = Flow.from_tasks(double).resolve()
    prefix = f"{{{place.mesh}:0}}"
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, open_inputs=True)
        fields: dict[Any, Any] = server.client.hgetall(f"{prefix}:run:{run.id}")
        entry: dict[Any, Any] = {"r": b"%s %s" % (run.id.encode(), fields[b"origin"]), "p": fields[b"plan"]}
        entry |= {"m": f"0 3 1 {flags}", "l": b"\x91\x92\x00\x03", "v": values}
        server.client.xadd(f"{prefix}:work:double@1", entry)
        status = await run.wait()
        assert (status.state, "TamperedDataError" in status.error) == ("failed", True)
