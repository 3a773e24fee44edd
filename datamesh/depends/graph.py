"""Graph: what a function depends on, directly and through its dependencies, and all that is refused about it.

A node is one value to be built. Overrides are taken in here, so that whoever runs a graph need not know of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datamesh.depends.callables import describe, form_of, identity, undecorated
from datamesh.depends.markers import SCOPES, DependsMarker, ScopeName
from datamesh.depends.signatures import Parameter, Signatures
from datamesh.errors import DependencyError
from datamesh.model.modes import Form

Call = Callable[..., Any]

Replacements = Mapping[Hashable, Call]
"""What is called instead, by the identity of the dependency."""

_LIFETIMES = {"call": "one invocation", "run": "one run", "service": "as long as the service"}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One value to be built.

    Attributes:
        key: Equal for values that may stand for each other: the callable and, where an override alters what lies below
            it, the keys of that too. So a value built on a fake never outlives the override in a cache.
        call: Gives the value.
        form: How `call` is written.
        scope: How long the value lives.
        use_cache: Whether parameters of one invocation that ask for this key share the value.
        arguments: What `call` is given by name; None stands for the context.
        is_altered: Whether an override is in force here or below.
    """

    key: Hashable
    call: Call
    form: Form
    scope: ScopeName
    use_cache: bool
    arguments: Arguments
    is_altered: bool


Arguments = tuple[tuple[str, Node | None], ...]


@dataclass(frozen=True, slots=True)
class _Site:
    """A callable while its parameters are looked at, and those that led to it, from the task's function on."""

    call: Call
    scope: ScopeName
    path: tuple[Call, ...]

    @property
    def is_function(self) -> bool:
        return len(self.path) == 1

    def below(self, call: Call, scope: ScopeName) -> _Site:
        return _Site(call, scope, (*self.path, call))

    def refuse(self, parameter: str, problem: str, fix: str) -> DependencyError:
        return DependencyError(function=describe(self.call), parameter=parameter, problem=problem, fix=fix)


class Graph:
    """Read what functions depend on.

    Args:
        signatures: Parameters that were read before, and where those read now are kept.
        inputs: Names of the task's inputs: arguments of its function, and invisible to dependencies.
        replaced: Overrides in force. What takes the place of a dependency may itself depend on what it replaces.
    """

    def __init__(
        self, signatures: Signatures, *, inputs: Iterable[str] = (), replaced: Replacements | None = None
    ) -> None:
        self._signatures = signatures
        self._inputs = tuple(inputs)
        self._replaced = dict(replaced or {})
        self._stand_ins = {identity(call) for call in self._replaced.values()}
        self._nodes: dict[Hashable, Node] = {}

    def of_function(self, function: Call) -> Arguments:
        """Return what a task's function is given besides its inputs.

        Raises:
            DependencyError: A parameter is nothing that can be given, an input has no parameter, dependencies form a
                circle, or one with a longer scope needs one with a shorter scope.
        """
        site = _Site(function, "call", (function,))
        parameters = self._signatures.of(function)
        self._check_inputs(site, parameters)
        return self._arguments(site, [parameter for parameter in parameters if parameter.name not in self._inputs])

    def check(self, call: Call) -> None:
        """Refuse a callable that could be no dependency of any scope.

        Raises:
            DependencyError: As for `of_function`.
        """
        site = _Site(call, "call", (call,)).below(call, "call")
        self._arguments(site, self._signatures.of(undecorated(call)))

    def _check_inputs(self, site: _Site, parameters: Sequence[Parameter]) -> None:
        by_name = {parameter.name: parameter for parameter in parameters}
        for name in self._inputs:
            if name not in by_name:
                change = f"Add the parameter `{name}: IO[...]`" if name.isidentifier() else "Rename it to a Python name"
                raise site.refuse(name, "the task declares this input and the function has no such parameter", change)
            if by_name[name].marker is not None or by_name[name].is_context:
                raise site.refuse(name, "it is an input of the task and a dependency too", "Rename one of the two")

    def _arguments(self, site: _Site, parameters: Sequence[Parameter]) -> Arguments:
        arguments: list[tuple[str, Node | None]] = []
        for parameter in parameters:
            if parameter.marker is not None:
                arguments.append((parameter.name, self._node(site, parameter.name, parameter.marker)))
            elif parameter.is_context:
                _check_context(site, parameter.name)
                arguments.append((parameter.name, None))
            elif not parameter.has_default:
                raise self._unknown(site, parameter.name)
        return tuple(arguments)

    def _node(self, site: _Site, parameter: str, marker: DependsMarker) -> Node:
        call = self._effective(site, marker)
        _check_scope(site, parameter, call, marker.scope)
        _check_circle(site, parameter, call)
        below = site.below(call, marker.scope)
        memo = (identity(call), marker.scope, marker.use_cache, self._in_force(below))
        if memo not in self._nodes:
            self._nodes[memo] = self._built(below, marker, is_replaced=call is not marker.dependency)
        return self._nodes[memo]

    def _built(self, site: _Site, marker: DependsMarker, *, is_replaced: bool) -> Node:
        call = undecorated(site.call)
        arguments = self._arguments(site, self._signatures.of(call))
        is_altered = any(node is not None and node.is_altered for _, node in arguments)
        key = identity(site.call)
        return Node(
            key=(key, *(node and node.key for _, node in arguments)) if is_altered else key,
            call=call,
            form=form_of(call),
            scope=marker.scope,
            use_cache=marker.use_cache,
            arguments=arguments,
            is_altered=is_altered or is_replaced,
        )

    def _effective(self, site: _Site, marker: DependsMarker) -> Call:
        """What is called for a dependency; below a stand-in, what it replaces is the original again."""
        assert marker.dependency is not None, "signatures complete their markers"
        stand_in = self._replaced.get(identity(marker.dependency), marker.dependency)
        return marker.dependency if stand_in in site.path else stand_in

    def _in_force(self, site: _Site) -> frozenset[Hashable]:
        """Stand-ins on the way to a site: they change what lies below it, so nodes are not shared across them."""
        return frozenset(identity(call) for call in site.path) & self._stand_ins

    def _unknown(self, site: _Site, parameter: str) -> DependencyError:
        if site.is_function:
            listed = ", ".join(self._inputs) or "none"
            return site.refuse(
                parameter,
                f"it is no input of the task (those are: {listed}), no dependency and has no default",
                "Declare it as an input, annotate it `Annotated[T, Depends(f)]` or `Context`, or give it a default",
            )
        if parameter in self._inputs:
            return site.refuse(
                parameter,
                "it is an input of the task, and inputs are not visible to dependencies",
                "Take it in the task's function, and call what needs it from there",
            )
        return site.refuse(
            parameter,
            "it is no dependency and has no default",
            "Annotate it `Annotated[T, Depends(f)]` or `Context`, or give it a default",
        )


def _check_context(site: _Site, parameter: str) -> None:
    if site.scope != "call":
        raise site.refuse(
            parameter,
            f"it lives for {_LIFETIMES[site.scope]}, and a context is that of one invocation",
            'Drop the parameter, or give the dependency `scope="call"`',
        )


def _check_scope(site: _Site, parameter: str, call: Call, scope: ScopeName) -> None:
    if SCOPES.index(scope) < SCOPES.index(site.scope):
        raise site.refuse(
            parameter,
            f"it lives for {_LIFETIMES[site.scope]}, and what it needs, {describe(call)}, for {_LIFETIMES[scope]}",
            f'Depend on {describe(call)} with `scope="{site.scope}"`, or on this with `scope="{scope}"`',
        )


def _check_circle(site: _Site, parameter: str, call: Call) -> None:
    if call in site.path:
        circle = (*site.path[site.path.index(call) :], call)
        raise site.refuse(
            parameter,
            f"dependencies need each other in a circle: {' -> '.join(map(describe, circle))}",
            "Move what both need into a third one",
        )
