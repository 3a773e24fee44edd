"""Callables: everything that can be called, seen alike: what it is called, how it is written, what is the same."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
from collections.abc import Callable, Hashable
from typing import Any

from datamesh.model.modes import Form

Call = Callable[..., Any]


def describe(call: Any) -> str:
    """Name a callable in a message, as `module.qualified_name`."""
    if isinstance(call, functools.partial):
        return f"partial({describe(call.func)})"
    name = getattr(call, "__qualname__", None)
    if name is None:
        return f"an object of {describe(type(call))}"
    return f"{getattr(call, '__module__', None) or '?'}.{name}"


def identity(call: Hashable) -> Hashable:
    """Return what tells this callable from others, for callables that have no hash too."""
    try:
        hash(call)
    except TypeError:
        return _Same(call)
    return call


class _Same:
    """Equal to another if both hold the same object."""

    __slots__ = ("_held",)

    def __init__(self, held: object) -> None:
        self._held = held

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._held is other._held

    def __hash__(self) -> int:
        return id(self._held)


def undecorated(call: Call) -> Call:
    """Return the generator function behind `@contextmanager` or `@asynccontextmanager`; any other callable as it is.

    The decorated function gives an object to use with `with`; who depends on it means what that object gives.
    """
    is_decorated = getattr(call, "__globals__", None) is vars(contextlib)
    return getattr(call, "__wrapped__", call) if is_decorated else call


def form_of(call: Call) -> Form:
    """Tell how a callable is written. Decorators that use `functools.wraps` are looked through, partials too."""
    outer = _function_of(call)
    for candidate in (outer, inspect.unwrap(outer)):
        if inspect.isasyncgenfunction(candidate):
            return Form.ASYNC_GENERATOR
        if inspect.iscoroutinefunction(candidate):
            return Form.COROUTINE
        if inspect.isgeneratorfunction(candidate):
            return Form.GENERATOR
    return Form.FUNCTION


def _function_of(call: Any) -> Any:
    """The function that runs when `call` is called; a class stays a class, because calling it gives an instance."""
    while isinstance(call, functools.partial):
        call = call.func
    if isinstance(call, type | types.FunctionType | types.MethodType | types.BuiltinFunctionType):
        return call
    if hasattr(call, "__wrapped__"):
        return call
    return type(call).__call__


def written(call: Any) -> Any:
    """Return the function whose source holds the annotations of `call`, or the class for a class."""
    function = _function_of(call)
    if isinstance(function, type):
        return function
    function = inspect.unwrap(function)
    return getattr(function, "__func__", function)
