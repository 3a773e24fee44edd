"""What services cost that have nothing to do, and what runs leave behind that are over."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

from datamesh import DatameshError, Supervisor
from tests.faults import flows
from tests.faults.arena import Arena, until
from tests.faults.board import Budget, Figures, scenario

RETENTION = 1.0
TOGETHER = 50


@scenario("R25")
async def leaks(budget: Budget) -> Figures:
    count, figures = budget.of(full=1000, short=150, tiny=30), Figures()
    async with Arena(budget) as arena:
        names = ("moody", "endless", "double")
        services = await arena.fleet.start(2, *names, test_sweep=0.5, retention=RETENTION)
        async with arena.asker(retention=RETENTION) as asker:
            await many_runs(asker, count)
            await gone(arena)
            before, connections = used_bytes(arena), connections_of(arena)
            await many_runs(asker, count)
            await gone(arena)
            after = used_bytes(arena)
            left = await asyncio.to_thread(keys_of_runs, arena)
            figures.add("runs", count)
            figures.add("stray keys", len(left), most=0)
            if left:
                figures.add("such as", ", ".join(left[:3]))
            figures.add("consumers beyond the living", consumers_of(arena) - len(services), most=0)
            figures.add("connections more than before", connections_of(arena) - connections, most=0)
            news = max((arena.client.xlen(key) for key in arena.client.scan_iter("*:news")), default=0)
            figures.add("news kept", news, most=1_200)
            figures.add("memory of all other keys, % more", 100 * (after - before) / before, most=5.0)
    return figures


async def many_runs(asker: Supervisor, count: int) -> None:
    """Runs that end well, fail, and are cancelled, many at once."""
    for first in range(0, count, TOGETHER):
        async with asyncio.TaskGroup() as group:
            for number in range(first, min(count, first + TOGETHER)):
                group.create_task(one_run(asker, number))


async def one_run(asker: Supervisor, number: int) -> None:
    """One of them, as its number says."""
    if number % 3 == 2:
        run = await asker.start_flow(flows.ticking, inputs=[flows.value("start", number)])
        await run["tick"].first()
        await run.cancel()
        return
    run = await asker.start_flow(flows.moods, inputs=[flows.value("number", number)])
    with contextlib.suppress(DatameshError):
        await run["answer"].collect()


async def gone(arena: Arena) -> None:
    """Wait until no key of any run is left, or until it takes too long."""
    with contextlib.suppress(AssertionError):
        await until(lambda: not keys_of_runs(arena), seconds=10.0, pause=0.1)


def keys_of_runs(arena: Arena) -> list[str]:
    """Keys that belong to runs, and entries that tell of some."""
    client, found = arena.client, []
    for key in sorted(bytes(key).decode() for key in client.scan_iter("*", count=1000)):
        name, kind = key.rpartition(":")[2], client.type(key)
        is_index = name in ("runs", "ended", "due") and client.zcard(key) > 0
        is_kept = name in ("marks", "later", "waiting") and client.hlen(key) > 0
        is_work = kind == b"stream" and ":work:" in key and client.xlen(key) > 0
        if ":run:" in key or is_index or is_kept or is_work:
            found.append(key)
    return found


def consumers_of(arena: Arena) -> int:
    """Consumers of the work stream that has most."""
    works = list(arena.client.scan_iter("*}:work:*"))
    return max((len(arena.client.xinfo_consumers(work, "g")) for work in works), default=0)


def connections_of(arena: Arena) -> int:
    return len(arena.client.client_list())


def used_bytes(arena: Arena) -> int:
    """Memory that all keys take together, but for the news, which are trimmed to about a thousand."""
    keys = [key for key in arena.client.scan_iter("*", count=1000) if not bytes(key).endswith(b":news")]
    return sum(int(arena.client.memory_usage(key, samples=0) or 0) for key in keys)


@scenario("R27")
async def idle(budget: Budget) -> Figures:
    count = budget.of(full=8, short=3, tiny=2)
    seconds = budget.of(full=10.0, short=3.0, tiny=2.0)
    figures = Figures()
    async with Arena(budget, lease=10.0) as arena:
        await arena.fleet.start(count, "double", "split", "refine")
        await asyncio.sleep(1.0)
        used = cpu_seconds(arena)
        commands = await asyncio.to_thread(sent_within, arena, seconds)
        used = cpu_seconds(arena) - used
        figures.add("services", count)
        figures.add("commands a second, service and shard", len(commands) / seconds / count, most=2.0)
        figures.add("processor of Redis, %", 100 * used / seconds, most=1.0)
        figures.add("they are", ", ".join(sorted(set(commands))))
    return figures


def sent_within(arena: Arena, seconds: float) -> list[str]:
    """Names of the commands that clients send, without those that scripts call."""
    text = b""
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(arena.server.socket_path))
        link.settimeout(0.2)
        link.sendall(b"MONITOR\r\n")
        until_then = time.monotonic() + seconds
        while time.monotonic() < until_then:
            with contextlib.suppress(TimeoutError):
                text += link.recv(1 << 16)
    lines = [line.decode(errors="replace") for line in text.splitlines()]
    return [line.split('"')[1] for line in lines if '"' in line and " lua]" not in line]


def cpu_seconds(arena: Arena) -> float:
    used = arena.client.info("cpu")
    return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])
