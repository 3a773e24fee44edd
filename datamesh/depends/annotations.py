"""Annotations: from what stands in the source to types, also where it is text or names something local."""

from __future__ import annotations

import builtins
import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterable
from typing import Annotated, Any, Union, get_args, get_origin

from datamesh.depends.callables import describe, written
from datamesh.errors import DependencyError

MISSING = inspect.Parameter.empty
"""Stands where no annotation was written."""


class Namespace:
    """The names that the annotations of a callable can mean.

    Those are the globals of its module, what it closes over and, while the function that defines it still runs, that
    function's locals: `from __future__ import annotations` turns annotations into text, which closes over nothing.
    """

    def __init__(self, call: Callable[..., Any]) -> None:
        self._function = describe(call)
        source = written(call)
        self._globals = _globals_of(source)
        self._locals = {**_enclosing_locals(source), **_closure_of(source)}

    def resolve(self, parameter: str, annotation: Any) -> Any:
        """Evaluate one annotation, with `Annotated` kept; what is missing stays `MISSING`.

        Raises:
            DependencyError: It does not resolve.
        """
        if annotation is MISSING:
            return MISSING

        def holder() -> None: ...

        holder.__annotations__ = {parameter: annotation}
        try:
            return typing.get_type_hints(holder, self._globals, self._locals, include_extras=True)[parameter]
        except Exception as error:
            raise DependencyError(
                function=self._function,
                parameter=parameter,
                problem=f"its annotation {type_text(annotation)!r} does not resolve ({error})",
                fix="Import or define what it names above the function and outside of `if TYPE_CHECKING`",
            ) from error


def _globals_of(source: Any) -> dict[str, Any]:
    if not isinstance(source, type):
        return getattr(source, "__globals__", {})
    module = sys.modules.get(source.__module__)
    builder = source.__new__ if source.__init__ is object.__init__ else source.__init__  # type: ignore[misc]
    inherited = getattr(builder, "__globals__", {})
    return {**vars(module or builtins), **{name: value for name, value in inherited.items() if name != "__builtins__"}}


def _closure_of(source: Any) -> dict[str, Any]:
    cells = getattr(source, "__closure__", None) or ()
    names = source.__code__.co_freevars if cells else ()
    return {name: cell.cell_contents for name, cell in zip(names, cells, strict=True) if _is_filled(cell)}


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 - raises where the name is not bound yet
    except ValueError:
        return False
    return True


def _enclosing_locals(source: Any) -> dict[str, Any]:
    """Locals of the running functions that `source` was defined in, the nearest to it winning."""
    enclosing = set(_prefixes(getattr(source, "__qualname__", "")))
    found: dict[str, Any] = {}
    frame = inspect.currentframe() if enclosing else None
    while frame is not None:
        if frame.f_globals.get("__name__") == source.__module__ and frame.f_code.co_qualname in enclosing:
            found = {**frame.f_locals, **found}
        frame = frame.f_back
    return found


def _prefixes(qualname: str) -> Iterable[str]:
    while ".<locals>." in qualname:
        qualname = qualname.rpartition(".<locals>.")[0]
        yield qualname


def bare(annotation: Any) -> Any:
    """Strip `Annotated` and names given by `type X = ...` from the outside of an annotation."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif hasattr(annotation, "__value__"):
            annotation = annotation.__value__
        else:
            return annotation


def metadata_of(annotation: Any) -> tuple[Any, ...]:
    """Return what `Annotated` adds to a type, also behind a name given by `type X = ...`."""
    while hasattr(annotation, "__value__"):
        annotation = annotation.__value__
    return tuple(annotation.__metadata__) if get_origin(annotation) is Annotated else ()


def members(annotation: Any) -> tuple[Any, ...]:
    """Return the members of a union, in order; of any other annotation, itself."""
    stripped = bare(annotation)
    if get_origin(stripped) in (Union, types.UnionType):
        return tuple(member for item in get_args(stripped) for member in members(item))
    return (annotation,)


def type_text(annotation: Any) -> str:
    """Write an annotation as a person would, for messages and contracts."""
    if annotation is None or annotation is type(None):
        return "None"
    if isinstance(annotation, str):
        return annotation
    if annotation is not bare(annotation):
        return type_text(bare(annotation))
    if len(members(annotation)) > 1:
        return " | ".join(type_text(member) for member in members(annotation))
    return inspect.formatannotation(annotation)


def agree(declared: Any, found: Any) -> bool:
    """Tell whether two annotations say the same of a value, or one of them says nothing."""
    one, other = bare(declared), bare(found)
    return one is Any or other is Any or one == other
