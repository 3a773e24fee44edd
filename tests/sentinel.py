"""A primary with a replica, and the sentinels that watch them: what a failover needs, gone with the `with` block."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import START_SECONDS, Server, _die_with_parent, free_ports, program, wait_until

SERVICE = "main"
UNREPLICATED = 32
"""Most values that a reader may have got at the moment of a failover and that the replica had not."""
DOWN_AFTER_MS = 1000


class SentinelServer:
    """One sentinel in a process of its own.

    Args:
        kind: `valkey` or `redis`.
        port: Of the loopback interface.
        settings: Lines of its configuration.
    """

    def __init__(self, kind: str, port: int, settings: Sequence[str]) -> None:
        self.port = port
        self._directory = Path(tempfile.mkdtemp(prefix="dm-", dir="/tmp"))
        configuration = self._directory / "sentinel.conf"
        lines = [f"port {port}", "bind 127.0.0.1", f"dir {self._directory}", "logfile log", *settings]
        configuration.write_text("\n".join(lines) + "\n")
        self._command = [str(program(kind)), str(configuration), "--sentinel"]
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(port=port, socket_timeout=5, retry=Retry(NoBackoff(), 0))

    def start(self) -> None:
        """Start it and wait until it answers."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, preexec_fn=_die_with_parent
        )
        wait_until(self._answers, seconds=START_SECONDS, what="the sentinel to answer")

    def _answers(self) -> bool:
        try:
            return bool(self.client.execute_command("SENTINEL", "MYID"))
        except redis.AuthenticationError:
            return True
        except (redis.ConnectionError, redis.TimeoutError):
            return False

    @property
    def is_running(self) -> bool:
        """Whether its process is there."""
        return self._process is not None

    def kill(self) -> None:
        """End it without any chance to tidy up."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait(START_SECONDS)

    def close(self) -> None:
        """End it and remove what it kept."""
        self.kill()
        self.client.close()
        shutil.rmtree(self._directory, ignore_errors=True)


class Watched:
    """A primary, a replica and their sentinels.

    Args:
        kind: `valkey` or `redis`.
        sentinels: How many; more than half of them have to agree on a failover.
        password: Of the servers; empty for none.
        sentinel_password: Of the sentinels; empty for none.
    """

    def __init__(
        self, kind: str = "valkey", *, sentinels: int = 3, password: str = "", sentinel_password: str = ""
    ) -> None:
        ports = free_ports(2 + sentinels)
        options = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1")
        secret = ("--requirepass", password, "--masterauth", password) if password else ()
        self.primary = Server(kind, port=ports[0], options=(*options, *secret))
        self.replica = Server(kind, port=ports[1], options=(*options, *secret, "--replicaof", f"127.0.0.1 {ports[0]}"))
        settings = [
            f"sentinel monitor {SERVICE} 127.0.0.1 {ports[0]} {sentinels // 2 + 1}",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]
        settings += [f"sentinel auth-pass {SERVICE} {password}"] if password else []
        settings += [f"requirepass {sentinel_password}"] if sentinel_password else []
        self.sentinels = [SentinelServer(kind, port, settings) for port in ports[2:]]
        self._password = password
        self._sentinel_password = sentinel_password

    @property
    def url(self) -> str:
        """Address that names all but the last sentinel."""
        known = self.sentinels[:-1] or self.sentinels
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in known)
        secret = f":{self._password}@" if self._password else ""
        query = f"?sentinel_password={self._sentinel_password}" if self._sentinel_password else ""
        return f"redis+sentinel://{secret}{hosts}/{SERVICE}{query}"

    def login(self) -> None:
        """Let the clients of the two servers in."""
        if self._password:
            for server in (self.primary, self.replica):
                server.client.connection_pool.connection_kwargs["password"] = self._password

    def start(self) -> Self:
        """Start all of them and wait until the replica follows and the sentinels know of it and of each other."""
        self.login()
        self.primary.start()
        self.replica.start()
        wait_until(lambda: self.has(self.replica, "master_link_status", "up"), seconds=START_SECONDS)
        for sentinel in self.sentinels:
            if self._sentinel_password:
                sentinel.client.connection_pool.connection_kwargs["password"] = self._sentinel_password
            sentinel.start()
        wait_until(lambda: all(map(self._knows_all, self.sentinels)), seconds=START_SECONDS, what="sentinels to meet")
        return self

    def fail_over(self) -> None:
        """Have a sentinel promote the replica though nothing is wrong; it may have to see it in good health first."""
        wait_until(self._is_failed_over, seconds=START_SECONDS, what="a sentinel that promotes the replica")

    def _is_failed_over(self) -> bool:
        try:
            return bool(self.sentinels[0].client.execute_command("SENTINEL", "FAILOVER", SERVICE))
        except redis.ResponseError:
            return False

    def _knows_all(self, sentinel: SentinelServer) -> bool:
        told = sentinel.client.execute_command("SENTINEL", "REPLICAS", SERVICE)
        others = sentinel.client.execute_command("SENTINEL", "SENTINELS", SERVICE)
        return len(told) == 1 and len(others) == len(self.sentinels) - 1

    def has(self, server: Server, field: str, value: str) -> bool:
        """Whether a server says this of its part in the replication; sentinels close connections when that changes."""
        try:
            return bool(server.client.info("replication")[field] == value)
        except redis.ConnectionError:
            return False

    def wait_for_promotion(self) -> None:
        """Wait until the replica is the primary, and the sentinels say so."""
        wait_until(lambda: self.has(self.replica, "role", "master"), seconds=START_SECONDS, what="a promotion")
        running = [sentinel for sentinel in self.sentinels if sentinel.is_running]
        wait_until(lambda: all(map(self._names_replica, running)), seconds=START_SECONDS, what="sentinels to agree")

    def _names_replica(self, sentinel: SentinelServer) -> bool:
        named = sentinel.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        return bool(int(named[1]) == self.replica.port)

    def close(self) -> None:
        """End all of them."""
        for sentinel in self.sentinels:
            sentinel.close()
        self.primary.close()
        self.replica.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


def assert_none_lost(values: Sequence[int], expected: Sequence[int], *, at: int) -> None:
    """Check what a reader got of whose stream the primary went when `at` values were there.

    What it got before the replica had it is not known there. It is made once more, and then read twice.
    """
    assert set(values) == set(expected), f"lost, such as {sorted(set(expected) - set(values))[:10]}"
    twice = [value for value, count in Counter(values).items() if count > 1]
    assert all(values.index(value) < at + UNREPLICATED for value in twice), f"doubled later: {twice}"
