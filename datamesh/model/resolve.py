"""Resolution: from tasks to the nodes of a plan, and the checks that a flow must pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from datamesh.errors import ConfigurationError, ContractMismatchError, CyclicFlowError, DuplicateIOError
from datamesh.model.contracts import Types, fits, type_text
from datamesh.model.graph import cycles
from datamesh.model.plan import Node, Plan
from datamesh.model.task import RenamedTask, Task

_MOST_CHARACTERS = 64

Placed = Mapping[str, RenamedTask]
"""Each node's name with its task, in the order in which the flow was given them."""


class _Declaration(NamedTuple):
    place: str
    type: Any


def place(tasks: Sequence[object]) -> dict[str, RenamedTask]:
    """Give each task of a flow a name of its own: its name, or `name-2` and so on where it comes again.

    Raises:
        ConfigurationError: There is no task, something is no task, or two different tasks share name and version.
    """
    wired = [_wired(task) for task in tasks]
    if not wired:
        raise ConfigurationError("a flow needs a task: `Flow.from_tasks(first, second)`")
    _refuse_homonyms(found.task for found in wired)
    reserved = {found.task.name for found in wired}
    placed: dict[str, RenamedTask] = {}
    for found in wired:
        name = found.task.name
        placed[name if name not in placed else _numbered(name, reserved | placed.keys())] = found
    return placed


def draft(flow: str, placed: Placed) -> Plan:
    """Return the plan of a flow that is not checked yet."""
    return Plan.of(
        flow,
        (Node(name, found.task.ref, found.task.wait, found.reads, found.writes) for name, found in placed.items()),
    )


def checked(plan: Plan, placed: Placed) -> Plan:
    """Return the plan with the types of its streams, once it is known that it can run.

    Raises:
        DuplicateIOError: Two tasks produce one stream.
        CyclicFlowError: Tasks feed each other in a circle.
        ContractMismatchError: Types of a stream do not fit.
    """
    for stream in plan.streams:
        if len(stream.producers) > 1:
            producers = [placed[name].task.name for name in stream.producers]
            raise DuplicateIOError(stream=stream.name, producers=producers)
    circles = cycles({name: _followers(plan, name) for name in placed})
    if circles:
        raise CyclicFlowError(cycles=circles)
    return replace(plan, types=_stream_types(plan, placed))


def _wired(task: object) -> RenamedTask:
    found = task if isinstance(task, Task | RenamedTask) else getattr(task, "task", None)
    if isinstance(found, Task):
        return found.rename()
    if isinstance(found, RenamedTask):
        return found
    if isinstance(task, Iterable):
        raise ConfigurationError(f"a flow takes tasks one by one: write `Flow.from_tasks(*tasks)`, not {task!r}")
    raise ConfigurationError(f"a flow is made of tasks, not of {task!r}: pass the `Task` that it implements")


def _refuse_homonyms(tasks: Iterable[Task]) -> None:
    by_ref: dict[str, Task] = {}
    for task in tasks:
        other = by_ref.setdefault(task.ref, task)
        if other != task:
            raise ConfigurationError(
                f"two different tasks are called {task.ref}: {other!r} and {task!r}: give one another name or version"
            )


def _numbered(name: str, taken: set[str]) -> str:
    number = 2
    while True:
        suffix = f"-{number}"
        candidate = name[: _MOST_CHARACTERS - len(suffix)] + suffix
        if candidate not in taken:
            return candidate
        number += 1


def _followers(plan: Plan, node: str) -> list[str]:
    return [reader for stream in plan.node(node).writes for reader in plan.stream(stream).consumers]


def _stream_types(plan: Plan, placed: Placed) -> Types:
    types = {}
    for stream in plan.streams:
        written = _declarations(stream.name, stream.producers, placed, "output")
        read = _declarations(stream.name, stream.consumers, placed, "input")
        if written:
            types[stream.name] = _written_type(stream.name, written[0], read)
        elif read:
            types[stream.name] = _narrowest_type(stream.name, read)
    return Types(types)


def _declarations(stream: str, nodes: Iterable[str], placed: Placed, side: str) -> list[_Declaration]:
    """What nodes declare for a stream at one of their sides; nothing of those that do not."""
    declared = []
    for node in nodes:
        found = placed[node]
        pairs, types = (
            (found.writes, found.task.output_types) if side == "output" else (found.reads, found.task.input_types)
        )
        declared += [
            _Declaration(f"{side} {name!r} of task {node!r}", types[name])
            for name, target in pairs
            if target == stream and name in types
        ]
    return declared


def _written_type(stream: str, written: _Declaration, read: Iterable[_Declaration]) -> Any:
    for consumer in read:
        if not fits(written.type, consumer.type):
            raise _mismatch(stream, found=written, expected=consumer)
    return written.type


def _narrowest_type(stream: str, read: Sequence[_Declaration]) -> Any:
    """The type that satisfies all readers of a stream whose writer declares none."""
    narrowest = read[0]
    for other in read[1:]:
        if narrowest.type is not Any and fits(narrowest.type, other.type):
            continue
        if not fits(other.type, narrowest.type):
            raise _mismatch(stream, found=narrowest, expected=other)
        narrowest = other
    return narrowest.type


def _mismatch(stream: str, *, found: _Declaration, expected: _Declaration) -> ContractMismatchError:
    texts = type_text(expected.type), type_text(found.type)
    if texts[0] == texts[1]:
        texts = repr(expected.type), repr(found.type)
    return ContractMismatchError(
        where=f"stream {stream!r}, {found.place} and {expected.place}",
        expected=texts[0],
        found=texts[1],
        fix="Declare types that fit, or rename the stream for one of the two tasks",
    )
