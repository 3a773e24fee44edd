"""Servers with successors: a primary that is copied to a replica, and a cluster whose masters have one each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import redis

from tests.servers import START_SECONDS, ClusterServer, Server, free_ports, wait_until

_FAST_COPY = ("--repl-diskless-sync-delay", "0", "--repl-timeout", "10")
_CLUSTER = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-announce-ip", "127.0.0.1")


def role_of(server: Server) -> str:
    """`master` or `slave`, in the server's own words."""
    return str(server.client.info("replication")["role"])


def is_copied(replica: Server) -> bool:
    """Whether a replica has all that its primary had when it joined, and follows it."""
    told = replica.client.info("replication")
    return bool(told["role"] == "slave" and told["master_link_status"] == "up")


class PrimaryAndReplica:
    """Two servers on ports of the loopback interface; the second copies the first.

    Args:
        kind: `valkey` or `redis`.
        options: For both of them, as on the command line.
    """

    def __init__(self, kind: str = "valkey", *, options: Sequence[str] = ()) -> None:
        self.primary, self.replica = (
            Server(kind, port=port, options=(*_FAST_COPY, *options)) for port in free_ports(2)
        )

    @property
    def url(self) -> str:
        """Address of the one that is the primary now."""
        return f"redis://127.0.0.1:{self.primary.port}"

    def start(self) -> Self:
        """Start both, and wait until the second is a copy."""
        self.primary.start()
        self.replica.start()
        self.follow()
        return self

    def follow(self) -> None:
        """Make the second a copy of the first."""
        self.replica.client.execute_command("REPLICAOF", "127.0.0.1", self.primary.port)
        wait_until(lambda: is_copied(self.replica), seconds=START_SECONDS, what=self.replica.log)

    def promote(self) -> None:
        """Make the replica the primary, by hand; the two change places."""
        self.replica.client.execute_command("REPLICAOF", "NO", "ONE")
        self.primary, self.replica = self.replica, self.primary

    def close(self) -> None:
        """End both."""
        for server in (self.primary, self.replica):
            server.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


class ReplicatedCluster(ClusterServer):
    """Masters that share the slots among them, each with a replica that takes over when it is gone."""

    def __init__(self, kind: str = "valkey", *, masters: int = 3) -> None:
        super().__init__(kind, nodes=masters)
        self.replicas = [Server(kind, port=port, options=(*_FAST_COPY, *_CLUSTER)) for port in free_ports(masters)]
        self._killed: list[Server] = []

    def start(self) -> Self:
        """Start the masters, then a replica for each."""
        super().start()
        for replica in self.replicas:
            replica.start()
            for master in self.nodes:
                replica.client.execute_command("CLUSTER", "MEET", "127.0.0.1", master.port)
        everybody = (*self.nodes, *self.replicas)
        wait_until(lambda: all(_knows(node, len(everybody)) for node in everybody), seconds=START_SECONDS)
        for master, replica in zip(self.nodes, self.replicas, strict=True):
            replica.client.execute_command("CLUSTER", "REPLICATE", _id_of(master))
        wait_until(lambda: all(map(is_copied, self.replicas)), seconds=START_SECONDS)
        wait_until(lambda: _count(self.nodes[0], "slave") == len(self.replicas), seconds=START_SECONDS)
        return self

    def kill(self, master: Server) -> Server:
        """End a master without any chance to tidy up; returns the one that will take its place."""
        at = self.nodes.index(master)
        master.stop(kill=True)
        # From here on those who look for masters find the successor, once it is one.
        self.nodes[at] = self.replicas[at]
        del self.replicas[at]
        self._killed.append(master)
        return self.nodes[at]

    def revive(self) -> None:
        """Start those that were killed again; each comes back as the replica of its successor."""
        for server in self._killed:
            server.start()
        wait_until(lambda: all(map(is_copied, self._killed)), seconds=2 * START_SECONDS)
        self.replicas += self._killed
        self._killed = []

    def is_whole(self) -> bool:
        """Whether every slot has a living master."""
        try:
            return all(role_of(node) == "master" and _is_ok(node) for node in self.nodes)
        except redis.ConnectionError:
            return False

    def close(self) -> None:
        """End all nodes."""
        super().close()
        for server in (*self.replicas, *self._killed):
            server.close()


def _knows(node: Server, count: int) -> bool:
    return f"cluster_known_nodes:{count}" in _told(node)


def _is_ok(node: Server) -> bool:
    return "cluster_state:ok" in _told(node)


def _told(node: Server) -> str:
    return str(node.client.execute_command("CLUSTER", "INFO"))


def _id_of(node: Server) -> str:
    return bytes(node.client.execute_command("CLUSTER", "MYID")).decode()


def _count(node: Server, role: str) -> int:
    told = node.client.execute_command("CLUSTER", "NODES")
    return str(told).count(role)
