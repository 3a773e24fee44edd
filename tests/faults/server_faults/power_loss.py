"""R11: the append-only file is cut where chance has it, as by a power loss, and the server is started twice from it.

A simulated mesh writes the file with the real scripts. After each cut the shard must make sense, what was on disk must
be there, members must be able to finish all runs, and after a second kill nothing of that may be missing. Where the cut
is inside a MULTI, some servers lose with the next restart all that is written after it. BGREWRITEAOF after the first
start prevents that, so it is measured with and without.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import anyio
import anyio.to_thread
import msgpack

from tests.faults.board import Budget, Figures, scenario
from tests.faults.server_faults.consistency import violations
from tests.faults.server_faults.cuts import Recording, rewrite, size_of
from tests.faults.server_faults.findings import Findings
from tests.faults.server_faults.live_cuts import live_cuts
from tests.faults.server_faults.survivor import finish, outcome
from tests.protocol.rig import Rig
from tests.protocol.simulation import World
from tests.servers import KINDS, Server

_MESH = "power"
_STEPS = 250
_AT_ONCE = 3


@dataclass
class Course:
    """What a simulated mesh did while its server wrote a file."""

    world: World
    done: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    """After each step: bytes on disk, and by run and task the values done. All of it was acknowledged."""

    def least(self, cut: int) -> Mapping[str, int]:
        """What has to be there of a file of this size."""
        return next((done for size, done in reversed(self.done) if size <= cut), {})


@scenario("R11", seconds=600.0)
async def power_loss(budget: Budget) -> Figures:
    """Cut files of both kinds of servers, most of them with the rewrite."""
    count, each = budget.of(full=960, short=48, tiny=6), budget.of(full=24, short=12, tiny=3)
    safe, live = Findings(), Findings()
    unsafe = {kind: Findings() for kind in KINDS}
    courses = [(turn, safe, True) for turn in range(-(-count // each))]
    courses += [(turn, unsafe[KINDS[turn % 2]], False) for turn in range(max(2, len(courses) // 5))]
    # Most of the time goes into waiting for servers to start.
    limiter = anyio.CapacityLimiter(_AT_ONCE)
    async with anyio.create_task_group() as group:
        for turn, findings, is_rewritten in courses:
            seed = budget.seed * 1000 + turn
            course = partial(_course, KINDS[turn % 2], seed, each, findings, is_rewritten=is_rewritten)
            group.start_soon(partial(anyio.to_thread.run_sync, partial(anyio.run, course), limiter=limiter))
    await live_cuts(budget, live)
    return _figures(safe, live, unsafe, least=count)


def _figures(safe: Findings, live: Findings, unsafe: Mapping[str, Findings], *, least: int) -> Figures:
    figures = Figures()
    figures.add("cuts", safe.cuts + live.cuts, least=least)
    figures.add("of them under services", live.cuts)
    for fault in ("contradictions", "lost", "unfinished"):
        figures.add(fault, safe.faults[fault] + live.faults[fault], most=0)
    for kind, findings in unsafe.items():
        broken = ", ".join(f"{n} {fault}" for fault, n in sorted(findings.faults.items())) or "0 faults"
        figures.add(f"without the rewrite, {kind}", f"{findings.cuts} cuts: {broken}")
    if safe.examples or live.examples:
        figures.add("such as", "; ".join(safe.examples + live.examples))
    return figures


async def _course(kind: str, seed: int, count: int, findings: Findings, *, is_rewritten: bool) -> None:
    """Record one course and cut its file `count` times."""
    with Server(kind, persist=True) as server:
        course = await _recorded(server, seed)
        chance = random.Random(f"cuts of {seed}")
        with Recording(server) as recording:
            for number in range(count):
                inside = number % 2 == 0
                cut = recording.draw(chance, inside=inside)
                recording.start(server, cut=cut)
                where = f"{kind}, course {seed}, cut at {cut} {'inside' if inside else 'at an end'}"
                await _cut(server, course, cut, findings, where, is_rewritten=is_rewritten)


async def _recorded(server: Server, seed: int) -> Course:
    rig = Rig.on(server.client, server.url, _MESH)
    course = Course(World(rig, seed))
    try:
        await course.world.start()
        for _ in range(_STEPS):
            course.done.append((size_of(server), _done(course.world)))
            if course.world.is_over:
                break
            await course.world.step()
    finally:
        await rig.close()
    return course


def _done(world: World) -> dict[str, int]:
    """Values done, by run and task; a run that is there counts too."""
    found: dict[str, int] = {}
    for run_id in world.inputs:
        run = world.rig.run(run_id)
        found[run_id] = int(bool(run))
        found |= {f"{run_id} {name}": int(n) for name, n in run.items() if name.startswith(("d:", "v:"))}
    return found


async def _cut(server: Server, course: Course, cut: int, findings: Findings, where: str, *, is_rewritten: bool) -> None:
    """One cut, after the first start from it."""
    findings.cuts += 1
    former, rig = course.world.rig, Rig.on(server.client, server.url, _MESH)
    rig.bounds, rig.works, course.world.rig = former.bounds, former.works, rig
    try:
        findings.add("contradictions", violations(server.client, rig.keys, _left), where)
        found = _done(course.world)
        findings.add(
            "lost", [f"{k}: {found.get(k)} of {n}" for k, n in course.least(cut).items() if found.get(k, 0) < n], where
        )
        if is_rewritten:
            rewrite(server)
        findings.add("unfinished", await finish(rig, course.world), where)
    finally:
        await rig.close()
    before = outcome(rig, course.world)
    server.stop(kill=True)
    server.start()
    rig.client = server.client
    after = outcome(rig, course.world)
    findings.add(
        "lost",
        [f"{k} is {after.get(k)!r}, was {v!r}" for k, v in before.items() if after.get(k) != v],
        f"{where}, second start",
    )
    findings.add("contradictions", violations(server.client, rig.keys, _left), f"{where}, second start")


def _left(mark: bytes) -> list[int]:
    return list(msgpack.unpackb(mark))
