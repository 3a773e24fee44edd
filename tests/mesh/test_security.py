"""What a mesh shows of secrets, which names it takes, and what it believes of what stands in Redis."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

import datamesh
from datamesh import (
    IO,
    ConfigurationError,
    DatameshError,
    Flow,
    IOVal,
    ProtocolMismatchError,
    Secret,
    StoreUnavailableError,
    Supervisor,
    TamperedDataError,
    Task,
    TaskFailedError,
    task,
)
from datamesh.codec.failure import Failure
from tests.mesh.commands import datamesh as command
from tests.mesh.places import PATIENCE, ROOT, Place, until
from tests.mesh.services.secretive import Login, blurt, bury, measure, misfit, reject
from tests.servers import Server

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

PASSWORD, TOKEN, OF_URL = "canary-5a5b5c", "canary-6d6e6f", "url-canary-55"
CANARIES = (PASSWORD, TOKEN, OF_URL)
IS_SIGNED = any("sealing_of(" in path.read_text("utf-8") for path in Path(datamesh.__file__).parent.glob("s*/*.py"))
signed = pytest.mark.skipif(not IS_SIGNED, reason="values are not signed yet")


def login() -> Login:
    return Login(user="u", password=SecretStr(PASSWORD), token=TOKEN)


# ---------------------------------------------------------------------------------------------------- secrets


@asynccontextmanager
async def secretive(place: Place, log: Path) -> AsyncIterator[None]:
    """The service of that name, which writes its log to a file."""
    with log.open("wb") as stream:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-m", "tests.mesh.services.secretive", stdout=asyncio.subprocess.PIPE,
            stderr=stream, cwd=ROOT, env=place.environment,
        )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            assert await process.stdout.readline() == b"ready\n"
        yield
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def told(server: Server) -> list[bytes]:
    """Everything in Redis that tells why something went wrong: ends of runs and of streams, reasons of the dead."""
    found: list[bytes] = []
    client = _client(server)
    for key in client.scan_iter(count=1000):
        kind = client.type(key)
        if kind == b"hash":
            fields = client.hgetall(key)
            found += [value for name, value in fields.items() if name in (b"failure", b"error", b"reason")]
        elif kind == b"stream":
            found += [fields[b"x"] for _, fields in client.xrange(key) if b"x" in fields]
            if key.endswith(b":events"):
                found += [value for _, fields in client.xrange(key) for value in fields.values()]
    return found


async def test_a_secret_is_seen_by_the_function_and_by_nobody_else(
    place: Place, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    log = tmp_path / "log"
    texts: list[str] = []
    async with secretive(place, log), place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(measure).resolve(), {"login": login()})
        assert await run.result() == {"length": [len(PASSWORD) + len(TOKEN)]}
        failed = await supervisor.start_flow(Flow.from_tasks(blurt).resolve(), {"login": login()}, run_id="failed")
        with pytest.raises(TaskFailedError, match=r"u: \*\*\* and \*\*\* at redis://u:\*\*\*@h") as caught:
            await failed.result()
        texts += [str(caught.value), caught.value.remote_traceback, str(await failed.status())]
        for buried, value in ((bury, login()), (reject, login()), (misfit, PASSWORD)):
            flow = Flow.from_tasks(buried).resolve()
            ended = await (await supervisor.start_flow(flow, {buried.inputs[0]: value})).wait()
            texts.append(str(ended))
    shown = await asyncio.to_thread(command, "show", "failed", "--url", place.url, mesh=place.mesh)
    assert shown.returncode == 0, shown.stderr
    assert "ValueError" in shown.stdout
    texts += [shown.stdout, shown.stderr, log.read_text("utf-8"), caplog.text]
    reasons = told(server)
    assert len(reasons) >= 4
    assert "measuring" in log.read_text("utf-8")
    assert "about to fail with ***" in log.read_text("utf-8")
    assert_clean("".join(texts).encode() + b"".join(reasons))
    assert [Failure.unpack(reason).message for reason in reasons if b"cannot log in" in reason] == [
        "cannot log in with '***', '***'"
    ]


def assert_clean(text: bytes) -> None:
    for canary in CANARIES:
        at = text.find(canary.encode())
        assert at < 0, text[max(0, at - 300) : at + 100]


async def test_a_secret_goes_from_task_to_task_as_it_is(place: Place) -> None:
    sent = Task("sent", inputs={"word": SecretStr}, outputs={"token": SecretStr})
    used = Task("used", inputs={"token": SecretStr}, outputs={"size": int})

    @sent
    async def _sent(word: SecretStr) -> SecretStr:
        return SecretStr(word.get_secret_value() * 2)

    @used
    async def _used(token: SecretStr) -> int:
        return len(token.get_secret_value())

    @task(outputs="both")
    async def marked(token: Annotated[str, Secret()]) -> str:
        return token + token

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(sent, used).resolve(), {"word": SecretStr("1234")})
        assert await run.result() == {"size": [8]}
        run = await supervisor.start_flow(Flow.from_tasks(marked).resolve(), {"token": "1234"})
        assert await run.result() == {"both": ["12341234"]}


async def test_a_value_that_does_not_fit_is_not_quoted_at_the_start(place: Place) -> None:
    typed = Task("typed", inputs={"number": int, "login": Login}, outputs=["out"])
    flow = Flow.from_tasks(typed).resolve()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        for number, found in ((PASSWORD, login()), (1, {"user": "u", "password": [TOKEN]}), (1, PASSWORD)):
            with pytest.raises(DatameshError) as caught:
                await supervisor.start_flow(flow, {"number": number, "login": found})
            assert_clean(str(caught.value).encode())


# ------------------------------------------------------------------------------------------------------ names

ODD = "{}*?[]\n\0 :/\\'\"\r\t%;|&$<>\x1b\u202eé"
odd_names = st.one_of(
    st.just(""),
    st.text(alphabet="a" * 3 + ODD, min_size=1, max_size=70).filter(lambda name: name.strip("a")),
    st.just("a" * 65),
    st.sampled_from(
        ["{other:0}", "a}:run:b", "*", "a\n", "\0", "a b", "..\x00", "shop:0", "a:high", "\uff41", "a\u0301"]
    ),
)


@given(name=odd_names)
def test_odd_names_are_refused_where_something_is_declared(name: str) -> None:
    places: list[Callable[[], Any]] = [
        lambda: Task(name),
        lambda: Task("good", inputs=[name]),
        lambda: Task("good", outputs=[name]),
        lambda: Task("good", inputs={name: int}),
        lambda: Task("good", inputs=["a"]).rename(inputs={"a": name}),
        lambda: Task("good", outputs=["b"]).rename(outputs={"b": name}),
        lambda: Flow.from_tasks(Task("good", outputs=["b"]), name=name),
        lambda: Supervisor(url="memory://", mesh=name),
        lambda: Supervisor(url="memory://", name=name),
    ]
    for make in places:
        with pytest.raises(DatameshError) as caught:
            make()
        assert "\n" not in str(caught.value).partition(":")[0]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=odd_names)
async def test_odd_names_are_refused_where_something_is_asked_for(name: str, place: Place, server: Server) -> None:
    flow = Flow.from_tasks(Task("good", inputs=["a"], outputs=["b"])).resolve()
    supervisor = Supervisor(url="memory://", mesh=place.mesh, tasks=[])
    asked: list[Callable[[], Awaitable[Any]]] = [
        lambda: supervisor.start_flow(flow, {"a": 1}, run_id=name),
        lambda: supervisor.start_flow(flow, {"a": 1, name: 2}),
        lambda: supervisor.start_flow(flow, [IOVal(name, 1)]),
        lambda: supervisor.get_run(name),
        lambda: supervisor.dead.list(run_id=name),
        lambda: supervisor.dead.get(name),
        lambda: supervisor.dead.drop(name),
    ]
    async with supervisor:
        for ask in asked:
            with pytest.raises(DatameshError):
                await ask()


@pytest.mark.parametrize("name", ["{shop:0}", "a\n", "a*", "", "\0"])
def test_odd_names_are_refused_in_the_environment_and_in_urls(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name and "\0" not in name:
        monkeypatch.setenv("DATAMESH_MESH", name)
        with pytest.raises(ConfigurationError):
            Supervisor(url="memory://")
        monkeypatch.delenv("DATAMESH_MESH")
    if name.strip() == name and name:
        with pytest.raises(ConfigurationError):
            Supervisor(url=f"embedded://{name}")


# --------------------------------------------------------------------------------------------------- passwords


async def test_the_password_of_a_url_is_in_no_error_and_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for url in (
        f"redis://u:{PASSWORD}@127.0.0.1:1/0",
        f"redis://:{PASSWORD}@127.0.0.1:1",
        f"unix://u:{PASSWORD}@/nowhere/s.sock",
        f"redis://127.0.0.1:1?password={PASSWORD}",
    ):
        supervisor = Supervisor(url=url, tasks=[])
        with pytest.raises(StoreUnavailableError) as caught:
            await supervisor.session()
        chain: BaseException | None = caught.value
        while chain is not None:
            assert PASSWORD not in str(chain)
            chain = chain.__cause__ or chain.__context__
        assert PASSWORD not in repr(supervisor)
    assert PASSWORD not in caplog.text


def test_signing_keys_are_not_shown() -> None:
    supervisor = Supervisor(url="memory://", signing_keys=[PASSWORD * 2])
    assert PASSWORD not in repr(supervisor.settings)
    with pytest.raises(ConfigurationError) as caught:
        Supervisor(url="memory://", signing_keys=[PASSWORD])
    assert PASSWORD not in str(caught.value)


# ---------------------------------------------------------------------------------------------------- signing

KEY, NEWER, FOREIGN = "a key that services share", "the key that comes after", "a key of somebody else..."
double = Task("double", inputs={"number": int}, outputs={"twice": int})
keep = Task("keep", inputs={"twice": int}, outputs={"kept": list[int]})


def implement() -> Flow:
    @double
    async def _double(number: int) -> int:
        return 2 * number

    @keep
    async def _keep(twice: IO[int]) -> list[int]:
        return sorted(await twice.collect())

    return Flow.from_tasks(double, keep).resolve()


@signed
@pytest.mark.parametrize(("writes", "reads"), [([KEY], [KEY]), ([KEY], [KEY, NEWER]), ([NEWER, KEY], [KEY, NEWER])])
async def test_services_with_a_key_in_common_work_together(place: Place, writes: list[str], reads: list[str]) -> None:
    flow = implement()
    async with (
        place.supervisor(tasks=[double], signing_keys=writes) as one,
        place.supervisor(tasks=[keep], signing_keys=reads),
        asyncio.timeout(PATIENCE),
    ):
        run = await one.start_flow(flow, [IOVal("number", n) for n in range(600)])
        assert await run.result() == {"kept": [[2 * n for n in range(600)]]}


@signed
@pytest.mark.parametrize("keys", [[FOREIGN], []], ids=["another key", "no key"])
async def test_who_does_not_sign_as_the_others_do_is_refused(place: Place, keys: list[str]) -> None:
    async with place.supervisor(tasks=[], signing_keys=[KEY]), asyncio.timeout(PATIENCE):
        with pytest.raises(ProtocolMismatchError, match="a key in common in `signing_keys=`"):
            await place.supervisor(tasks=[], signing_keys=keys).session()


@signed
@pytest.mark.parametrize("keys", [[FOREIGN], []], ids=["another key", "no key"])
async def test_what_was_signed_with_another_key_is_buried_and_not_run(
    place: Place, server: Server, keys: list[str]
) -> None:  # fmt: skip
    flow = implement()
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(place.supervisor(tasks=[double, keep], signing_keys=[KEY]))
        # Somebody who writes without having been let in.
        server.client.hdel(f"{{{place.mesh}}}:mesh", "signed")
        stranger = await stack.enter_async_context(place.supervisor(tasks=[], signing_keys=keys))
        await stack.enter_async_context(asyncio.timeout(PATIENCE))
        run = await stranger.start_flow(flow, {"number": 1})
        await until(lambda: _has_letter(service))
        (letter,) = await service.dead.list()
        assert "sign" in letter.error
        assert (await run.status()).tasks["double"].done == 0
        await run.cancel()


@signed
async def test_values_of_another_run_are_not_believed(place: Place, server: Server) -> None:
    flow = implement()
    async with place.supervisor(tasks=[], signing_keys=[KEY]) as starter, asyncio.timeout(PATIENCE):
        async with place.supervisor(tasks=[double, keep], signing_keys=[KEY]):
            for run_id, number in (("first", 1), ("second", 7)):
                await (await starter.start_flow(flow, {"number": number}, run_id=run_id)).wait()
        for key in server.client.scan_iter("*:run:first:s:*"):
            server.client.copy(key, key.replace(b":run:first:", b":run:second:"), replace=True)
        assert await (await starter.get_run("first"))["kept"].collect() == [[2]]
        with pytest.raises(TamperedDataError, match=r"'kept' of run 'second': its signature does not fit"):
            await (await starter.get_run("second"))["kept"].collect()


@signed
async def test_a_changed_delivery_is_buried_and_runs_nothing(place: Place, server: Server) -> None:
    flow = implement()
    async with place.supervisor(tasks=[double, keep], signing_keys=[KEY]):
        pass  # from now on it is known how these tasks take their inputs
    async with place.supervisor(tasks=[], signing_keys=[KEY]) as starter, asyncio.timeout(PATIENCE):
        run, client = await starter.start_flow(flow, {"number": 1}), _client(server)
        (work,) = [key for key in client.scan_iter("*:work:double@1") if client.xlen(key)]
        ((entry, fields),) = client.xrange(work)
        client.xadd(work, fields | {b"v": bytes([fields[b"v"][0] ^ 1]) + fields[b"v"][1:]})
        client.xdel(work, entry)
        async with place.supervisor(tasks=[double, keep], signing_keys=[KEY]):
            await until(lambda: _has_letter(starter))
            (letter,) = await starter.dead.list()
            assert "its signature does not fit" in letter.error
            assert (await run.status()).tasks["double"].done == 0
            await run.cancel()


@signed
async def test_an_entry_of_a_run_that_is_over_changes_nothing(place: Place, server: Server) -> None:
    flow = implement()
    async with place.supervisor(tasks=[double, keep], signing_keys=[KEY]):
        pass
    async with place.supervisor(tasks=[], signing_keys=[KEY]) as starter, asyncio.timeout(PATIENCE):
        run, client = await starter.start_flow(flow, {"number": 1}), _client(server)
        (work,) = [key for key in client.scan_iter("*:work:double@1") if client.xlen(key)]
        ((_, fields),) = client.xrange(work)
        async with place.supervisor(tasks=[double, keep], signing_keys=[KEY]):
            assert await run.result() == {"kept": [[2]]}
            for _ in range(20):
                client.xadd(work, fields)
            await until(lambda: _is_empty(server, work))
        assert (await run.status()).tasks["double"].done == 1
        assert await run["kept"].collect() == [[2]]
        assert not await starter.dead.list()


def _client(server: Server) -> Any:
    return server.client


async def _has_letter(supervisor: Supervisor) -> bool:
    return bool(await supervisor.dead.list())


async def _is_empty(server: Server, key: bytes) -> bool:
    return not server.client.xlen(key)
