"""Task: the declaration of a step, by its name and the streams it reads and writes.

It holds no code. Any process may implement it, by using it as a decorator, and any process may start a flow of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, overload

from datamesh.errors import ConfigurationError
from datamesh.model.contracts import Types
from datamesh.model.names import check_name
from datamesh.model.registry import registry

F = TypeVar("F", bound=Callable[..., Any])

Names = str | Iterable[str] | Mapping[str, Any]
"""One name, several, or a mapping name -> type. A set has no order, so it is taken in that of the alphabet."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Task:
    """Declare a task; use it as a decorator, `@foobar` or `@foobar(**options)`, to implement it.

    Args:
        name: Of 1 to 64 of the characters `A-Z a-z 0-9 _ . -`. Services that mean the same task use the same name.
        inputs: Streams it reads: names, or a mapping name -> type.
        outputs: Streams it writes: names, or a mapping name -> type.
        wait: Start only when all inputs are complete, instead of in parallel with their producers.
        version: Counts up from 1 when the task's meaning changes: only implementations of the same version run it.
        description: For people.

    Attributes:
        input_types: Declared types by input; without those that were given as a name only.
        output_types: Declared types by output; without those that were given as a name only.

    Raises:
        ConfigurationError: A name, the version or another argument cannot be used.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    wait: bool
    version: int
    description: str
    input_types: Types
    output_types: Types

    def __init__(
        self,
        name: str,
        inputs: Names = (),
        outputs: Names = (),
        *,
        wait: bool = False,
        version: int = 1,
        description: str = "",
    ) -> None:
        check_name("task", name)
        input_names, input_types = _declared(name, "input", inputs)
        output_names, output_types = _declared(name, "output", outputs)
        _check(isinstance(wait, bool), name, f"`wait` is {wait!r}: use True or False")
        _check(type(version) is int and version >= 1, name, f"`version` is {version!r}: use a whole number from 1 on")
        _check(isinstance(description, str), name, f"`description` is {description!r}: use a text")
        fields = (name, input_names, output_names, wait, version, description, input_types, output_types)
        for field, value in zip(self.__dataclass_fields__, fields, strict=True):
            object.__setattr__(self, field, value)

    @property
    def ref(self) -> str:
        """Identifies the implementation that is wanted: `name@version`."""
        return f"{self.name}@{self.version}"

    @overload
    def __call__(self, function: F, /) -> F: ...

    @overload
    def __call__(self, /, **options: Any) -> Callable[[F], F]: ...

    def __call__(self, /, *functions: Any, **options: Any) -> Any:
        """Register an implementation, and return the function unchanged, so that a test calls it with plain values.

        Args:
            functions: The function, when the task is used as a decorator without options.
            options: Of the implementation: `retry`, `timeout`, `concurrency`, `executor`, `on_error` and so on.

        Raises:
            ConfigurationError: An option does not exist, or what is decorated cannot be called.
            DependencyError: A parameter of the function can be neither an input nor resolved.
            ContractMismatchError: The function's annotations contradict the declared types.

        Warns:
            DuplicateImplementationWarning: The task has an implementation in this process; the new one replaces it.
        """
        if not functions:
            return lambda function: _register(self, function, options)
        _check(len(functions) == 1, self.name, "is a declaration: use it as a decorator over one function")
        return _register(self, functions[0], options)

    def rename(
        self, *, inputs: Mapping[str, str] | None = None, outputs: Mapping[str, str] | None = None
    ) -> RenamedTask:
        """Place the task in a flow under other stream names: `embed.rename(inputs={"text": "title"})`.

        Args:
            inputs: The task's input -> the stream that it reads instead. Inputs left out keep their name.
            outputs: The task's output -> the stream that it writes instead. Outputs left out keep their name.

        Raises:
            ConfigurationError: The task has no such input or output, a name cannot be used, or two outputs of the task
                would become one stream.
        """
        placed = RenamedTask(self, _unchanged(self.inputs), _unchanged(self.outputs))
        return placed.rename(inputs=inputs, outputs=outputs)

    def __repr__(self) -> str:
        shown = [f"name={self.name!r}", f"inputs={list(self.inputs)!r}", f"outputs={list(self.outputs)!r}"]
        shown += ["wait=True"] if self.wait else []
        shown += [f"version={self.version}"] if self.version != 1 else []
        return f"Task({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class RenamedTask:
    """A task as it is placed in a flow: which stream each input reads and each output writes.

    Attributes:
        task: The declaration, unchanged; its implementation does not know of the renaming.
        reads: Pairs (input of the task, stream), in the order of the declaration.
        writes: Pairs (output of the task, stream), in the order of the declaration.
    """

    task: Task
    reads: tuple[tuple[str, str], ...]
    writes: tuple[tuple[str, str], ...]

    def rename(
        self, *, inputs: Mapping[str, str] | None = None, outputs: Mapping[str, str] | None = None
    ) -> RenamedTask:
        """Rename further streams, again by the names that the task itself declares.

        Raises:
            ConfigurationError: As for `Task.rename`.
        """
        reads = _renamed(self.task, "input", self.reads, inputs or {})
        writes = _renamed(self.task, "output", self.writes, outputs or {})
        _refuse_twice(self.task.name, "output stream", [stream for _, stream in writes])
        return RenamedTask(self.task, reads, writes)


def _register(task: Task, function: F, options: dict[str, Any]) -> F:
    registry.register(task, function, options, stacklevel=3)
    return function


def _check(is_right: bool, task: str, problem: str) -> None:
    if not is_right:
        raise ConfigurationError(f"task {task!r}: {problem}")


def _declared(task: str, kind: str, names: Names) -> tuple[tuple[str, ...], Types]:
    """Names and types out of the forms in which inputs and outputs may be declared."""
    if isinstance(names, str):
        names = (names,)
    if isinstance(names, (set, frozenset)):
        names = sorted(names, key=str)
    _check(isinstance(names, Iterable), task, f"{kind}s are {names!r}: use names, or a mapping name -> type")
    listed = tuple(check_name(f"stream of task {task!r}", name) for name in names)
    _refuse_twice(task, kind, listed)
    return listed, Types(names if isinstance(names, Mapping) else None)


def _refuse_twice(task: str, kind: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        _check(name not in seen, task, f"{kind} {name!r} is there twice: name each once")
        seen.add(name)


def _unchanged(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    return tuple((name, name) for name in names)


def _renamed(
    task: Task, kind: str, pairs: tuple[tuple[str, str], ...], changes: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    _check(isinstance(changes, Mapping), task.name, f"rename {kind}s by a mapping {kind} -> stream, not {changes!r}")
    known = [name for name, _ in pairs]
    for name, stream in changes.items():
        _check(name in known, task.name, f"there is no {kind} {name!r}: its {kind}s are {', '.join(known) or 'none'}")
        check_name("stream", stream)
    return tuple((name, changes.get(name, stream)) for name, stream in pairs)
