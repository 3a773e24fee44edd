"""Machine: the scripts against the model, in an order that hypothesis chooses.

    python -m tests.protocol.machine --steps 20000 --seed 1 --kind valkey

Each step is one call of a script or one thing that goes wrong, on a real server. After each the whole shard is read and
compared with the model. What fails is reduced to the shortest order of steps that hypothesis finds.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from datamesh.model.bound import BoundPlan
from datamesh.model.flow import Flow
from datamesh.model.modes import Mode
from datamesh.model.registry import registry
from datamesh.model.task import Task
from tests.protocol import acts_dead, acts_members, acts_runs
from tests.protocol.world import World
from tests.servers import KINDS, Server

Act = Callable[[World], bool]
STEPS_A_RUN = 120
"""Steps on one shard, before another begins."""
FLOWS_A_RUN = 2
_SEEDS = st.integers(0, 2**16 - 1)

ACTS: dict[Act, int] = {
    acts_members.take: 10, acts_members.settle: 14, acts_members.join: 3, acts_members.leave: 1,
    acts_members.expire: 2, acts_members.beat: 1, acts_members.read_late: 2, acts_members.end_watch: 2,
    acts_members.recover: 2, acts_members.reap: 4, acts_members.settle_as_zombie: 2,
    acts_members.settle_for_another: 1, acts_members.settle_with_old_step: 1, acts_members.lose_group: 1,
    acts_members.forget_scripts: 1,
    acts_members.replay: 4, acts_runs.submit: 4, acts_runs.submit_again: 1, acts_runs.wait: 1,
    acts_runs.start_waiting: 1, acts_runs.push: 4, acts_runs.end: 1, acts_runs.pass_time: 2, acts_runs.promote: 3,
    acts_dead.write_junk: 1, acts_dead.discard: 2, acts_dead.redrive: 2,
    acts_runs.forget: 2, acts_runs.sweep: 1, acts_runs.listen: 1, acts_runs.keep_blob: 1,
}  # fmt: skip
"""What may happen, and how often next to the others."""
_CHOICES = st.sampled_from([act for act, weight in ACTS.items() for _ in range(weight)])


@cache
def catalog() -> tuple[BoundPlan, ...]:
    """Flows of all shapes."""
    with registry.isolated():
        return (
            _bind("chain", Task("a1", "in", "mid"), Task("a2", "mid", "out")),
            _bind("diamond", Task("b1", "in", ["x", "y"]), Task("b2", "x", "p"), Task("b3", "y", "q"),
                  Task("b4", ["p", "q"], "out", wait=True)),
            _bind("two-readers", Task("c1", "in", "mid"), Task("c2", "mid", "left"), Task("c3", "mid", "right"),
                  tapped=("left",)),
            _bind("stream", Task("d1", "in", "mid"), Task("d2", "mid", "out"), d2=Mode.STREAM),
            _bind("late", Task("e1", ["in", "more"], "mid", wait=True), Task("e2", "mid", "out")),
            _bind("waits", Task("f1", "in", "x", wait=True), Task("f2", "x", "y", wait=True), Task("f3", "y", "out")),
            _bind("lone", Task("g1", "in", "out")),
        )  # fmt: skip


def _bind(name: str, *tasks: Task, tapped: tuple[str, ...] | None = None, **modes: Mode) -> BoundPlan:
    plan = Flow.from_tasks(*tasks, name=name).resolve().plan
    chosen = {task.ref: modes.get(task.name, Mode.STREAM if task.wait else Mode.EACH) for task in tasks}
    return BoundPlan.of(plan, chosen, tapped=[s.name for s in plan.streams] if tapped is None else tapped)


class Machine(RuleBasedStateMachine):
    """A world, and a rule for each act, as many times as it has weight."""

    server: Server
    counts: Counter[str]
    most_steps: int

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None

    @initialize(number=_SEEDS)
    def begin(self, number: int) -> None:
        """Two flows, and two members that serve them."""
        self.world = World.on(self.server, random.Random(number).sample(catalog(), FLOWS_A_RUN))
        for place in range(2):
            self.do(acts_members.join, number + place)

    @rule(act=_CHOICES, number=_SEEDS)
    def do(self, act: Act, number: int) -> None:
        """One step."""
        assert self.world is not None
        self.world.act(act.__name__, act, number)

    def teardown(self) -> None:
        if self.world is not None:
            self.counts.update(self.world.counts)
            self.world.close()


def machine_for(server: Server, counts: Counter[str]) -> type[Machine]:
    """The machine on a server; what it does is counted."""
    return type("ScriptMachine", (Machine,), {"server": server, "counts": counts})


def run(steps: int, seed_number: int, *, kind: str = "valkey", server: Server | None = None) -> dict[str, Any]:
    """Take so many steps.

    Args:
        steps: At least so many; what hypothesis does to shorten a failure comes on top.
        seed_number: Of everything that chance decides.
        kind: The server that is started, if none is given.

    Returns:
        `steps`, `violations` and the `failure` as a text ("" if there is none), what was done (`acts`) and `seconds`.
    """
    if server is None:
        with Server(kind) as own:
            return run(steps, seed_number, kind=kind, server=own)
    counts: Counter[str] = Counter()
    started, failure, round_number = time.monotonic(), "", 0
    while not failure and (left := steps - _taken(counts)) > 0:
        failure = _round(server, counts, left, seed_number * 1000 + round_number)
        round_number += 1
    return {
        "steps": _taken(counts), "violations": int(bool(failure)), "failure": failure, "acts": dict(counts),
        "seconds": time.monotonic() - started,
    }  # fmt: skip


def _taken(counts: Counter[str]) -> int:
    return sum(n for name, n in counts.items() if not name.startswith("settled "))


def _round(server: Server, counts: Counter[str], steps: int, seed_number: int) -> str:
    """Some hundreds of shards; returns how it failed, or an empty text."""
    chosen = settings(
        max_examples=max(1, min(200, steps // STEPS_A_RUN + 1)), stateful_step_count=STEPS_A_RUN, deadline=None,
        database=None, phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet, report_multiple_bugs=False,
    )  # fmt: skip
    machine = seed(seed_number)(machine_for(server, counts))
    try:
        run_state_machine_as_test(machine, settings=chosen)
    except Exception as error:
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", [])])
    return ""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, default="valkey")
    options = parser.parse_args()
    found = run(options.steps, options.seed, kind=options.kind)
    for name, count in sorted(found.pop("acts").items(), key=lambda item: -item[1]):
        print(f"{count:8} {name}")
    failure = found.pop("failure")
    print(*(f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}" for name, value in found.items()))
    if failure:
        print(failure)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
