"""Every chaos point of a small run: a service is killed there, another one takes over, and the run comes out right."""

from __future__ import annotations

import asyncio
import importlib
import multiprocessing
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from anyio import CapacityLimiter, to_thread

from datamesh import Supervisor
from tests.faults import chaos, flows
from tests.faults.arena import Arena
from tests.faults.board import Budget, Figures, scenario
from tests.faults.checks import numbers
from tests.faults.ledger import check

LEASE = 0.4
COUNT = 3
RUN = "crossing-run"
SECONDS = 15.0
"""Within which a run has to end after its first service has died: a lease and a bit, on a machine that does more."""
TOGETHER = 8
_UNHEARD = 255
"""What multiprocessing says of a process whose end it did not hear of; another may look at what that one left."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run of its own takes place."""

    url: str
    mesh: str


# ------------------------------------------------------------------------------------------- in other processes


def doomed(place: Place, order: str) -> None:
    """Start a run, serve its tasks to the end and leave; killed on the way, as ordered."""
    chaos.install(order)
    asyncio.run(_serve(place))


def heir(place: Place, answer: Connection) -> None:
    """Start the same run again, serve its tasks, and answer with what came out."""
    answer.send(asyncio.run(_serve(place)))


async def _serve(place: Place) -> tuple[list[int], list[int], int]:
    importlib.import_module("tests.faults.tasks")  # here only: what runs the scenarios serves nothing
    tasks = [flows.scatter, flows.refine, flows.gather]
    supervisor = Supervisor(url=place.url, mesh=place.mesh, lease=LEASE, tasks=tasks)
    async with supervisor:
        run = await supervisor.start_flow(flows.crossing, inputs=numbers(COUNT), run_id=RUN)
        kept, sums = await run["kept"].collect(), await run["sum"].collect()
        await run.wait()
        return kept, sums, sum(task.open for task in (await run.status()).tasks.values())


# ---------------------------------------------------------------------------------------------------- the scenario


@scenario("R4", seconds=240)
async def every_point(budget: Budget) -> Figures:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.scenarios.points", "tests.faults.tasks"])
    figures = Figures()
    async with Arena(budget, lease=LEASE) as arena:
        points = await recorded(arena, context)
        chosen = points[:: budget.of(full=1, short=max(1, len(points) // 24), tiny=max(1, len(points) // 4))]
        limiter = CapacityLimiter(budget.of(full=TOGETHER, short=TOGETHER, tiny=2))
        places = [Place(arena.url, f"{arena.mesh}-{number}") for number in range(len(chosen))]

        async def one(place: Place, point: str) -> tuple[bool, str]:
            async with limiter:
                return await killed_at(context, place, point)

        outcomes = await asyncio.gather(*map(one, places, chosen))
        failures = [f"{point}: {text}" for point, (_, text) in zip(chosen, outcomes, strict=True) if text]
        figures.add("points", len(points), least=20)
        figures.add("tried", len(chosen))
        figures.add("killed there", sum(reached for reached, _ in outcomes), least=len(chosen) // 2)
        figures.add("failures", len(failures), most=0)
        if failures:
            figures.add("such as", "; ".join(failures[:3]))
        await arena.audit(figures)
    return figures


async def recorded(arena: Arena, context: ForkServerContext) -> list[str]:
    """Run once without a fault and return the points that it has."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points"
        process = context.Process(target=doomed, args=(Place(arena.url, arena.mesh), f"record:{path}"))
        await _ended(process)
        assert process.exitcode == 0, f"the run without a fault ended with {process.exitcode}"
        return path.read_text().splitlines()


async def killed_at(context: ForkServerContext, place: Place, point: str) -> tuple[bool, str]:
    """Kill a service at a point and let another take over; tells whether it got there, and what went wrong."""
    first = context.Process(target=doomed, args=(place, f"kill:{point}"))
    await _ended(first)
    reached = first.exitcode == -9
    for _ in range(2):
        ours, theirs = context.Pipe()
        second = context.Process(target=heir, args=(place, theirs))
        await _ended(second)
        if second.exitcode == 0 and ours.poll():
            return reached, _wrong(*ours.recv())
        if second.exitcode != _UNHEARD:
            break
    return reached, f"the heir ended with {second.exitcode}"


async def _ended(process: ForkServerProcess) -> None:
    """Run a process, for as long as it may take."""
    process.start()
    await to_thread.run_sync(process.join, SECONDS)
    if process.exitcode is None:
        process.terminate()
        await to_thread.run_sync(process.join, 5)


def _wrong(kept: Sequence[int], sums: Sequence[int], unfinished: int) -> str:
    count = COUNT * flows.PARTS
    verdict = check(range(count), kept, kept, unfinished=unfinished)
    if verdict.wrong:
        return str(verdict)
    return "" if list(sums) == [count * (count - 1) // 2] else f"sums {sums}"
