"""Arena: a server, a mesh and services for one scenario, and what is asked of them when the faults have stopped.

Liveness: within three leases and some seconds everything has come to its end, else all that can be told is told. Leak
audit: what is over has left nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis
from anyio import to_thread

from datamesh import FlowRun, RunState, Supervisor
from tests.faults.board import Budget, Figures
from tests.faults.fleet import Fleet
from tests.faults.ledger import Ledger
from tests.servers import Server

REST_SECONDS = 8.0
"""What is added to three leases until everything must have come to its end: backoff, and a busy machine."""
_MOST_SHOWN = 4000


class Stuck(AssertionError):
    """Something did not come to its end, though the faults have stopped."""


class Arena:
    """What a scenario plays in.

    Args:
        budget: Of the scenario.
        kind: Of the server: `valkey` or `redis`.
        lease: Of all services, in seconds.
        persist: Have the server keep every write.
        server: One that runs already, instead of one of its own.
    """

    def __init__(
        self, budget: Budget, *, kind: str = "valkey", lease: float = 1.0, persist: bool = False,
        server: Server | None = None,
    ) -> None:  # fmt: skip
        self.budget = budget
        self.lease = lease
        self.mesh = f"faults-{secrets.token_hex(3)}"
        self.server = server or Server(kind, persist=persist)
        self._owns_server = server is None
        self.folder = Path(tempfile.mkdtemp(prefix="dm-faults-"))
        self.ledger = Ledger(self.folder / "ledger")
        self.fleet = Fleet(self.url, mesh=self.mesh, lease=lease, test_ledger=str(self.ledger.path))

    async def __aenter__(self) -> Self:
        if self._owns_server:
            # In this thread, because a server dies with the thread that started it.
            self.server.__enter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and not isinstance(error, Stuck):
            error.add_note(await to_thread.run_sync(self.told))
        self.fleet.end()
        if self._owns_server:
            self.server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def client(self) -> redis.Redis:
        return self.server.client

    def asker(self, **settings: Any) -> Supervisor:
        """A supervisor of this process that serves nothing: it starts runs and reads them."""
        options: dict[str, Any] = {"lease": self.lease} | settings
        return Supervisor(url=self.url, mesh=self.mesh, tasks=[], **options)

    # --------------------------------------------------------------------------------------------------- at rest

    @property
    def patience(self) -> float:
        """Seconds within which everything has come to its end once the faults have stopped."""
        return 3 * self.lease + REST_SECONDS

    async def ended(self, run: FlowRun, *, seconds: float | None = None) -> RunState:
        """Wait until a run has ended.

        Raises:
            Stuck: It does not, within `seconds` or the patience of the arena; with all that can be told.
        """
        within = self.patience if seconds is None else seconds
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                return (await run.wait()).state
        raise Stuck(f"run {run.id} has not ended within {within:g} s: {await run.status()}\n{self.told()}")

    async def audit(self, figures: Figures, *, row: str = "", live: int | None = None) -> None:
        """Look for what is left of runs that are over; in a moment, because members tidy up as they go.

        Args:
            figures: Where the count goes.
            row: To which it belongs.
            live: Services there are; consumers beyond that, and a few, are left over.
        """
        left: list[str] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.patience):
                while left := await to_thread.run_sync(self.left_behind):
                    await asyncio.sleep(0.2)
        figures.add("left behind", len(left), most=0, row=row)
        if left:
            figures.add("such as", ", ".join(left[:3]), row=row)

    def left_behind(self) -> list[str]:
        """Entries, marks and timers of runs that are over, and keys of theirs that would stay."""
        found: list[str] = []
        states: dict[str, bool] = {}
        for key in sorted(bytes(key).decode() for key in self.client.scan_iter("*", count=1000)):
            prefix, _, rest = key.partition("}:")
            kind, _, more = rest.partition(":")
            if kind == "run":
                run = f"{prefix}}}:run:{more.partition(':')[0]}"
                states.setdefault(run, self.client.hget(run, "state") in (b"open", b"waiting"))
                if not states[run] and self.client.pttl(key) == -1:
                    found.append(f"{key} without an expiry")
            elif kind == "work":
                found += self._left_in(key)
            elif kind in ("marks", "later", "waiting") and self.client.hlen(key):
                found.append(f"{self.client.hlen(key)} in {key}")
            elif kind == "due" and self.client.zcard(key):
                found.append(f"{self.client.zcard(key)} in {key}")
        return [] if any(states.values()) else found

    def _left_in(self, work: str) -> list[str]:
        if self.client.type(work) != b"stream":
            return [f"{work} is no stream"]
        entries = self.client.xlen(work)
        held = sum(int(group["pending"]) for group in self.client.xinfo_groups(work))
        return [f"{entries} entries, {held} of them held, in {work}"] if entries or held else []

    # ----------------------------------------------------------------------------------------------------- telling

    def told(self) -> str:
        """All that may explain why something does not end: keys of the mesh, and where services stand."""
        parts = ["", "--- keys"]
        with contextlib.suppress(redis.RedisError):
            keys: list[Any] = sorted(self.client.scan_iter(f"{{{self.mesh}*"))
            parts += [self._shown(key.decode()) for key in keys]
        for service in self.fleet.alive:
            parts.append(f"--- service {service.pid}")
            parts.append(service.tell()[-_MOST_SHOWN:])
        return "\n".join(parts)

    def _shown(self, key: str) -> str:
        readers: dict[str, Callable[[], Any]] = {
            "zset": lambda: self.client.zrange(key, 0, 9, withscores=True),
            "hash": lambda: dict(list(self.client.hgetall(key).items())[:40]),
            "list": lambda: (self.client.llen(key), self.client.lrange(key, 0, 1)),
            "string": lambda: self.client.get(key),
            "stream": lambda: self._stream_shown(key),
        }
        kinds: Any = self.client.type(key)
        kind = kinds.decode()
        read = readers.get(kind)
        return f"{key} {kind if read is None else read()!r:.600}"

    def _stream_shown(self, key: str) -> object:
        entries = self.client.xlen(key), self.client.xrevrange(key, count=1)
        if ":work:" not in key:
            return entries
        consumers = [(group["name"], self.client.xinfo_consumers(key, group["name"])) for group in self._groups(key)]
        return *entries, consumers, self.client.xpending_range(key, "g", "-", "+", 5) if consumers else []

    def _groups(self, key: str) -> list[dict[str, Any]]:
        return list(self.client.xinfo_groups(key))


async def until(condition: Callable[[], bool], *, seconds: float = 10.0, pause: float = 0.02) -> float:
    """Look again and again, in a thread, until `condition()` holds, and return the seconds that it took.

    Raises:
        Stuck: It does not.
    """
    began = time.monotonic()
    while not await to_thread.run_sync(condition):
        if time.monotonic() - began > seconds:
            raise Stuck(f"not within {seconds:g} s: {condition}")
        await asyncio.sleep(pause)
    return time.monotonic() - began
