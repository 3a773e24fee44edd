"""Inputs: how the parameters that name a task's inputs are bound, and the mode that this gives the task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args, get_origin

from datamesh.depends.annotations import MISSING, agree, bare, members, type_text
from datamesh.depends.callables import describe
from datamesh.depends.signatures import Parameter
from datamesh.errors import ConfigurationError, ContractMismatchError, DependencyError
from datamesh.model.io import IO
from datamesh.model.modes import Mode
from datamesh.model.task import Task


@dataclass(frozen=True, slots=True)
class Input:
    """An input as a function takes it.

    Attributes:
        name: Of the input and of the parameter.
        kind: `Mode.STREAM` for the whole stream, `Mode.EACH` for one value.
        type: Of one value: that which the task declares, else that of the parameter.
    """

    name: str
    kind: Mode
    type: Any


def read_inputs(task: Task, function: Callable[..., Any], parameters: tuple[Parameter, ...]) -> tuple[Input, ...]:
    """Read how a function takes the inputs of a task, in the order of the task.

    Args:
        task: The declaration.
        function: For messages.
        parameters: Of the function; all inputs are among them.

    Raises:
        DependencyError: A parameter that names an input has no annotation, or hides its `IO` in a union.
        ContractMismatchError: It is annotated with another type than the task declares.
    """
    by_name = {parameter.name: parameter for parameter in parameters}
    return tuple(_read(task, function, by_name[name]) for name in task.inputs)


def _read(task: Task, function: Callable[..., Any], parameter: Parameter) -> Input:
    kind, found = _kind(function, parameter)
    declared = task.input_types.get(parameter.name, Any)
    if not agree(declared, found):
        raise ContractMismatchError(
            where=f"parameter {parameter.name!r} of {describe(function)}",
            expected=f"{type_text(declared)}, which task {task.name!r} declares",
            found=type_text(found),
            fix="Annotate the parameter with the declared type, or change the declaration",
        )
    return Input(parameter.name, kind, found if bare(declared) is Any else declared)


def _kind(function: Callable[..., Any], parameter: Parameter) -> tuple[Mode, Any]:
    annotation = bare(parameter.annotation)
    if annotation is MISSING:
        raise _refusal(function, parameter, "this input has no annotation to tell how it is bound")
    if annotation is IO:
        return Mode.STREAM, Any
    if get_origin(annotation) is IO:
        return Mode.STREAM, get_args(annotation)[0]
    if any(IO in (bare(member), get_origin(bare(member))) for member in members(annotation)):
        raise _refusal(function, parameter, f"{type_text(annotation)} can be a stream or something else")
    return Mode.EACH, parameter.annotation


def _refusal(function: Callable[..., Any], parameter: Parameter, problem: str) -> DependencyError:
    return DependencyError(
        function=describe(function),
        parameter=parameter.name,
        problem=problem,
        fix=f"Annotate it `{parameter.name}: IO[T]` for the whole stream, or `{parameter.name}: T` for single values",
    )


def mode_of(task: Task, inputs: tuple[Input, ...]) -> Mode:
    """Return the mode that the inputs give a task. One without inputs runs once per run, like one that reads streams.

    Raises:
        ConfigurationError: The inputs are mixed, or `wait=True` contradicts them.
    """
    plain = [entry.name for entry in inputs if entry.kind is Mode.EACH]
    if not plain:
        return Mode.STREAM
    if len(inputs) > 1:
        fixes = ", ".join(f"`{name}: IO[...]`" for name in plain)
        raise ConfigurationError(
            f"task {task.name!r} takes {', '.join(plain)} value by value and has {len(inputs)} inputs: joining single "
            f"values with other inputs is not supported yet. Annotate {fixes} and read the streams"
        )
    if task.wait:
        raise ConfigurationError(
            f"task {task.name!r} has wait=True, which holds it back until its inputs are complete, and takes "
            f"{plain[0]} value by value as they come: annotate `{plain[0]}: IO[...]`, or drop wait=True"
        )
    return Mode.EACH
