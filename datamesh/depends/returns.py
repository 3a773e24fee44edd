"""Returns: what the return annotation of a function promises for the outputs of its task.

`None` means "nothing" where it is the whole annotation, stands beside `IOVal`s, or the task has not exactly one output
to which it could belong; everywhere else it is a value like any other.
"""

from __future__ import annotations

import collections.abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Never, NoReturn, TypeVar, Union, get_args, get_origin

from datamesh.depends.annotations import MISSING, agree, bare, members, type_text
from datamesh.depends.callables import describe
from datamesh.depends.signatures import returns_of
from datamesh.errors import ContractMismatchError
from datamesh.model.modes import Form
from datamesh.model.task import Task
from datamesh.model.values import IOVal

_ITERATORS = (
    collections.abc.AsyncIterator,
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
    collections.abc.Iterator,
    collections.abc.Generator,
    collections.abc.Iterable,
)
_NOTHING = (None, type(None), Never, NoReturn)


@dataclass(frozen=True, slots=True)
class Returns:
    """What a function gives.

    Attributes:
        types: Type of the values of each output: that which the task declares, else that of the annotation.
        emits: Whether it gives values at all.
        none_is_value: Whether a returned None is one.
    """

    types: dict[str, Any]
    emits: bool
    none_is_value: bool


@dataclass(frozen=True, slots=True)
class _Reading:
    """A return annotation while it is read."""

    task: Task
    function: Callable[..., Any]
    form: Form

    def refuse(self, expected: str, found: Any, fix: str) -> ContractMismatchError:
        where = f"the return annotation of {describe(self.function)}"
        return ContractMismatchError(where=where, expected=expected, found=type_text(found), fix=fix)


def read_returns(task: Task, function: Callable[..., Any], form: Form) -> Returns:
    """Read what a function gives to the outputs of a task.

    Raises:
        DependencyError: The return annotation does not resolve; `parameter` is "return".
        ContractMismatchError: It belongs to another form of function, promises bare values although the task has not
            exactly one output, or contradicts what the task declares.
    """
    reading = _Reading(task, function, form)
    given = _given(reading, returns_of(function))
    if given in _NOTHING and not form.is_generator:
        return Returns(_types(reading, (Any,)), emits=False, none_is_value=False)
    wrapped = [member for member in members(given) if _in_iovals(reading, member) is not None]
    plain = [member for member in members(given) if _in_iovals(reading, member) is None]
    says_nothing = bool(wrapped) and not form.is_generator and all(member in _NOTHING for member in plain)
    if says_nothing:
        plain = []
    _check_plain(reading, plain)
    found = [kind for member in wrapped for kind in _in_iovals(reading, member) or ()] + plain
    has_one = len(task.outputs) == 1
    return Returns(_types(reading, tuple(found)), emits=bool(task.outputs), none_is_value=has_one and not says_nothing)


def _given(reading: _Reading, annotation: Any) -> Any:
    """What one `yield`, or the `return`, gives."""
    annotation = bare(annotation)
    if annotation is MISSING or annotation is Any:
        return Any
    is_iterator = (get_origin(annotation) or annotation) in _ITERATORS
    if reading.form.is_generator:
        if not is_iterator:
            wanted = "AsyncIterator[...]" if reading.form.is_async else "Iterator[...]"
            raise reading.refuse(wanted, annotation, f"It is a {reading.form}: annotate what it yields as {wanted}")
        return (get_args(annotation) or (Any,))[0]
    if is_iterator and get_origin(annotation) is not collections.abc.Iterable:
        raise reading.refuse("a value", annotation, "Only a generator fans out: `yield` the values, or return a list")
    return annotation


def _in_iovals(reading: _Reading, annotation: Any) -> tuple[Any, ...] | None:
    """Types in `IOVal[...]`, or in a tuple or list of them that is returned; None for anything else."""
    annotation = bare(annotation)
    origin, arguments = get_origin(annotation) or annotation, get_args(annotation)
    if origin is IOVal:
        return arguments or (Any,)
    if origin not in (tuple, list) or reading.form.is_generator:
        return None
    items = [member for item in arguments if item is not Ellipsis for member in members(item)]
    inner = [_in_iovals(reading, item) for item in items if get_origin(bare(item)) not in (tuple, list)]
    is_all = bool(items) and len(inner) == len(items) and None not in inner
    return tuple(kind for kinds in inner for kind in kinds or ()) if is_all else None


def _check_plain(reading: _Reading, plain: list[Any]) -> None:
    typed = [member for member in plain if bare(member) is not Any and not isinstance(member, TypeVar)]
    if not typed or len(reading.task.outputs) == 1:
        return
    outputs = reading.task.outputs
    if not outputs:
        raise reading.refuse(
            "None", typed[0], f"Task {reading.task.name!r} declares no output: declare one, or give none"
        )
    raise reading.refuse(
        "IOVal[...]",
        typed[0],
        f"Task {reading.task.name!r} has the outputs {', '.join(outputs)}: give `IOVal(name=..., value=...)`",
    )


def _types(reading: _Reading, found: tuple[Any, ...]) -> dict[str, Any]:
    """Type of each output. Which output an `IOVal` is for is known only when it comes: each may get any of `found`."""
    if any(bare(kind) is Any or isinstance(kind, TypeVar) for kind in found):
        found = (Any,)
    together = Union[found]  # type: ignore[valid-type]  # noqa: UP007 - known at run time only
    return {output: _type(reading, output, found, together) for output in reading.task.outputs}


def _type(reading: _Reading, output: str, found: tuple[Any, ...], together: Any) -> Any:
    declared = reading.task.output_types.get(output, Any)
    if not any(agree(declared, kind) for kind in (*found, together)):
        raise reading.refuse(
            f"{type_text(declared)} for output {output!r}, which task {reading.task.name!r} declares",
            together,
            "Annotate the function with the declared type, or change the declaration",
        )
    return together if bare(declared) is Any else declared
