"""Registry: which function implements which task, in this process.

Decorators run at import, before any supervisor exists, so what they find is kept here until one asks for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import TYPE_CHECKING, Any

from datamesh.errors import ConfigurationError

if TYPE_CHECKING:
    from datamesh.model.task import Task

Function = Callable[..., Any]
Compiler = Callable[["Task", Function, dict[str, Any]], Any]


class DuplicateImplementationWarning(UserWarning):
    """A task was implemented a second time in one process; the last implementation counts."""


@dataclass(frozen=True, slots=True, eq=False)
class Implementation:
    """One function that implements a task.

    Attributes:
        task: The declaration.
        function: As it was written, never wrapped.
        options: As they were given to the decorator.
        compiled: What the registry's compiler made of the three; None as long as there is no compiler.
    """

    task: Task
    function: Function
    options: Mapping[str, Any]
    compiled: Any = None


class Registry:
    """Hold the implementations of a process, one for each task and version.

    Args:
        compiler: See `compiler`.
    """

    def __init__(self, compiler: Compiler | None = None) -> None:
        self._lock = RLock()
        self._compiler = compiler
        self._by_ref: dict[str, Implementation] = {}

    @property
    def compiler(self) -> Compiler | None:
        """Turns (task, function, options) into what a supervisor runs, and raises where the function cannot work.

        It is called at registration, so that mistakes surface at import; setting it compiles what came before it.
        """
        return self._compiler

    @compiler.setter
    def compiler(self, compiler: Compiler | None) -> None:
        with self._lock:
            compiled = {
                ref: self._implement(found.task, found.function, found.options, compiler)
                for ref, found in self._by_ref.items()
            }
            self._compiler, self._by_ref = compiler, compiled

    def register(
        self, task: Task, function: Function, options: Mapping[str, Any] | None = None, *, stacklevel: int = 1
    ) -> Implementation:
        """Make `function` the implementation of `task` in this process.

        Args:
            task: What it implements.
            function: Called by a supervisor, or by a test, with plain values.
            options: Of the implementation; their names and values are the compiler's to check.
            stacklevel: Calls between the user's line and this one, for the place that a warning names.

        Raises:
            ConfigurationError: `function` cannot be called.
            DatameshError: Whatever the compiler has against the function or its options. Nothing is registered then.

        Warns:
            DuplicateImplementationWarning: The task had an implementation; the new one replaces it.
        """
        if not callable(function):
            raise ConfigurationError(
                f"task {task.name!r} is a declaration: use it as a decorator over a function, not on {function!r}"
            )
        with self._lock:
            made = self._implement(task, function, options or {}, self._compiler)
            replaced = self._by_ref.get(task.ref)
            self._by_ref[task.ref] = made
        if replaced is not None:
            warnings.warn(
                f"task {task.ref} is implemented twice: {_place(function)} replaces {_place(replaced.function)}",
                DuplicateImplementationWarning,
                stacklevel=stacklevel + 1,
            )
        return made

    def get(self, ref: str) -> Implementation | None:
        """Return the implementation of a task, by its `ref`, or None if this process has none."""
        return self._by_ref.get(ref)

    def implementations(self) -> tuple[Implementation, ...]:
        """Return all implementations, in the order in which their tasks were first registered."""
        with self._lock:
            return tuple(self._by_ref.values())

    def bindings(self) -> tuple[Any, ...]:
        """Return what the compiler made of each implementation, in the same order; empty without a compiler."""
        return tuple(found.compiled for found in self.implementations() if found.compiled is not None)

    @contextmanager
    def isolated(self, *, empty: bool = False) -> Iterator[Registry]:
        """Forget on exit what is registered inside: for tests. Shared by all threads and coroutines of the process.

        Args:
            empty: Begin with nothing registered.
        """
        with self._lock:
            kept, compiler = dict(self._by_ref), self._compiler
            if empty:
                self._by_ref = {}
        try:
            yield self
        finally:
            with self._lock:
                self._by_ref, self._compiler = kept, compiler

    @staticmethod
    def _implement(
        task: Task, function: Function, options: Mapping[str, Any], compiler: Compiler | None
    ) -> Implementation:
        compiled = compiler(task, function, dict(options)) if compiler is not None else None
        return Implementation(task=task, function=function, options=dict(options), compiled=compiled)


def _place(function: Function) -> str:
    name = getattr(function, "__qualname__", repr(function))
    return f"{getattr(function, '__module__', '?')}.{name}"


registry = Registry()
"""The registry that `@task` and every `Task` used as a decorator write to."""
