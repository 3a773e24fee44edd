"""Stages: what `wait=True` makes of a plan. A waiting task begins a new stage after the producers of its inputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from datamesh.model.plan import Plan
from datamesh.model.task import Task


class Stage(Set[Task]):
    """The tasks of one stage: a set of `Task`, that also tells whether it contains a name or a function made by `task`.

    Attributes:
        names: Of the nodes, in the order of the plan.
    """

    __slots__ = ("_tasks", "names")

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.names = tuple(tasks)
        self._tasks = frozenset(tasks.values())

    @classmethod
    def _from_iterable(cls, tasks: Iterable[Any]) -> Set[Any]:
        return frozenset(tasks)

    def __contains__(self, task: object) -> bool:
        return task in self.names if isinstance(task, str) else getattr(task, "task", task) in self._tasks

    def __iter__(self) -> Iterator[Task]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __hash__(self) -> int:
        return hash(self._tasks)

    def __repr__(self) -> str:
        return "{" + ", ".join(self.names) + "}"


@dataclass(frozen=True, slots=True, repr=False)
class ExecutionPlan:
    """How far the tasks of a flow can run in parallel.

    Tasks of one stage run in parallel, also with their producers in it. A stage is no barrier of its own: a task starts
    when what itself waits for is there.

    Attributes:
        plan: The resolved flow.
        stages: In order.
    """

    plan: Plan
    stages: tuple[Stage, ...]

    @classmethod
    def of(cls, plan: Plan, tasks: Mapping[str, Task]) -> ExecutionPlan:
        """Divide a plan, given the task of each of its nodes."""
        members: dict[int, dict[str, Task]] = {}
        for name, number in _numbers(plan).items():
            members.setdefault(number, {})[name] = tasks[name]
        return cls(plan, tuple(Stage(members[number]) for number in sorted(members)))

    @property
    def partitions(self) -> list[Set[Task]]:
        """The stages as a list of sets of tasks: `== [{first}, {second}]`."""
        return list(self.stages)

    def __repr__(self) -> str:
        return repr(self.partitions)


def _numbers(plan: Plan) -> dict[str, int]:
    """The stage of each node. Inputs of the flow stand before all stages, so waiting for them alone begins none."""
    number: dict[str, int] = {}
    for node in plan.nodes:
        before = [number[producer] for stream in node.reads for producer in plan.stream(stream).producers]
        number[node.name] = max((stage + node.wait for stage in before), default=0)
    return number
