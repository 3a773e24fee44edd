"""Binding: a task and the function that implements it in this service, compiled once when it is registered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from datamesh.depends.annotations import type_text
from datamesh.depends.callables import describe, form_of
from datamesh.depends.emission import Emission
from datamesh.depends.inputs import Input, mode_of, read_inputs
from datamesh.depends.options import Options
from datamesh.depends.plan import ArgumentPlan
from datamesh.depends.returns import read_returns
from datamesh.depends.signatures import Signatures
from datamesh.errors import ConfigurationError
from datamesh.model.modes import Form, Mode
from datamesh.model.task import Task


@dataclass(frozen=True, slots=True, eq=False)
class Binding:
    """All that is known of an implementation before it runs.

    Attributes:
        task: What it implements.
        function: As it was written: call it with the inputs and what `plan` gives, all by name.
        mode: How many values one invocation gets.
        form: How the function is written.
        inputs: How it takes each input, in the order of the task.
        input_types: Type of one value, by input; `Any` where nobody says.
        output_types: Type of one value, by output; `Any` where nobody says.
        emits: False if it gives nothing, like a function annotated `-> None`.
        plan: The arguments besides the inputs.
        options: How it is to be run.
        output_of: Sorts one thing yielded; see `Emission.output_of`.
        outputs_of: Sorts what is returned; see `Emission.outputs_of`.
    """

    task: Task
    function: Callable[..., Any]
    mode: Mode
    form: Form
    inputs: tuple[Input, ...]
    input_types: Mapping[str, Any]
    output_types: Mapping[str, Any]
    emits: bool
    plan: ArgumentPlan
    options: Options
    output_of: Callable[[Any], tuple[str, Any]]
    outputs_of: Callable[[Any], list[tuple[str, Any]]]

    @property
    def ref(self) -> str:
        """Identifies what is implemented: `name@version`."""
        return self.task.ref

    def describe(self) -> str:
        """Say what this is, in a few words, for messages."""
        return f"task {self.ref} by {describe(self.function)} ({self.mode}, {self.form})"

    def contract(self) -> dict[str, Any]:
        """Return what others may rely on, ready for JSON: names, mode, and types as text."""
        return {
            "task": self.task.name,
            "version": self.task.version,
            "mode": self.mode.value,
            "wait": self.task.wait,
            "inputs": {entry.name: {"kind": entry.kind.value, "type": type_text(entry.type)} for entry in self.inputs},
            "outputs": {name: type_text(annotation) for name, annotation in self.output_types.items()},
        }

    def __repr__(self) -> str:
        return f"<Binding {self.describe()}>"


def bind(task: Task, function: Callable[..., Any], **options: Any) -> Binding:
    """Compile an implementation; the function stays as it is.

    Args:
        task: The declaration.
        function: In any of the forms; its parameters are the inputs of the task, dependencies, the context, or have
            a default.
        options: See `Options`.

    Raises:
        DependencyError: A parameter cannot be resolved.
        ContractMismatchError: An annotation contradicts what the task declares.
        ConfigurationError: An option is wrong, or a mode is not supported.
    """
    chosen = Options.read(options, task=task.name)
    if chosen.batch is not None:
        raise ConfigurationError(
            f"task {task.name!r}: batches are not supported in this version: drop `batch=` and take one value a "
            "call, or the whole stream as `IO[T]`"
        )
    signatures = Signatures()
    plan = ArgumentPlan(function, task.inputs, signatures=signatures)
    inputs = read_inputs(task, function, signatures.of(function))
    form = form_of(function)
    returns = read_returns(task, function, form)
    emission = Emission(task, emits=returns.emits, none_is_value=returns.none_is_value)
    return Binding(
        task=task,
        function=function,
        mode=mode_of(task, inputs),
        form=form,
        inputs=inputs,
        input_types=MappingProxyType({entry.name: entry.type for entry in inputs}),
        output_types=MappingProxyType(returns.types),
        emits=returns.emits,
        plan=plan,
        options=chosen,
        output_of=emission.output_of,
        outputs_of=emission.outputs_of,
    )
