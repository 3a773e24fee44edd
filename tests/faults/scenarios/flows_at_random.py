"""Random flows with one or two slots in all and tiny marks of backpressure: none of them may stand still."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

from datamesh import Supervisor, Task
from datamesh.model.policies import Backpressure
from datamesh.model.registry import registry
from datamesh.model.task import RenamedTask
from tests.faults.arena import Arena
from tests.faults.board import Budget, Figures, scenario
from tests.mesh.random_flows import _PARAMETERS, _WHOLE, FORMS, MODES, MOST_VALUES, Case, Node, _each

TOGETHER = 20
MOST_NODES = 8
SECONDS = 30.0
"""Within which so many runs have to end that share one or two slots; each alone takes some milliseconds."""


@dataclass(frozen=True)
class TightNode(Node):
    """A node that few values may wait for."""

    high: int = 1

    def task(self, prefix: str) -> RenamedTask:
        inputs, outputs = _PARAMETERS[: len(self.reads)], [f"x{place}" for place in range(self.outputs)]
        declared = Task(name=f"{prefix}-{self.index}", inputs=list(inputs), outputs=outputs, wait=self.mode == "wait")
        implement = _each if self.mode == "each" else _WHOLE[len(self.reads)]
        pressure: Any = Backpressure(high=self.high)
        declared(backpressure=pressure)(implement(self)[self.form])
        return declared.rename(
            inputs=dict(zip(inputs, self.reads, strict=True)), outputs=dict(zip(outputs, self.writes, strict=True))
        )


def drawn(chance: random.Random, prefix: str) -> Case:
    """Draw a flow of bounded size."""
    names = ["in0", "in1"][: chance.randint(1, 2)]
    values = {name: [chance.randint(0, 999) for _ in range(chance.randint(1, 6))] for name in names}
    streams, nodes = list(names), list[Node]()
    for index in range(chance.randint(1, MOST_NODES)):
        node = _node(chance, index, streams)
        if nodes and Case((*nodes, node), values).total > MOST_VALUES:
            break
        nodes.append(node)
        streams += node.writes
    shares = tuple(chance.randint(1, 3) for _ in nodes)
    return Case(tuple(nodes), values, chance.random() < 0.5, 1, shares, prefix)


def _node(chance: random.Random, index: int, streams: list[str]) -> Node:
    mode = chance.choice(MODES)
    most = 1 if mode == "each" else min(len(_PARAMETERS), len(streams))
    reads = tuple(chance.sample(streams, chance.randint(1, most)))
    return TightNode(
        index, mode, chance.choice(FORMS), reads, outputs=chance.randint(1, 2), fan_out=chance.randint(0, 5),
        salt=chance.randint(0, 9), high=chance.choice((1, 2, 10)),
    )  # fmt: skip


@scenario("R24", seconds=240)
async def no_deadlocks(budget: Budget) -> Figures:
    wanted, figures = budget.of(full=1000, short=60, tiny=10), Figures()
    stuck, wrong, done = list[str](), list[str](), 0
    async with Arena(budget, lease=5.0) as arena:
        for number in range(0, wanted, TOGETHER):
            chance = budget.chance(f"flows {number}")
            cases = [drawn(chance, f"r{number + k}") for k in range(min(TOGETHER, wanted - number))]
            with registry.isolated():
                for case, outcome in await _played(arena, f"{arena.mesh}-{number}", cases, chance.choice((1, 2))):
                    done += 1
                    if outcome == "stuck":
                        stuck.append(f"{case.prefix}: {case!r}")
                    elif outcome:
                        wrong.append(f"{case.prefix}: {outcome}")
        figures.add("flows", done, least=wanted)
        figures.add("deadlocks", len(stuck), most=0)
        figures.add("wrong results", len(wrong), most=0)
        if stuck or wrong:
            figures.add("such as", (stuck + wrong)[0][:600])
    return figures


async def _played(arena: Arena, mesh: str, cases: list[Case], slots: int) -> list[tuple[Case, str]]:
    """Run cases side by side on two services that share their tasks."""
    built = [case.build() for case in cases]
    own: dict[int, list[Any]] = {1: [], 2: []}
    for case, (_, tasks) in zip(cases, built, strict=True):
        for bit, some in own.items():
            some += [task for task, share in zip(tasks, case.shares, strict=True) if share & bit]
    where: dict[str, Any] = {"url": arena.url, "mesh": mesh, "concurrency": slots, "lease": 5.0, "grace": 0.5}
    async with Supervisor(tasks=own[1], **where) as first, Supervisor(tasks=own[2], **where):
        runs = [
            await first.start_flow(flow, inputs=case.inputs, all_outputs=case.all_outputs)
            for case, (flow, _) in zip(cases, built, strict=True)
        ]
        results = [asyncio.create_task(run.result()) for run in runs]
        await asyncio.wait(results, timeout=SECONDS)
        return [(case, await _outcome(case, result)) for case, result in zip(cases, results, strict=True)]


async def _outcome(case: Case, result: asyncio.Task[dict[str, list[Any]]]) -> str:
    if not result.done():
        result.cancel()
        await asyncio.gather(result, return_exceptions=True)
        return "stuck"
    if error := result.exception():
        return f"{type(error).__name__}: {error}"
    found, expected = {name: Counter(values) for name, values in result.result().items()}, case.expected()
    return "" if found == {name: expected[name] for name in case.read_back} else "other values"
