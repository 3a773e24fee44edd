"""Trio: three servers that copy one of them, each behind a way of its own, and the sentinel that chooses who leads.

A server is known to everybody, also to the others, by its way. So a clogged way takes a server from the sentinel, from
its replicas and from all clients alike, as a partition does.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import redis

from tests.faults.server_faults.clogging import Way, ways
from tests.replicas import is_copied, role_of
from tests.sentinel import DOWN_AFTER_MS, SERVICE, SentinelServer
from tests.servers import START_SECONDS, Server, free_ports, wait_until

_BACK_SECONDS = 30.0


@dataclass(eq=False)
class Peer:
    """A server and the way to it."""

    server: Server
    way: Way


class Trio:
    """A primary, two replicas and a sentinel.

    Args:
        kind: `valkey` or `redis`.
    """

    def __init__(self, kind: str = "valkey") -> None:
        self._kind = kind
        self._stack = ExitStack()
        self.peers: list[Peer] = []
        self._sentinel: SentinelServer | None = None

    def __enter__(self) -> Self:
        with self._stack:
            self._start()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        *ports, sentinel_port = free_ports(4)
        for port in ports:
            (way,) = self._stack.enter_context(ways(f"redis://127.0.0.1:{port}", 1))
            options = ("--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1", "--repl-timeout", "5")
            # The port that it announces is its way's.
            announced = ("--replica-announce-ip", "127.0.0.1", "--replica-announce-port", str(way.port))
            server = self._stack.enter_context(Server(self._kind, port=port, options=(*options, *announced)))
            self.peers.append(Peer(server, way))
        first, *others = self.peers
        for peer in others:
            peer.server.client.execute_command("REPLICAOF", "127.0.0.1", first.way.port)
        wait_until(lambda: all(is_copied(peer.server) for peer in others), seconds=START_SECONDS)
        self._sentinel = SentinelServer(self._kind, sentinel_port, self._settings(first.way.port))
        self._stack.callback(self._sentinel.close)
        self._sentinel.start()
        wait_until(lambda: self._count_replicas() == len(others), seconds=START_SECONDS)

    @staticmethod
    def _settings(port: int) -> list[str]:
        return [
            f"sentinel monitor {SERVICE} 127.0.0.1 {port} 1",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]

    @property
    def url(self) -> str:
        """Address that names the sentinel."""
        assert self._sentinel is not None
        return f"redis+sentinel://127.0.0.1:{self._sentinel.port}/{SERVICE}"

    @property
    def leader(self) -> Peer:
        """The one that the sentinel names."""
        port = int(self._ask("GET-MASTER-ADDR-BY-NAME")[1])
        return next(peer for peer in self.peers if peer.way.port == port)

    def wait_for_another(self, than: Peer) -> None:
        """Wait until the sentinel names another leader, and that leads."""
        wait_until(lambda: self.leader is not than, seconds=_BACK_SECONDS, what="a failover")
        wait_until(lambda: role_of(self.leader.server) == "master", seconds=_BACK_SECONDS)

    def wait_until_whole(self) -> None:
        """Wait until both others copy the leader."""
        wait_until(self._is_whole, seconds=_BACK_SECONDS, what=self._states)

    def _is_whole(self) -> bool:
        leader = self.leader
        try:
            followers = [peer for peer in self.peers if peer is not leader and is_copied(peer.server)]
        except redis.ConnectionError:
            return False
        told = leader.server.client.info("replication")
        return len(followers) == int(told["connected_slaves"]) == len(self.peers) - 1

    def _states(self) -> str:
        return "\n".join(str(peer.server.client.info("replication")) for peer in self.peers)

    def _count_replicas(self) -> int:
        return len(self._ask("REPLICAS"))

    def _ask(self, what: str) -> Any:
        assert self._sentinel is not None
        return self._sentinel.client.execute_command("SENTINEL", what, SERVICE)
