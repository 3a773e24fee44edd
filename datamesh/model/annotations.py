"""Annotations: which parameters of a function are inputs, and which types of values its signature tells of."""

from __future__ import annotations

import collections.abc
import contextlib
import inspect
from collections.abc import Callable
from types import FunctionType, NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from datamesh.errors import DependencyError
from datamesh.model.contracts import UNTYPED
from datamesh.model.io import IO
from datamesh.model.values import IOVal

_ITERATORS = (
    collections.abc.AsyncGenerator,
    collections.abc.AsyncIterable,
    collections.abc.AsyncIterator,
    collections.abc.Generator,
    collections.abc.Iterable,
    collections.abc.Iterator,
)


def evaluated(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the function's annotations, those that are written as text evaluated, `Annotated` kept.

    They may name what the function's module has and what the functions around it have while they still run.

    Raises:
        DependencyError: One does not resolve; carries the parameter.
    """
    source = inspect.unwrap(function)
    outside = getattr(source, "__globals__", {})
    around = _names_around(source) if isinstance(source, FunctionType) else {}
    hints: dict[str, Any] = {}
    for parameter, annotation in getattr(source, "__annotations__", {}).items():
        alone = SimpleNamespace(__annotations__={parameter: annotation})
        try:
            hints |= get_type_hints(alone, outside, around, include_extras=True)
        except Exception as error:
            raise DependencyError(
                function=getattr(source, "__qualname__", repr(source)),
                parameter=parameter,
                problem=f"its annotation {annotation!r} does not resolve ({error})",
                fix="Import or define what it names above the function, outside of `if TYPE_CHECKING`",
            ) from error
    return hints


def _names_around(function: FunctionType) -> dict[str, Any]:
    """Locals of the functions around one, the nearest winning: annotations that are text close over nothing."""
    found: dict[str, Any] = {}
    frame = inspect.currentframe()
    while frame is not None:
        is_around = function.__qualname__.startswith(f"{frame.f_code.co_qualname}.<locals>.")
        if is_around and frame.f_globals is function.__globals__:
            found = {**frame.f_locals, **found}
        frame = frame.f_back
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # not bound yet, as a function that calls itself is while it is decorated
            found[name] = cell.cell_contents
    return found


def inputs_of(function: Callable[..., Any], hints: dict[str, Any], *, batched: bool = False) -> dict[str, Any]:
    """Return the parameters that can only be inputs, with the types of their values.

    Those are all that have no default and are neither a dependency nor a context. UNTYPED where there is no annotation.

    Args:
        function: Its signature is read, it is not called.
        hints: Its annotations, evaluated.
        batched: Whether `list[T]` means several values of type T.
    """
    return {
        name: value_type(hints.get(name, UNTYPED), batched=batched)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.default is parameter.empty
        and not _is_provided(hints.get(name))
    }


def value_type(annotation: Any, *, batched: bool = False) -> Any:
    """Return the type of the values behind an input's annotation: T of `IO[T]`, of `T`, and of a batch's `list[T]`."""
    inner = _stripped(annotation)
    if inner is IO:
        return UNTYPED
    if get_origin(inner) is IO or (batched and get_origin(inner) is list):
        return get_args(inner)[0]
    return annotation


def emitted_type(function: Callable[..., Any], hints: dict[str, Any]) -> Any:
    """Return the type of the values that a function with one output gives; UNTYPED where its signature is not plain."""
    annotation = hints.get("return", UNTYPED)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        annotation = get_args(annotation)[0] if get_origin(annotation) in _ITERATORS else UNTYPED
    if get_origin(annotation) is IOVal:
        return get_args(annotation)[0]
    is_value = annotation not in (IOVal, NoneType) and get_origin(annotation) not in _ITERATORS
    return annotation if is_value and not any(map(_is_ioval, get_args(annotation))) else UNTYPED


def _is_ioval(annotation: Any) -> bool:
    return annotation is IOVal or get_origin(annotation) is IOVal


def _is_provided(annotation: Any) -> bool:
    """Whether a supervisor provides the parameter: a dependency (any marker like FastAPI's) or a context."""
    inner = _stripped(annotation)
    members = get_args(inner) if get_origin(inner) in (Union, UnionType) else (inner,)
    return any(hasattr(mark, "dependency") for mark in _marks(annotation)) or any(map(_is_context, members))


def _is_context(annotation: Any) -> bool:
    """Known by name, because the class belongs to a layer above this one."""
    return isinstance(annotation, type) and (
        annotation.__name__ == "Context" and annotation.__module__.startswith("datamesh.")
    )


def _marks(annotation: Any) -> tuple[Any, ...]:
    annotation = getattr(annotation, "__value__", annotation)
    return get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()


def _stripped(annotation: Any) -> Any:
    """The annotation without `Annotated`, also behind a name given by `type X = ...`."""
    annotation = getattr(annotation, "__value__", annotation)
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
