"""Signatures: what each parameter of a callable asks for, read once."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from datamesh.depends.annotations import MISSING, Namespace, bare, members, metadata_of, type_text
from datamesh.depends.callables import describe, identity
from datamesh.depends.context import Context
from datamesh.depends.markers import DependsMarker, marker_of
from datamesh.errors import DependencyError

_UNBOUND = {
    inspect.Parameter.VAR_POSITIONAL: ("collects arguments that nothing gives", "Name each parameter instead"),
    inspect.Parameter.VAR_KEYWORD: ("collects arguments that nothing gives", "Name each parameter instead"),
    inspect.Parameter.POSITIONAL_ONLY: ("is positional-only, and arguments are passed by name", "Remove the `/`"),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a callable.

    Attributes:
        annotation: With `Annotated` kept; `MISSING` if there is none.
        marker: Its `Depends`, always with a callable.
        is_context: Whether it is annotated `Context`, or `Context | None`.
        has_default: Whether it may be left out. A `Depends` that stands as the default is none.
    """

    name: str
    annotation: Any
    marker: DependsMarker | None
    is_context: bool
    has_default: bool


class Signatures:
    """Remember the parameters of callables.

    An override compiles dependencies again at a time when the locals that their annotations name may be gone.
    """

    def __init__(self, *known: Signatures) -> None:
        self._known: dict[Hashable, tuple[Parameter, ...]] = {}
        for other in known:
            self._known.update(other._known)

    def of(self, call: Callable[..., Any]) -> tuple[Parameter, ...]:
        """Return the parameters of `call`.

        Raises:
            DependencyError: A parameter can be given no argument by name, an annotation does not resolve, or a
                `Depends` does not say what to call.
        """
        key = identity(call)
        if key not in self._known:
            self._known[key] = _read(call)
        return self._known[key]


def _read(call: Callable[..., Any]) -> tuple[Parameter, ...]:
    namespace = Namespace(call)
    return tuple(_parameter(describe(call), raw, namespace) for raw in _signature(call).parameters.values())


def _signature(call: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(call)
    except (TypeError, ValueError) as error:
        raise DependencyError(
            function=describe(call),
            parameter="?",
            problem=f"Python cannot tell its parameters ({error})",
            fix="Call it from a function of your own, and depend on that",
        ) from error


def _parameter(function: str, raw: inspect.Parameter, namespace: Namespace) -> Parameter:
    if raw.kind in _UNBOUND:
        problem, fix = _UNBOUND[raw.kind]
        raise DependencyError(function=function, parameter=raw.name, problem=problem, fix=fix)
    annotation = namespace.resolve(raw.name, raw.annotation)
    marked_default = marker_of(raw.default)
    return Parameter(
        name=raw.name,
        annotation=annotation,
        marker=_marker(function, raw.name, annotation, marked_default),
        is_context=any(bare(member) is Context for member in members(annotation)),
        has_default=raw.default is not MISSING and marked_default is None,
    )


def _marker(function: str, name: str, annotation: Any, default: DependsMarker | None) -> DependsMarker | None:
    found = [marker for item in metadata_of(annotation) if (marker := marker_of(item)) is not None]
    found += [] if default is None else [default]
    if not found:
        return None
    if len(found) > 1:
        raise DependencyError(function=function, parameter=name, problem="it has two `Depends`", fix="Keep one of them")
    return _complete(function, name, annotation, found[0])


def _complete(function: str, name: str, annotation: Any, marker: DependsMarker) -> DependsMarker:
    """Put the annotated class where `Depends()` names no callable."""
    if marker.dependency is not None:
        return marker
    annotated = bare(annotation)
    if isinstance(annotated, type) and annotated not in (MISSING, Any):
        return DependsMarker(annotated, marker.scope, marker.use_cache)
    raise DependencyError(
        function=function,
        parameter=name,
        problem=f"`Depends()` names nothing to call and {type_text(annotation)} is no class",
        fix="Name it, `Depends(f)`, or annotate the parameter with a class",
    )


def returns_of(call: Callable[..., Any]) -> Any:
    """Return the resolved annotation of what a callable returns, or `MISSING`.

    Raises:
        DependencyError: It does not resolve; its `parameter` is "return".
    """
    return Namespace(call).resolve("return", _signature(call).return_annotation)
