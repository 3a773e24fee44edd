"""Depends: the mark on a parameter that says which callable gives its argument, and how long the value lives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from datamesh.errors import ConfigurationError

ScopeName = Literal["call", "run", "service"]
"""How long a value lives: one invocation, one run in one service, or as long as the service."""

SCOPES: tuple[ScopeName, ...] = get_args(ScopeName)
"""All scopes, the shortest first."""


@dataclass(frozen=True, slots=True)
class DependsMarker:
    """What `Depends` leaves on a parameter.

    Attributes:
        dependency: Gives the value; None stands for the class that the parameter is annotated with.
        scope: How long the value lives.
        use_cache: Whether parameters of one invocation that ask for the same callable share its value.
    """

    dependency: Callable[..., Any] | None = None
    scope: ScopeName = "call"
    use_cache: bool = True

    def __post_init__(self) -> None:
        if self.dependency is not None and not callable(self.dependency):
            raise ConfigurationError(f"Depends({self.dependency!r}): give a function, a class or another callable")
        if self.scope not in SCOPES:
            raise ConfigurationError(f"Depends(scope={self.scope!r}): the scopes are {', '.join(SCOPES)}")
        if self.scope != "call" and not self.use_cache:
            raise ConfigurationError(
                f"Depends(scope={self.scope!r}, use_cache=False): a value that lives for a {self.scope} is built once "
                'and shared; drop `use_cache=False`, or use scope="call"'
            )


def Depends(dependency: Callable[..., Any] | None = None, *, scope: ScopeName = "call", use_cache: bool = True) -> Any:
    """Let a callable give a parameter's argument: `Annotated[T, Depends(f)]`, or `x: T = Depends(f)`.

    `f` may be a function, an `async def`, a generator of either kind that yields once and cleans up after its `yield`,
    a class, a `functools.partial`, a bound method or an object that can be called. Its own parameters are dependencies
    too, have a default, or ask for the `Context`; the inputs of the task are not visible to it.

    A value lives as long as its scope and is cleaned up at its end, also after an error or a cancellation, in the
    reverse order of building. A generator of scope "call" gets the error of the function thrown in at its `yield`;
    whether it swallows it or fails in turn, the function's error is what the invocation ends with.

    Where it runs: asynchronous callables run on the event loop. Synchronous ones of scope "call" do so too, because
    they are cheap in the usual case and a thread costs twenty times the call: make one that blocks `async`, or give it
    a longer scope. Synchronous ones of scope "run" and "service" (models, connection pools) are built and cleaned up
    in a thread, not always the same one; what needs the running event loop is to be made in an `async def`.

    Args:
        dependency: Gives the value. Left out, the class that the parameter is annotated with is called.
        scope: "call" for one invocation; "run" for one run in one service; "service" from first use until the
            supervisor has drained. Values of the latter two are built once, however many ask at the same time; if that
            fails all who wait get the error, and the next one to ask tries again.
        use_cache: False calls it anew for every parameter that asks for it within an invocation. Scope "call" only.

    Returns:
        A mark, typed `Any` so that it can stand as the default of a parameter of any type.

    Raises:
        ConfigurationError: `dependency` cannot be called, there is no such scope, or the arguments contradict each
            other.

    Source:
        The shape, and the meaning of `use_cache` and of generators, are FastAPI's.
    """
    return DependsMarker(dependency, scope, use_cache)


def marker_of(candidate: Any) -> DependsMarker | None:
    """Read the metadata of an annotation, or a default, as a marker: ours, or FastAPI's by its attributes.

    FastAPI's scopes ("function", "request") both end with the invocation, so they are "call".
    """
    if isinstance(candidate, DependsMarker):
        return candidate
    is_other = not isinstance(candidate, type) and hasattr(candidate, "dependency") and hasattr(candidate, "use_cache")
    return DependsMarker(candidate.dependency, "call", bool(candidate.use_cache)) if is_other else None
