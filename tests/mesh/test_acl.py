"""The users that docs/security.md describes: each can do its work, and nothing besides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from datamesh import Flow, FlowTimeoutError, StoreUnavailableError, Supervisor, Task, UnknownRunError
from datamesh.store.script import SCRIPTS
from datamesh.supervise.runs import list_runs
from tests.mesh.places import Place, until
from tests.mesh.services.numbers import count, slow_square, stuck
from tests.mesh.services.secretive import bury, flaky, large
from tests.servers import KINDS, Pool, Server, program

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

PAGE = Path(__file__).parents[2] / "docs" / "security.md"
ROLES = ("service", "starter", "reader")
LATER = ("client|setinfo", "waitaof")
"""Commands that the page tells to add on servers that know them."""
EXPECTED = "config|get"
"""What every program asks for, and does without."""
CALLED = re.compile(r"\bp?call\(\s*'([A-Z]+)'(?:, '([A-Z]+)')?")
COUNTED = re.compile(r"= '([HLXZS][A-Z]+)'[,}]")
WITH_SUBCOMMANDS = {"XGROUP", "XINFO"}
OF_TAKING = {"take", "settle", "recover", "discard"}
"""Scripts of those who have tasks; parts of others are theirs too."""
OF_SERVING = {"xgroup|create", "xgroup|delconsumer", "xinfo|consumers", "xclaim"}
OF_BEING_THERE = {"join", "beat", "leave"}
PACKAGE = Path(__file__).parents[2] / "datamesh"


# ------------------------------------------------------------------------------------------------------ rules


def rules() -> dict[str, list[str]]:
    """The arguments of each `ACL SETUSER` of the page, by role; what stands in brackets is one argument."""
    found = re.findall(r"```text\n(ACL SETUSER shop-(\w+) .*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    return {role: re.findall(r"\([^)]*\)|\S+", text) for text, role in found}


@dataclass(frozen=True)
class Users:
    """The three users, on a server."""

    server: Server
    mesh: str

    def url(self, role: str) -> str:
        return f"unix://{self.mesh}-{role}:{role.upper()}-PASSWORD@{quote(str(self.server.socket_path))}"

    def place(self, role: str) -> Place:
        return Place(self.url(role), self.mesh)

    def client(self, role: str) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.server.socket_path), username=f"{self.mesh}-{role}",
            password=f"{role.upper()}-PASSWORD", decode_responses=True,
        )  # fmt: skip

    def refused(self, *roles: str) -> list[str]:
        """What the server has refused since it was last asked: the user, and the command or the key."""
        rows = self.server.client.execute_command("ACL", "LOG", 128)
        self.server.client.execute_command("ACL", "LOG", "RESET")
        facts = [dict(zip(row[::2], row[1::2], strict=True)) if isinstance(row, list) else row for row in rows]
        plain = [{_text(key): _text(value) for key, value in row.items()} for row in facts]
        names = [f"{self.mesh}-{role}" for role in roles or ROLES]
        told = [f"{row['username']} {row['reason']} {row['object']}" for row in plain if row["username"] in names]
        return [line for line in told if not line.endswith(EXPECTED)]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: Pool) -> Server:
    """An empty server, of each kind in turn."""
    if program(request.param) is None:
        pytest.skip(f"there is no {request.param} server on this machine")
    return servers.server(request.param)


@pytest.fixture
def users(server: Server, mesh: str) -> Iterator[Users]:
    """The users of the page, in a mesh of this test."""
    admin = server.client
    for role, arguments in rules().items():
        admin.execute_command(*(argument.replace("shop", mesh) for argument in arguments))
        for command in LATER:
            with suppress(redis.ResponseError):  # an older server does not know it
                admin.execute_command("ACL", "SETUSER", f"{mesh}-{role}", f"+{command}")
    admin.execute_command("ACL", "LOG", "RESET")
    yield Users(server, mesh)
    admin.execute_command("ACL", "DELUSER", *(f"{mesh}-{role}" for role in ROLES))


# ----------------------------------------------------------------------------------------------- what they can


async def test_each_role_can_do_its_work(users: Users) -> None:
    service, starter, reader = map(users.place, ROLES)
    numbers = Flow.from_tasks(count, slow_square).resolve()
    async with service.service("numbers"), service.service("secretive"):
        async with starter.supervisor(tasks=[]) as supervisor:
            run = await supervisor.start_flow(numbers, {"limit": 20}, run_id="whole")
            assert sorted((await run.result())["square"]) == [n * n for n in range(20)]
            assert (await (await supervisor.start_flow(Flow.from_tasks(flaky).resolve(), {"number": 5})).result()) == {
                "same": [5]
            }
            text = "x" * 200_000
            big = await supervisor.start_flow(Flow.from_tasks(large).resolve(), {"text": text})
            assert (await big.result())["text2"] == [text * 2]
            opened = await supervisor.start_flow(numbers, open_inputs=True, deadline=30)
            await opened.inputs["limit"].write(3)
            await opened.inputs["limit"].complete()
            assert sorted((await opened.result())["square"]) == [0, 1, 4]
            slow = await supervisor.start_flow(Flow.from_tasks(stuck).resolve(), {"seconds": 60.0}, run_id="slow")
            await slow["began"].first()
            assert (await slow.cancel()).state == "cancelled"
            waiting = await supervisor.start_flow(Flow.from_tasks(Task("nobody", "a", "b")).resolve(), {"a": 1})
            assert (await waiting.status()).state == "waiting"
            await waiting.cancel()
            login = {"user": "u", "password": "canary-5", "token": "canary-6"}
            await (await supervisor.start_flow(Flow.from_tasks(bury).resolve(), {"login": login})).wait()
            (letter,) = await supervisor.dead.list()
            await supervisor.dead.retry(letter.id)
            await until(lambda: _has_letters(supervisor, 1))
            (letter,) = await supervisor.dead.list()
            assert await supervisor.dead.drop(letter.id) == 1
        async with reader.supervisor(tasks=[]) as supervisor:
            assert len(await list_runs(supervisor)) >= 6
            run = await supervisor.get_run("whole")
            assert (await run.status()).state == "done"
            assert sorted(await run["square"].collect()) == [n * n for n in range(20)]
            assert await supervisor.dead.list() == []
    assert users.refused() == []


async def _has_letters(supervisor: Supervisor, number: int) -> bool:
    return len(await supervisor.dead.list()) == number


# ----------------------------------------------------------------------- what is granted is what is called


def test_every_command_of_the_scripts_of_a_role_is_granted() -> None:
    ours = set(SCRIPTS)
    for role, scripts in (("service", ours), ("starter", ours - OF_TAKING), ("reader", OF_BEING_THERE)):
        needed = set().union(*(called(SCRIPTS[name].source) for name in scripts))
        assert needed - (OF_SERVING if role != "service" else set()) <= granted(role), role


def test_nothing_is_granted_that_nothing_calls() -> None:
    sources = "".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py")) + "".join(map(_source, SCRIPTS))
    for role in ROLES:
        for command in granted(role):
            words = command.upper().split("|")
            assert all(re.search(rf"[\"']{word}[\"']", sources) for word in words), command


def test_each_role_may_do_less_than_the_one_before() -> None:
    service, starter, reader = map(granted, ROLES)
    assert reader < starter < service


def _source(name: str) -> str:
    return SCRIPTS[name].source


def called(source: str) -> set[str]:
    """The commands that a script may call, as access lists name them."""
    code = "\n".join(line.partition("--")[0] for line in source.splitlines())
    found = {f"{one}|{two}" if one in WITH_SUBCOMMANDS else one for one, two in CALLED.findall(code)}
    return {command.lower() for command in found | set(COUNTED.findall(code))}


def granted(role: str) -> set[str]:
    words = " ".join(rules()[role]).replace("(", " ").replace(")", " ").split()
    return {word[1:] for word in words if word.startswith("+")}


# ------------------------------------------------------------------------------------------- what they cannot

ADMINISTRATION = [
    "FLUSHALL", "FLUSHDB", "CONFIG GET *", "CONFIG SET dir /tmp", "KEYS *", "SCAN 0", "RANDOMKEY", "DBSIZE", "SHUTDOWN",
    "DEBUG SLEEP 0", "MODULE LIST", "ACL LIST", "ACL SETUSER x on nopass ~* +@all", "SCRIPT FLUSH", "SCRIPT KILL",
    "FUNCTION LIST", "FCALL x 0", "SAVE", "BGSAVE", "BGREWRITEAOF", "REPLICAOF no one", "MONITOR", "SUBSCRIBE x",
    "PUBLISH x y", "CLIENT KILL ID 1", "CLIENT PAUSE 1", "SWAPDB 0 1", "SELECT 1", "LATENCY LATEST",
    "SLOWLOG GET", "FAILOVER", "CLUSTER RESET", "COMMAND DOCS",
]  # fmt: skip
ELSEWHERE = [
    "GET {%s}", "SET {%s} x", "HGETALL {%s}", "HSET {%s} a b", "XADD {%s} * a b", "XRANGE {%s} - +", "DEL {%s}",
    "ZADD {%s} 1 a", "XREAD STREAMS {%s} 0", "EXISTS {%s}", "RENAME {here} {%s}", "UNLINK {%s}",
]  # fmt: skip
REFUSED = r"(?i)ACL failure|permission|can't (access|run)|not allowed"
NOT_A_STARTER = [
    "CLIENT LIST",  # a service looks there whether one that went silent still lives
    "XREADGROUP GROUP g me STREAMS {here:work} >", "XACK {here:work} g 1-1", "XCLAIM {here:work} g me 0 1-1",
    "XGROUP CREATE {here:work} g 0", "SET {here:task} x", "HSET {here:mesh} protocol 9", "DEL {here:mesh}",
    "DUMP {here:run}", "MIGRATE h 1 k 0 1", "SORT {here:run}",
]  # fmt: skip
NOT_A_READER = [
    "SET {here:run} x", "HSET {here:run} state done", "DEL {here:run}", "UNLINK {here:run}", "HDEL {here:run} state",
    "EXPIRE {here:run} 1", "PEXPIRE {here:run} 1", "XADD {here:work} * a b", "XDEL {here:dead} 1-1",
    "ZADD {here:due} 1 a", "ZREM {here:due} a", "HDEL {here:later} a", "XADD {here:news} * a b",
    "ZADD {here:runs} 1 a", "HSET {here:marks} a b", "RENAME {here:run} {here:dead}",
    "SET {here:epoch} x", "EVAL return 1 0", "EVAL_RO return 1 0", "SCRIPT LOAD x", "WAIT 1 1",
]  # fmt: skip


def keys_of(mesh: str, other: str) -> dict[str, str]:
    """What stands in braces above."""
    shard = ("run:r1", "work:x@1", "dead", "due", "later", "news", "runs", "marks", "epoch")
    ours = {f"{{here:{name.partition(':')[0]}}}": f"{{{mesh}:0}}:{name}" for name in shard}
    whole = {"{here}": f"{{{mesh}:0}}:x", "{here:mesh}": f"{{{mesh}}}:mesh", "{here:task}": f"{{{mesh}}}:task:x@1"}
    return {**ours, **whole, "{%s}": other}


def words_of(line: str, keys: dict[str, str]) -> list[str]:
    return [keys.get(word, word) for word in (line.split(" ", 2) if line.startswith("EVAL") else line.split())]


def assert_refused(client: redis.Redis, words: list[str]) -> None:
    with pytest.raises((redis.exceptions.NoPermissionError, redis.ResponseError)) as caught:
        client.execute_command(*words)
    assert "no permissions" in str(caught.value).lower(), f"{words}: {caught.value}"


@pytest.mark.parametrize("role", ROLES)
def test_no_role_may_administer_or_look_into_another_mesh(users: Users, role: str) -> None:
    client = users.client(role)
    for line in ADMINISTRATION:
        assert_refused(client, line.split())
    others = ["{other:0}:run:r1", f"{{{users.mesh}x:0}}:run:r1", f"{{{users.mesh}x}}:mesh", f"{users.mesh}:0", "plain"]
    for other in others:
        for line in ELSEWHERE:
            assert_refused(client, words_of(line, keys_of(users.mesh, other)))
    client.close()


@pytest.mark.parametrize(("role", "lines"), [("starter", NOT_A_STARTER), ("reader", NOT_A_STARTER + NOT_A_READER)])
def test_a_role_may_not_do_what_is_anothers(users: Users, role: str, lines: list[str]) -> None:
    client = users.client(role)
    for line in lines:
        assert_refused(client, words_of(line, keys_of(users.mesh, "")))
    client.close()


@pytest.mark.parametrize("role", ["service", "starter"])
def test_a_script_may_not_reach_further_than_its_caller(users: Users, role: str) -> None:
    client = users.client(role)
    for body in ("redis.call('GET', '{other:0}:x')", "redis.call('FLUSHALL')", "redis.call('CONFIG', 'GET', '*')"):
        with pytest.raises(redis.ResponseError, match=REFUSED):
            client.eval(body, 0)
    with pytest.raises(redis.ResponseError, match=REFUSED):
        client.eval("return 1", 1, "{other:0}:x")
    if role == "starter":
        with pytest.raises(redis.ResponseError, match=REFUSED):
            client.eval("redis.call('XACK', KEYS[1], 'g', '1-1')", 1, f"{{{users.mesh}:0}}:work:x@1")
    client.close()


def test_a_reader_may_not_use_the_scripts_of_others(users: Users) -> None:
    client, prefix = users.client("reader"), f"{{{users.mesh}:0}}:"
    for script in SCRIPTS.values():
        users.server.client.script_load(script.source)
    for name in (
        "members",
        "services",
        "windows",
        "pressure",
        "orphans",
        "due",
        "marks",
        "dead",
        "later",
        "news",
        "runs",
    ):
        users.server.client.delete(prefix + name)
    for name in set(SCRIPTS) - OF_BEING_THERE - {"sweep"}:
        with pytest.raises(redis.ResponseError, match=r"(?i)no permissions"):
            client.evalsha(SCRIPTS[name].digest, 2, f"{prefix}run:r1", f"{prefix}news", "x")
    client.close()


async def test_what_a_role_may_not_is_told(users: Users) -> None:
    service, starter, reader = map(users.place, ROLES)
    flow = Flow.from_tasks(count).resolve()
    async with service.service("numbers"):
        async with starter.supervisor(tasks=[]) as supervisor:
            await (await supervisor.start_flow(flow, {"limit": 1}, run_id="whole")).wait()
            slow = await supervisor.start_flow(Flow.from_tasks(stuck).resolve(), {"seconds": 60.0}, run_id="slow")
            await slow["began"].first()
        async with reader.supervisor(tasks=[]) as supervisor:
            run = await supervisor.get_run("slow")
            for refused in (run.cancel, run.wait, lambda: supervisor.start_flow(flow, {"limit": 1}, run_id="mine")):
                with pytest.raises(StoreUnavailableError, match=r"(?i)no permissions.*rights"):
                    await refused()
            assert (await run.status()).state == "open"
            with pytest.raises(UnknownRunError):
                await supervisor.get_run("mine")
        async with starter.supervisor(tasks=[]) as supervisor:
            await (await supervisor.get_run("slow")).cancel()
        with pytest.raises(StoreUnavailableError, match=r"(?i)no permissions"):
            async with starter.supervisor(tasks=[implemented()]):
                raise AssertionError("a starter served a task")


def implemented() -> Task:
    ours = Task("ours", inputs=["a"], outputs=["b"])

    @ours
    async def _ours(a: int) -> int:
        return a

    return ours


async def test_a_reader_stays_while_others_leave_work_behind(users: Users) -> None:
    service, starter, reader = map(users.place, ROLES)
    async with service.service("numbers") as process, starter.supervisor(tasks=[]) as owner:
        run = await owner.start_flow(Flow.from_tasks(stuck).resolve(), {"seconds": 60.0}, run_id="slow", deadline=4.0)
        await run["began"].first()
        async with reader.supervisor(tasks=[], lease=0.5) as supervisor:
            seen = await supervisor.get_run("slow")
            process.kill()
            with pytest.raises(FlowTimeoutError):
                await seen["slept"].collect()
            assert (await seen.status()).state == "timeout"
