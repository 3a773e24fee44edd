"""The short form of a task: a function that is its own declaration."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Generic, ParamSpec, TypeVar, overload

from datamesh.errors import ConfigurationError
from datamesh.model.annotations import emitted_type, evaluated, inputs_of
from datamesh.model.contracts import UNTYPED, Types
from datamesh.model.registry import registry
from datamesh.model.task import Names, RenamedTask, Task

P = ParamSpec("P")
R = TypeVar("R")


class TaskFunction(Generic[P, R]):
    """A function and the task it declares: call it with plain values, or put it in a flow.

    Attributes:
        task: The declaration that `@task` derived.
        function: As it was written; this is what is registered.
    """

    __name__: str
    task: Task
    function: Callable[P, R]

    def __init__(self, task: Task, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self.task = task
        self.function = function

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    @property
    def name(self) -> str:
        """See `Task`, as for all that follow."""
        return self.task.name

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.task.inputs

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.task.outputs

    @property
    def input_types(self) -> Types:
        return self.task.input_types

    @property
    def output_types(self) -> Types:
        return self.task.output_types

    @property
    def wait(self) -> bool:
        return self.task.wait

    @property
    def version(self) -> int:
        return self.task.version

    @property
    def description(self) -> str:
        return self.task.description

    @property
    def ref(self) -> str:
        return self.task.ref

    def rename(
        self, *, inputs: Mapping[str, str] | None = None, outputs: Mapping[str, str] | None = None
    ) -> RenamedTask:
        """See `Task.rename`."""
        return self.task.rename(inputs=inputs, outputs=outputs)

    def __repr__(self) -> str:
        return f"<function of {self.task!r}>"


@overload
def task(function: Callable[P, R], /) -> TaskFunction[P, R]: ...


@overload
def task(
    *,
    name: str | None = None,
    inputs: Names | None = None,
    outputs: Names = (),
    wait: bool = False,
    version: int = 1,
    description: str | None = None,
    **options: Any,
) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...


def task(
    *functions: Callable[..., Any],
    name: str | None = None,
    inputs: Names | None = None,
    outputs: Names = (),
    wait: bool = False,
    version: int = 1,
    description: str | None = None,
    **options: Any,
) -> Any:
    """Declare a task and implement it in one step: `@task(outputs="bar")` over a function.

    Args:
        functions: The function, when `@task` stands alone.
        name: The function's name if not given.
        inputs: If not given, the parameters that have no default and are neither dependencies nor a context.
        outputs: Streams it writes: names, or a mapping name -> type.
        wait: As for `Task`.
        version: As for `Task`.
        description: The first paragraph of the docstring if not given.
        options: Of the implementation, as for using a `Task` as a decorator.

    Returns:
        The function as a `TaskFunction`: still called with plain values, and accepted wherever a `Task` is.

    Raises:
        ConfigurationError: A name, an argument or an option cannot be used.
        DependencyError: A parameter can be neither an input nor resolved, or an annotation does not resolve.
    """

    def declare(function: Callable[..., Any], *, stacklevel: int = 2) -> TaskFunction[..., Any]:
        hints = evaluated(function)
        found = inputs_of(function, hints, batched=options.get("batch") is not None)
        named = Task(
            name if name is not None else getattr(function, "__name__", repr(function)),
            inputs=tuple(found) if inputs is None else inputs,
            outputs=outputs,
            wait=wait,
            version=version,
            description=_summary(function) if description is None else description,
        )
        declared = _typed(named, found, emitted_type(function, hints))
        registry.register(declared, function, options, stacklevel=stacklevel)
        return TaskFunction(declared, function)

    if not functions:
        return declare
    if len(functions) != 1 or not callable(functions[0]):
        raise ConfigurationError('write `@task` or `@task(outputs="bar")` over one function')
    return declare(functions[0], stacklevel=3)


def _typed(named: Task, inputs: Mapping[str, Any], output: Any) -> Task:
    """The task with the types of its function's annotations; types that it declares itself count more."""
    outputs = dict.fromkeys(named.outputs, output if len(named.outputs) == 1 else UNTYPED)
    return Task(
        named.name,
        inputs={name: named.input_types.get(name, inputs.get(name, UNTYPED)) for name in named.inputs},
        outputs={**outputs, **named.output_types},
        wait=named.wait,
        version=named.version,
        description=named.description,
    )


def _summary(function: Callable[..., Any]) -> str:
    paragraph = (inspect.getdoc(function) or "").partition("\n\n")[0]
    return " ".join(paragraph.split())
