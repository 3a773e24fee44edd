"""Overrides: other callables in the place of dependencies, for as long as a test wants."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from datamesh.depends.callables import describe, identity
from datamesh.depends.graph import Graph
from datamesh.depends.signatures import Signatures
from datamesh.errors import ConfigurationError


class Compiled(Protocol):
    """What must still work under an override."""

    def under(self, overrides: Overrides) -> object:
        """Return what takes its place while `overrides` is in force."""
        ...


class Overrides:
    """What is replaced now; in force for values built from now on, in all tasks and threads.

    Values of scope "run" and "service" that were built before are not used for what an override alters, and those built
    under it are not used after it.

    Args:
        plans: Gives the plans that a replacement must fit into, so that one which cannot is refused at once.

    Attributes:
        replaced: Replacements by identity of the dependency. Never changed, only exchanged, so that its identity tells
            whether anything has changed.
        signatures: Parameters of the replacements.
    """

    def __init__(self, plans: Callable[[], Iterable[Compiled]] = tuple) -> None:
        self.replaced: Mapping[Hashable, Callable[..., Any]] = {}
        self.signatures = Signatures()
        self._plans = plans
        self._layers: list[Mapping[Hashable, Callable[..., Any]]] = []

    @contextmanager
    def use(self, replacements: Mapping[Callable[..., Any], Callable[..., Any]]) -> Iterator[None]:
        """Call the values of `replacements` wherever a dependency names their keys. Inner uses win over outer ones.

        Raises:
            ConfigurationError: A replacement cannot be called.
            DependencyError: A replacement cannot be resolved, or one of the plans cannot work with it.
        """
        layer = {identity(call): _checked(call, other) for call, other in replacements.items()}
        self._layers.append(layer)
        try:
            self._exchange()
            self._compile(layer)
            yield
        finally:
            self._layers[:] = [kept for kept in self._layers if kept is not layer]
            self._exchange()

    def _exchange(self) -> None:
        self.replaced = {call: other for layer in self._layers for call, other in layer.items()}

    def _compile(self, layer: Mapping[Hashable, Callable[..., Any]]) -> None:
        graph = Graph(self.signatures, replaced=self.replaced)
        for other in layer.values():
            graph.check(other)
        for plan in self._plans():
            plan.under(self)


def _checked(call: Callable[..., Any], other: Callable[..., Any]) -> Callable[..., Any]:
    if not callable(other):
        raise ConfigurationError(
            f"{describe(call)} cannot be overridden by {other!r}: give a callable, like `lambda: value`"
        )
    return other
