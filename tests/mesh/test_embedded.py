"""The embedded server's life: shared by processes, gone with the last of them, whoever is killed in between.

Real servers and real kills. Every test has a directory of its own, by which its processes are known, and leaves none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from datamesh.errors import StoreUnavailableError
from datamesh.store.embedded import EmbeddedServer, launch
from datamesh.store.embedded import server as server_module
from datamesh.store.embedded.probe import ask

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc")

ROOT = Path(__file__).parents[2]

OWNER = """
import sys
from datamesh.store.embedded import EmbeddedServer
server = EmbeddedServer.acquire(sys.argv[1])
print(server.socket_path, flush=True)
sys.stdin.read()
"""

FORKING_OWNER = """
import os, sys, time
from datamesh.store.embedded import EmbeddedServer
server = EmbeddedServer.acquire(sys.argv[1])
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""

VISITOR = """
import random, sys, time
from datamesh.store.embedded import EmbeddedServer
from datamesh.store.embedded.probe import ask
seed = random.Random(sys.argv[2])
for turn in range(int(sys.argv[3])):
    with EmbeddedServer.acquire(sys.argv[1]) as server:
        for _ in range(seed.randrange(1, 20)):
            assert ask(server.socket_path, "PING") == b"+PONG\\r\\n", (turn, "was given a dying server")
    time.sleep(seed.random() * 0.06)
"""


def wait_until(condition: Callable[[], object], seconds: float = 2.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.005)


def processes_in(directory: Path) -> dict[int, str]:
    """Pids and command lines of the guardians and servers whose files are in `directory`."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"{directory}/" in line:
                found[int(entry.parent.name)] = line
    return found


def server_pid(path: Path) -> int:
    """Who listens on `path`."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        pid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        return pid


def status_of(pid: int) -> tuple[str, int]:
    """State and parent of a process; the state is "Z" for one that is gone: whether init has reaped it is not ours."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "Z", 0
    return state, int(parent)


def parent_of(pid: int) -> int:
    return status_of(pid)[1]


def is_gone(pid: int) -> bool:
    return status_of(pid)[0] == "Z"


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: status_of(pid)[0] == "T")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An own place for sockets and data; its path is short, as a socket needs. Afterwards no process may be left."""
    with tempfile.TemporaryDirectory(prefix="dm-", dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        monkeypatch.setenv("XDG_DATA_HOME", f"{name}/data")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        yield Path(name)
        try:
            wait_until(lambda: not processes_in(Path(name)))
        finally:
            for pid in processes_in(Path(name)):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def runtime(home: Path) -> Path:
    return home / "datamesh"


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python program with arguments; it is killed at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def _start(program: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", program, *arguments]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield _start
    for process in started:
        process.kill()
        process.communicate()


Start = Callable[..., subprocess.Popen[str]]


def told(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    line = process.stdout.readline().strip()
    assert line, "the process ended before it had a server"
    return line


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


# --------------------------------------------------------------------------------------------------- sharing


def test_two_processes_share_and_the_server_is_gone_with_the_last(start: Start, runtime: Path) -> None:
    first = start(OWNER, "m")
    path = Path(told(first))
    server = server_pid(path)
    assert ask(path, "SET", "key", "value") == b"+OK\r\n"
    second = start(OWNER, "m")
    assert Path(told(second)) == path
    first.communicate()
    assert ask(path, "GET", "key") == b"$5\r\nvalue\r\n"
    assert server_pid(path) == server
    second.communicate()
    wait_until(lambda: is_gone(server))
    wait_until(lambda: not any(runtime.iterdir()))


def test_starter_killed_while_another_uses_it(start: Start) -> None:
    starter = start(OWNER, "m")
    path = Path(told(starter))
    ask(path, "SET", "key", "value")
    with EmbeddedServer.acquire("m"):
        kill(starter)
        time.sleep(0.2)  # what must not happen needs time in which it could
        assert ask(path, "GET", "key") == b"$5\r\nvalue\r\n"


def test_all_killed(start: Start, runtime: Path) -> None:
    owners = [start(OWNER, "m") for _ in range(3)]
    path = Path({told(owner) for owner in owners}.pop())
    server = server_pid(path)
    for owner in owners:
        kill(owner)
    wait_until(lambda: is_gone(server))
    wait_until(lambda: not any(runtime.iterdir()))


def test_ten_at_once_get_one_server(start: Start, runtime: Path) -> None:
    owners = [start(OWNER, "m") for _ in range(10)]
    servers = {server_pid(Path(told(owner))) for owner in owners}
    assert len(servers) == 1
    assert len(processes_in(runtime)) == 2, "a guardian and a server"


def test_threads_of_one_process_get_one_server(home: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        servers = list(threads.map(lambda _: EmbeddedServer.acquire("m"), range(8)))
    pids = {server_pid(server.socket_path) for server in servers}
    for server in servers[1:]:
        server.release()
    assert {server_pid(servers[0].socket_path)} == pids
    servers[0].release()


def test_meshes_are_apart(home: Path) -> None:
    with EmbeddedServer.acquire("a") as a, EmbeddedServer.acquire("b") as b:
        ask(a.socket_path, "SET", "key", "value")
        assert ask(b.socket_path, "GET", "key") == b"$-1\r\n"
        pid = server_pid(a.socket_path)
        a.release()
        wait_until(lambda: is_gone(pid))
        assert ask(b.socket_path, "PING") == b"+PONG\r\n"


def test_nobody_is_given_a_dying_server(start: Start) -> None:
    """Servers end and start all the time here; whoever has acquired one has one that answers until it lets go."""
    visitors = [start(VISITOR, "m", str(seed), "8") for seed in range(4)]
    assert [visitor.wait(30) for visitor in visitors] == [0, 0, 0, 0]


def test_joining_while_the_guardian_is_about_to_end_the_server(home: Path, runtime: Path) -> None:
    server = EmbeddedServer.acquire("m")
    pid = server_pid(server.socket_path)
    with open(runtime / "m.lock") as lock, open(runtime / "m.owners") as owners:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.release()
        time.sleep(0.1)  # by now the guardian has seen the last owner go and waits for the lock held here
        fcntl.flock(owners, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(lock, fcntl.LOCK_UN)
        time.sleep(0.4)  # a server that is told to end takes a tenth of a second
        assert server_pid(server.socket_path) == pid
    wait_until(lambda: is_gone(pid))


def test_release_twice_and_as_context_manager(home: Path) -> None:
    with EmbeddedServer.acquire("m") as server:
        pid = server_pid(server.socket_path)
        assert repr(server).endswith("held)")
        server.release()
        with os.fdopen(os.open(os.devnull, os.O_RDONLY)):  # may get the number of the descriptor that was closed
            server.release()
    wait_until(lambda: is_gone(pid))
    assert repr(server).endswith("released)")


def test_forked_child_keeps_the_server_a_started_program_does_not(start: Start, home: Path) -> None:
    parent = start(FORKING_OWNER, "m")
    child = int(told(parent))
    server = server_pid(home / "datamesh" / "m.sock")
    kill(parent)
    time.sleep(0.1)
    assert not is_gone(server)
    os.kill(child, signal.SIGKILL)
    wait_until(lambda: is_gone(server))

    server_of_mine = EmbeddedServer.acquire("m")
    program = start("import sys; print('up', flush=True); sys.stdin.read()")
    told(program)
    pid = server_pid(server_of_mine.socket_path)
    server_of_mine.release()
    wait_until(lambda: is_gone(pid))


# ------------------------------------------------------------------------------------------ what it is like


def test_closed_to_others_and_out_of_the_terminals_reach(home: Path, runtime: Path) -> None:
    before = os.umask(0)
    try:
        with EmbeddedServer.acquire("m") as server:
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in runtime.iterdir()}
            pid = server_pid(server.socket_path)
            assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
            assert modes.pop("m.sock") == 0o700
            assert set(modes.values()) == {0o600}
            assert os.getsid(pid) not in (os.getsid(0), pid)
            assert parent_of(parent_of(pid)) != os.getpid(), "this process would have a child it did not ask for"
            assert b"\r\n0\r\n" in (ask(server.socket_path, "CONFIG", "GET", "port") or b"")
            assert b"\r\n$0\r\n\r\n" in (ask(server.socket_path, "CONFIG", "GET", "save") or b"")
    finally:
        os.umask(before)


def test_starting_leaves_the_process_as_it_was(home: Path) -> None:
    def descriptors() -> set[str]:
        return {link for link in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{link}")}

    def children() -> set[str]:
        # Other tests of this process may have servers of their own.
        return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    before, children_before = descriptors(), children()
    with EmbeddedServer.acquire("m"):
        assert len(descriptors()) == len(before) + 1
        assert children() <= children_before
    assert descriptors() == before
    assert children() <= children_before


def test_server_on_path_works_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_bundled_server", lambda: None)
    with contextlib.suppress(StoreUnavailableError), EmbeddedServer.acquire("m") as server:
        assert ask(server.socket_path, "PING") == b"+PONG\r\n"
        return
    pytest.skip("neither valkey-server nor redis-server is installed")


def test_start_is_quick(home: Path) -> None:
    began = time.monotonic()
    with EmbeddedServer.acquire("m"):
        started = time.monotonic()
        with EmbeddedServer.acquire("m"):
            joined = time.monotonic()
    # Some 60 ms and 1 ms by themselves; the limits are for machines that do other things too.
    assert started - began < 1.0
    assert joined - started < 0.1


def test_paths_and_urls_with_blanks(home: Path) -> None:
    redis = pytest.importorskip("redis")
    with EmbeddedServer.acquire("m", runtime_dir=home / "a b%20c") as server:
        client = redis.Redis.from_url(server.url)
        assert client.ping()
        client.close()


# ------------------------------------------------------------------------------------------------ persisting


def test_persisted_keys_come_back(home: Path) -> None:
    with EmbeddedServer.acquire("m", persist=True) as server:
        ask(server.socket_path, "SET", "key", "value")
        pid = server_pid(server.socket_path)
    wait_until(lambda: is_gone(pid))
    assert stat.S_IMODE((home / "data" / "datamesh" / "m").stat().st_mode) == 0o700
    with EmbeddedServer.acquire("m", persist=True) as server:
        assert ask(server.socket_path, "GET", "key") == b"$5\r\nvalue\r\n"
        with EmbeddedServer.acquire("m") as same:
            assert same.socket_path == server.socket_path


def test_persisted_keys_survive_a_kill_of_everything(start: Start, home: Path) -> None:
    with EmbeddedServer.acquire("m", persist=True) as server:
        ask(server.socket_path, "SET", "key", "value")
        pid = server_pid(server.socket_path)
        os.kill(parent_of(pid), signal.SIGKILL)
        wait_until(lambda: is_gone(pid))
    with EmbeddedServer.acquire("m", persist=True) as server:
        assert ask(server.socket_path, "GET", "key") == b"$5\r\nvalue\r\n"


def test_server_that_loads_is_waited_for_but_not_beyond_the_timeout(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([True, True, False])
    with monkeypatch.context() as patch:
        patch.setattr(server_module, "is_loading", lambda path: next(answers))
        EmbeddedServer.acquire("m").release()
    assert next(answers, None) is None
    monkeypatch.setattr(server_module, "is_loading", lambda path: True)
    with EmbeddedServer.acquire("m", timeout=0.3) as server:
        assert ask(server.socket_path, "PING") == b"+PONG\r\n"


def test_asking_a_running_server_to_persist_is_refused(home: Path) -> None:
    with EmbeddedServer.acquire("m"), pytest.raises(StoreUnavailableError, match="did not ask for its keys to be kept"):
        EmbeddedServer.acquire("m", persist=True)


def test_two_servers_never_share_a_data_directory(home: Path) -> None:
    with (
        EmbeddedServer.acquire("m", persist=True),
        pytest.raises(StoreUnavailableError, match="another server, with its socket in another directory"),
    ):
        EmbeddedServer.acquire("m", persist=True, runtime_dir=home / "elsewhere")


# ---------------------------------------------------------------------------------------------------- faults


def test_socket_left_by_a_crash(home: Path, runtime: Path) -> None:
    runtime.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(runtime / "m.sock"))
    for ending in ("lock", "owners", "guardian", "log"):
        (runtime / f"m.{ending}").touch(mode=0o600)
    with EmbeddedServer.acquire("m") as server:
        assert ask(server.socket_path, "PING") == b"+PONG\r\n"
    wait_until(lambda: not any(runtime.iterdir()))


def test_killed_guardian_takes_the_server_along_and_both_come_back(home: Path, runtime: Path) -> None:
    with EmbeddedServer.acquire("m") as server:
        pid = server_pid(server.socket_path)
        os.kill(parent_of(pid), signal.SIGKILL)
        wait_until(lambda: is_gone(pid))
        with EmbeddedServer.acquire("m") as again:
            assert server_pid(again.socket_path) != pid
        assert ask(server.socket_path, "PING") == b"+PONG\r\n", "the first hold counts for the second server"
    wait_until(lambda: not any(runtime.iterdir()))


def test_killed_server_takes_the_guardian_along_and_both_come_back(home: Path, runtime: Path) -> None:
    with EmbeddedServer.acquire("m") as server:
        pid = server_pid(server.socket_path)
        guardian = parent_of(pid)
        os.kill(pid, signal.SIGKILL)
        with EmbeddedServer.acquire("m") as again:  # at once: the guardian may not have noticed yet
            assert server_pid(again.socket_path) != pid
            wait_until(lambda: is_gone(guardian))
            assert ask(again.socket_path, "PING") == b"+PONG\r\n"
    wait_until(lambda: not any(runtime.iterdir()))


def test_server_without_a_guardian_is_replaced(home: Path, runtime: Path) -> None:
    """Where the kernel does not end it with its guardian, it would never end."""
    runtime.mkdir(mode=0o700)
    command = [launch.find_server(), "--port", "0", "--unixsocket", runtime / "m.sock", "--save", ""]
    orphan = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: ask(runtime / "m.sock", "PING"))
        with EmbeddedServer.acquire("m") as server:
            assert server_pid(server.socket_path) != orphan.pid
            assert orphan.wait(2) == 0
    finally:
        orphan.kill()
        orphan.wait()


@pytest.mark.parametrize("seed", range(4))
def test_starter_killed_at_any_moment(seed: int, start: Start, runtime: Path) -> None:
    starter = start(OWNER, "m")
    # That a new interpreter gets so far takes as long as the machine is busy, and says nothing of the server.
    wait_until(lambda: (runtime / "m.lock").exists(), seconds=10.0)
    time.sleep(random.Random(seed).random() * 0.07)
    kill(starter)
    with EmbeddedServer.acquire("m") as server:
        pid = server_pid(server.socket_path)
        wait_until(lambda: len(processes_in(runtime)) == 2)
        assert server_pid(server.socket_path) == pid
    wait_until(lambda: not any(runtime.iterdir()))


def test_stopped_server_is_neither_waited_for_without_end_nor_doubled(home: Path, runtime: Path) -> None:
    with EmbeddedServer.acquire("m") as server:
        pid = server_pid(server.socket_path)
        stop(pid)
        try:
            with pytest.raises(StoreUnavailableError, match=r"waited 0.2 s for the server to answer"):
                EmbeddedServer.acquire("m", timeout=0.2)
            assert len(processes_in(runtime)) == 2
        finally:
            os.kill(pid, signal.SIGCONT)
        with EmbeddedServer.acquire("m") as again:
            assert server_pid(again.socket_path) == pid


def test_stopped_server_is_killed_in_the_end(home: Path) -> None:
    with EmbeddedServer.acquire("m") as server:
        pid = server_pid(server.socket_path)
        stop(pid)
    wait_until(lambda: is_gone(pid))


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("#!/bin/sh\necho 'FATAL CONFIG FILE ERROR: bad thing' >&2; exit 1\n", "FATAL CONFIG FILE ERROR: bad thing"),
        ("this is not a program", "cannot be run"),
    ],
)
def test_server_that_does_not_start_is_quoted(
    program: str, said: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = home / "broken-server"
    broken.write_text(program)
    broken.chmod(0o755)
    monkeypatch.setattr(launch, "_bundled_server", lambda: broken)
    began = time.monotonic()
    with pytest.raises(StoreUnavailableError, match=said):
        EmbeddedServer.acquire("m")
    assert time.monotonic() - began < 2.0, "it is noticed, not waited for"
    monkeypatch.undo()
    with EmbeddedServer.acquire("m", runtime_dir=home / "datamesh") as server:
        assert ask(server.socket_path, "PING") == b"+PONG\r\n"


def test_server_that_never_answers_is_given_up_and_ended(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = home / "silent-server"
    silent.write_text("#!/bin/sh\necho starting; exec sleep 30\n")
    silent.chmod(0o755)
    monkeypatch.setattr(launch, "_bundled_server", lambda: silent)
    with pytest.raises(StoreUnavailableError, match=r"does not answer(.|\n)*starting"):
        EmbeddedServer.acquire("m", timeout=0.3)


def test_packed_program_is_refused_instead_of_started_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(StoreUnavailableError, match="needs a Python interpreter"):
        EmbeddedServer.acquire("m")


def test_unusable_directory_is_refused(home: Path, runtime: Path) -> None:
    runtime.mkdir(mode=0o755)
    with pytest.raises(StoreUnavailableError, match="not 0700"):
        EmbeddedServer.acquire("m")
    assert not any(runtime.iterdir())
