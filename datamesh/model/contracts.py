"""Contracts: the types that tasks declare for their streams, and whether a producer's fits a consumer's.

A contract is refused only when it is certain to be broken: where Python's types do not tell, values are checked at run
time anyway, so the answer is yes.
"""

from __future__ import annotations

import collections.abc
import inspect
import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin

UNTYPED: Any = inspect.Parameter.empty
"""Stands for a type that is not declared."""

_WIDER = ((int, float), (int, complex), (float, complex))
"""Numbers that Python's typing lets stand for each other."""


class Types(Mapping[str, Any]):
    """Annotations by name, of what is declared: read-only and hashable, also where an annotation is not.

    Args:
        by_name: Those that are UNTYPED are left out.
    """

    __slots__ = ("_by_name",)

    def __init__(self, by_name: Mapping[str, Any] | None = None) -> None:
        self._by_name = {name: found for name, found in (by_name or {}).items() if found is not UNTYPED}

    def __getitem__(self, name: str) -> Any:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __hash__(self) -> int:
        return hash(frozenset(self._by_name))

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name}: {type_text(found)}" for name, found in self.items()) + "}"


def type_text(annotation: Any) -> str:
    """Write an annotation the way its author would: `int`, `list[Document]`, `str | None`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is Ellipsis:
        return "..."
    if origin is Annotated:
        return type_text(arguments[0])
    if _is_union(annotation):
        return " | ".join(map(type_text, arguments))
    if origin is not None and origin is not Literal:
        return f"{type_text(origin)}[{', '.join(map(type_text, arguments))}]"
    if isinstance(annotation, type):
        return annotation.__qualname__
    if isinstance(annotation, NewType):
        return annotation.__name__
    return annotation if isinstance(annotation, str) else repr(annotation).removeprefix("typing.")


def fits(producer: Any, consumer: Any) -> bool:
    """Tell whether every value of one type may be given to a reader of another.

    Args:
        producer: Annotation of the values that are written.
        consumer: Annotation of the values that are expected.

    Returns:
        False where some value is certain not to fit. True where it fits, and where the types do not tell: forward
        references, protocols, type variables, callables.
    """
    producer, consumer = _stripped(producer), _stripped(consumer)
    if producer is consumer or producer is Any or consumer is Any or consumer is object:
        return True
    if _is_union(producer):
        return all(fits(member, consumer) for member in get_args(producer))
    if _is_union(consumer):
        return any(fits(producer, member) for member in get_args(consumer))
    if get_origin(producer) is Literal:
        return _literal_fits(producer, consumer)
    if get_origin(consumer) is Literal:
        return any(fits(producer, type(value)) for value in get_args(consumer))
    return _classes_fit(producer, consumer) and _arguments_fit(producer, consumer)


def _stripped(annotation: Any) -> Any:
    """The annotation without `Annotated` and `NewType`, and None as the type it stands for."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, NewType):
            annotation = annotation.__supertype__
        else:
            return type(None) if annotation is None else annotation


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)


def _literal_fits(producer: Any, consumer: Any) -> bool:
    if get_origin(consumer) is Literal:
        return set(get_args(producer)) <= set(get_args(consumer))
    return all(fits(type(value), consumer) for value in get_args(producer))


def _classes_fit(producer: Any, consumer: Any) -> bool:
    found, expected = get_origin(producer) or producer, get_origin(consumer) or consumer
    if not isinstance(found, type) or not isinstance(expected, type):
        return True
    if getattr(expected, "_is_protocol", False) or any(issubclass(found, a) and expected is b for a, b in _WIDER):
        return True
    try:
        return issubclass(found, expected)
    except TypeError:  # TypedDict and its like refuse the question
        return True


def _arguments_fit(producer: Any, consumer: Any) -> bool:
    """Compare the arguments of generics, all as covariant: a stream is read, never written, by its consumer."""
    found, expected = get_args(producer), get_args(consumer)
    if get_origin(producer) is tuple and get_origin(consumer) is tuple:
        return _tuples_fit(found, expected)
    if get_origin(consumer) is collections.abc.Callable or len(found) != len(expected):
        return True
    if get_origin(producer) is tuple:  # tuple[int, ...] to Sequence[int] and the like have unlike arguments
        return True
    return all(fits(a, b) for a, b in zip(found, expected, strict=True))


def _tuples_fit(found: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    if expected[-1:] == (Ellipsis,):
        return all(fits(item, expected[0]) for item in found if item is not Ellipsis)
    if found[-1:] == (Ellipsis,):
        return all(fits(found[0], item) for item in expected)
    return len(found) == len(expected) and all(fits(a, b) for a, b in zip(found, expected, strict=True))
