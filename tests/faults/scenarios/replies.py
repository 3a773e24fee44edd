"""Replies that never arrive, of every script in turn, and calls that are cancelled before theirs do."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from datamesh import DatameshError, FlowCancelledError, FlowRun, Supervisor
from datamesh.errors import UnknownRunError
from datamesh.store.script import SCRIPTS
from tests.faults import flows
from tests.faults.arena import Arena
from tests.faults.board import Budget, Figures, Size, scenario
from tests.faults.checks import numbers
from tests.faults.fleet import Fleet
from tests.faults.proxy import AimedProxy

LEASE = 1.0
NAMES = ("double", "split", "refine", "gather", "flaky", "large", "weigh", "endless")
AT_ONCE = 4
RETENTION = 5.0
PATIENCE = 40.0
MOST_LOSSES = 8
"""Of one script in one turn; more in a row than a call has patience for would be an outage."""


@scenario("R8", seconds=200)
async def lost_replies(budget: Budget) -> Figures:
    turns, figures = budget.of(full=2, short=1, tiny=1), Figures()
    names = sorted(SCRIPTS)
    if budget.size is not Size.FULL:
        names = budget.chance("scripts").sample(names, budget.of(full=0, short=5, tiny=1))
    losses: Counter[str] = Counter()
    wrong: list[str] = []
    async with Arena(budget, lease=LEASE) as arena:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(name: str, number: int) -> None:
            async with gate, aimed(arena, name, budget.seed * 100 + number) as proxy:
                try:
                    problems = await everything(arena, proxy)
                except (DatameshError, TimeoutError, AssertionError) as error:
                    problems = [f"{type(error).__name__}: {error!s:.2000}"]
                wrong.extend(f"{name}, turn {number}: {problem}" for problem in problems)
                losses[name] += proxy.losses

        await asyncio.gather(*(one(name, number) for number in range(turns) for name in names))
        missed = [name for name in names if not losses[name]]
        figures.add("scripts", len(names) - len(missed))
        figures.add("replies lost", losses.total(), least=len(names))
        figures.add("fewest of one", min(count for count in losses.values() if count))
        figures.add("wrong or doubled", len(wrong), most=0)
        if wrong:
            figures.add("such as", "; ".join(wrong[:3]))
        if missed:
            figures.add("not met", ", ".join(missed))
        await arena.audit(figures)
    return figures


@contextlib.asynccontextmanager
async def aimed(arena: Arena, name: str, seed: int) -> AsyncIterator[AimedProxy]:
    """A proxy that loses replies of one script."""
    proxy = AimedProxy(arena.url, seed=seed)
    proxy.word, proxy.left = SCRIPTS[name].digest.encode(), MOST_LOSSES
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.close()


async def everything(arena: Arena, proxy: AimedProxy) -> list[str]:
    """Do what needs every script, through a proxy, in a mesh of its own; returns what was wrong."""
    mesh = f"{arena.mesh}-{secrets.token_hex(3)}"
    where: dict[str, Any] = {"mesh": mesh, "lease": LEASE, "retention": RETENTION}
    fleet = Fleet(proxy.url, test_sweep=0.5, **where)
    try:
        async with Supervisor(url=proxy.url, tasks=[], **where) as asker:
            waiting = await asker.start_flow(flows.doubling, inputs=numbers(20))  # its task is not announced yet
            (victim,) = await fleet.start(1, *NAMES)
            parts = [_three_stages(asker), _opened(asker), _retried(asker), _large(asker), _staged(asker)]
            running = asyncio.gather(*parts, _cancelled(asker), _doubled(waiting))
            await asyncio.sleep(0.2)
            proxy.cut()
            await asyncio.sleep(0.2)
            await asyncio.to_thread(victim.kill)
            heir = await fleet.add()
            proxy.cut()  # who holds entries asks for them then
            async with asyncio.timeout(PATIENCE):
                problems = [found for found in await running if found]
            heir.terminate()
            await asyncio.to_thread(heir.wait, PATIENCE)
        return problems
    finally:
        fleet.end()


async def _doubled(run: FlowRun) -> str:
    return _compare(await run["doubled"].collect(), range(0, 40, 2))


async def _three_stages(asker: Supervisor) -> str:
    run = await asker.start_flow(flows.three_stages, inputs=numbers(60))
    return _compare(await run["kept"].collect(), range(60 * flows.PIECES))


async def _opened(asker: Supervisor) -> str:
    run = await asker.start_flow(flows.doubling, open_inputs=True)
    for number in range(30):
        await run.inputs["number"].write(number)
    await run.inputs["number"].complete()
    await run.wait()
    return _compare(await run["doubled"].collect(), range(0, 60, 2))


async def _retried(asker: Supervisor) -> str:
    run = await asker.start_flow(flows.retrying, inputs=numbers(20))
    return _compare(await run["steady"].collect(), range(20))


async def _large(asker: Supervisor) -> str:
    run = await asker.start_flow(flows.larges, inputs=[flows.value("size", 100_000)])
    return _compare([len(body) async for body in run["body"]], [100_000])


async def _staged(asker: Supervisor) -> str:
    loads = [flows.value("load", bytes(50_000 + number)) for number in range(24)]
    run = await asker.start_flow(flows.weighing, inputs=loads)
    return _compare(await run["weight"].collect(), range(50_000, 50_024))


async def _cancelled(asker: Supervisor) -> str:
    run = await asker.start_flow(flows.ticking, inputs=[flows.value("start", 1)])
    await run["tick"].first()
    await run.cancel()
    try:
        await run["tick"].collect()
    except FlowCancelledError:
        return ""
    return "a cancelled run ended silently"


def _compare(found: Any, expected: Any) -> str:
    less, more = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    return f"{less.total()} lost, {more.total()} too many" if less or more else ""


# --------------------------------------------------------------------------------------------------- cancellations

RUNS = 100
CALLERS = 50


@scenario("R9")
async def cancellations(budget: Budget) -> Figures:
    wanted, figures = budget.of(full=10_000, short=1_500, tiny=200), Figures()
    chance = budget.chance("cancellations")
    async with Arena(budget, lease=LEASE) as arena:
        await arena.fleet.start(2, "echo", concurrency=50)
        async with arena.asker() as asker:
            runs = [await asker.start_flow(flows.echoing, inputs=[flows.value("word", n)]) for n in range(RUNS)]
            calls = Calls(asker, runs, chance)
            async with asyncio.TaskGroup() as group:
                for _ in range(CALLERS):
                    group.create_task(calls.repeat(wanted))
            began = time.monotonic()
            figures.add("cancelled", calls.cancelled, least=wanted)
            figures.add("answered", calls.answered)
            figures.add("answers to another call", calls.mismatched, most=0)
            figures.add("starts that were cancelled", len(calls.started))
            figures.add("of these wrong when asked again", await calls.wrong_starts(), most=0)
            await arena.audit(figures)
            figures.add("at rest after, s", time.monotonic() - began)
    return figures


class Calls:
    """Calls of the API whose answers tell which call they belong to."""

    def __init__(self, asker: Supervisor, runs: list[FlowRun], chance: random.Random) -> None:
        self._asker = asker
        self._runs = runs
        self._chance = chance
        self._kinds: list[Callable[[int], Awaitable[object]]] = [
            self._echo, self._collect, self._found, self._status, self._events, self._start
        ]  # fmt: skip
        self.cancelled = self.answered = self.mismatched = 0
        self.started: dict[str, int] = {}

    async def repeat(self, wanted: int) -> None:
        """Make calls, most of which are cancelled after a moment, until enough were."""
        while self.cancelled < wanted:
            number = self._chance.randrange(RUNS)
            task: asyncio.Future[object] = asyncio.ensure_future(self._chance.choice(self._kinds)(number))
            if self._chance.random() < 0.8:
                await asyncio.sleep(self._chance.random() * 0.004)
                self.cancelled += task.cancel()
            with contextlib.suppress(asyncio.CancelledError, UnknownRunError):
                self.mismatched += (await task) != number
                self.answered += 1

    async def _echo(self, number: int) -> object:
        shard = (await self._asker.session()).store.shards[0]
        return int(await shard.protocol.command("ECHO", number))

    async def _collect(self, number: int) -> object:
        (word,) = await self._runs[number]["echoed"].collect()
        return word

    async def _found(self, number: int) -> object:
        run = await self._asker.get_run(self._runs[number].id)
        return await run["echoed"].first()

    async def _status(self, number: int) -> object:
        status = await self._runs[number].status()
        return number if status.streams["word"].values == 1 else -1

    async def _events(self, number: int) -> object:
        status = await self._runs[number].wait()
        return number if status.tasks["echo"].done == 1 else -1

    async def _start(self, number: int) -> object:
        run_id = f"started-{len(self.started)}"
        self.started[run_id] = number
        run = await self._asker.start_flow(flows.echoing, inputs=[flows.value("word", number)], run_id=run_id)
        return await run["echoed"].first()

    async def wrong_starts(self) -> int:
        """Start again what was cancelled while it was started: one run, with its own value."""
        wrong = 0
        for run_id, number in self.started.items():
            run = await self._asker.start_flow(flows.echoing, inputs=[flows.value("word", number)], run_id=run_id)
            try:
                wrong += await run["echoed"].collect() != [number]
            except DatameshError:
                wrong += 1
        return wrong
