"""Flow: tasks wired by the names of their streams."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datamesh.errors import UnresolvedFlowError
from datamesh.model.declare import TaskFunction
from datamesh.model.names import check_name
from datamesh.model.plan import Plan
from datamesh.model.render import picture, to_dot, to_mermaid
from datamesh.model.resolve import checked, draft, place
from datamesh.model.stages import ExecutionPlan
from datamesh.model.task import RenamedTask, Task
from datamesh.model.topology import Topology

_MOST_CHARACTERS = 64

FlowTask = Task | RenamedTask | TaskFunction[..., Any]
"""What a flow is made of: a declaration, one under other stream names, or a function made by `task`."""


class Flow:
    """Tasks that feed each other: what one writes under a name, others read under it. Make one with `Flow.from_tasks`.

    A flow runs nothing and never changes, but for getting resolved. It may be started any number of times, by any
    number of threads and supervisors.
    """

    __slots__ = ("__weakref__", "_draft", "_placed", "_plan")

    def __init__(self, tasks: Sequence[FlowTask], *, name: str | None = None) -> None:
        self._placed = place(tasks)
        self._draft = draft(_flow_name(name, tuple(self._placed)), self._placed)
        self._plan: Plan | None = None

    @classmethod
    def from_tasks(cls, *tasks: FlowTask, name: str | None = None) -> Flow:
        """Wire tasks to a flow.

        Args:
            tasks: In any order. A task may come several times, each time under other stream names (`Task.rename`).
            name: Of the flow; the names of its tasks if not given.

        Raises:
            ConfigurationError: There is no task, something is no task, two different tasks share name and version, or
                the name cannot be used.
        """
        return cls(tasks, name=name)

    def resolve(self) -> Flow:
        """Check that the flow can run, and return it. A second call does nothing.

        Raises:
            DuplicateIOError: Two tasks produce one stream.
            CyclicFlowError: Tasks feed each other in a circle; carries the cycles, shortest first.
            ContractMismatchError: The types that tasks declare for a stream do not fit.
        """
        if self._plan is None:
            self._plan = checked(self._draft, self._placed)
        return self

    @property
    def name(self) -> str:
        """Shown wherever a run of the flow is."""
        return self._draft.flow

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The declarations, each once, in the order in which the flow was given them."""
        return tuple(dict.fromkeys(found.task for found in self._placed.values()))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Streams that tasks read and none writes: a start must bring values for them."""
        return self._draft.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        """Streams that a task writes and none reads."""
        return self._draft.outputs

    @property
    def streams(self) -> tuple[str, ...]:
        """All streams, the inputs first."""
        return tuple(stream.name for stream in self._draft.streams)

    @property
    def is_resolved(self) -> bool:
        """Whether `resolve` has accepted the flow."""
        return self._plan is not None

    @property
    def plan(self) -> Plan:
        """The resolved form, which is what runs are made of.

        Raises:
            UnresolvedFlowError: The flow is not resolved; so for all that follow.
        """
        if self._plan is None:
            raise UnresolvedFlowError(flow=self.name)
        return self._plan

    @property
    def execution_plan(self) -> ExecutionPlan:
        """The stages that `wait=True` makes: `flow.execution_plan.partitions`."""
        return ExecutionPlan.of(self.plan, {name: found.task for name, found in self._placed.items()})

    @property
    def topology(self) -> Topology:
        """The flow as a text: `print(flow.topology)`."""
        return Topology(self.plan)

    def to_mermaid(self) -> str:
        """Return the flow as a Mermaid flowchart, which GitHub and most wikis draw."""
        return to_mermaid(self.plan)

    def to_dot(self) -> str:
        """Return the flow as a graph in the DOT language of Graphviz."""
        return to_dot(self.plan)

    def visualize(self, path: str | os.PathLike[str]) -> Path:
        """Draw the flow into a file, by Graphviz.

        Args:
            path: Its suffix tells the format: `.svg`, `.png`, `.pdf` or `.jpg`. A file that exists is replaced.

        Returns:
            The path that was written.

        Raises:
            ConfigurationError: The suffix is none of these, or Graphviz or its Python package is not installed.
            OSError: The file cannot be written.
        """
        return picture(self.plan, Path(path))

    def __repr__(self) -> str:
        state = "" if self.is_resolved else ", not resolved"
        return f"<Flow {self.name!r} of {', '.join(self._placed)}{state}>"


def _flow_name(name: str | None, nodes: tuple[str, ...]) -> str:
    """Every process that wires the same tasks in the same order comes to the same name, and so to the same plan."""
    if name is not None:
        return check_name("flow", name)
    joined = "-".join(nodes)
    return joined if len(joined) <= _MOST_CHARACTERS else nodes[0]
