"""What is refused when a function is registered, with the parameter and the fix in the message."""

import time
from collections.abc import Iterator
from typing import Annotated, Any

import pytest

from datamesh.depends.context import Context
from datamesh.depends.markers import Depends
from datamesh.depends.plan import ArgumentPlan
from datamesh.errors import ConfigurationError, DependencyError


def get_two() -> int:
    return 2


def get_from_call(two: Annotated[int, Depends(get_two)]) -> int:
    return two


def get_from_run(two: Annotated[int, Depends(get_two, scope="run")]) -> int:
    return two


def get_from_context(context: Context) -> str:
    return context.run_id


def get_from_input(foo: int) -> int:
    return foo


def get_from_nowhere(bar: int) -> int:
    return bar


def takes_args(*rest: int) -> int:
    return len(rest)


def takes_kwargs(**rest: int) -> int:
    return len(rest)


def takes_positional(x: int, /) -> int:
    return x


def needs_itself(x: int) -> Iterator[int]:
    yield x


def ping(x: int) -> int:
    return x


def pong(x: Annotated[int, Depends(ping)]) -> int:
    return x


ping.__annotations__["x"] = Annotated[int, Depends(pong)]
needs_itself.__annotations__["x"] = Annotated[int, Depends(needs_itself)]


def depends(call: Any, **options: Any) -> Any:
    def function(foo: int, x: Annotated[Any, Depends(call, **options)]) -> None: ...

    return function


@pytest.mark.parametrize(
    ("function", "parameter", "message"),
    [
        (
            lambda foo, bar: 0,
            "bar",
            r"no input of the task \(those are: foo\).*Declare it as an input.*Depends.*default",
        ),
        (lambda: 0, "foo", r"no such parameter\. Add the parameter `foo: IO\[\.\.\.\]`"),
        (lambda foo=Depends(get_two): 0, "foo", "an input of the task and a dependency too"),
        (lambda foo, *rest: 0, "rest", "collects arguments.*Name each parameter"),
        (lambda foo, **rest: 0, "rest", "collects arguments"),
        (takes_positional, "x", "positional-only.*Remove the `/`"),
        (depends(takes_args), "rest", "takes_args: collects arguments"),
        (depends(takes_kwargs), "rest", "takes_kwargs"),
        (depends(takes_positional), "x", "takes_positional: is positional-only"),
        (depends(get_from_input), "foo", "get_from_input: .*inputs are not visible to dependencies"),
        (depends(get_from_nowhere), "bar", "get_from_nowhere: it is no dependency and has no default"),
        (depends(pong), "x", r"circle: .*pong -> .*ping -> .*pong"),
        (depends(needs_itself), "x", r"circle: .*needs_itself -> .*needs_itself"),
        (depends(get_from_call, scope="run"), "two", r"for one run, and what it needs, .*get_two, for one invocation"),
        (
            depends(get_from_call, scope="service"),
            "two",
            r'get_two with `scope="service"`, or on this with `scope="call"`',
        ),
        (depends(get_from_run, scope="service"), "two", "get_two, for one run"),
        (depends(get_from_context, scope="run"), "context", "a context is that of one invocation"),
        (depends(get_from_context, scope="service"), "context", r'give the dependency `scope="call"`'),
        (depends(time.time), "?", "time.time: Python cannot tell its parameters.*Call it from a function of your own"),
        (depends(None), "x", r"`Depends\(\)` names nothing to call"),
    ],
)
def test_refused(function: Any, parameter: str, message: str) -> None:
    with pytest.raises(DependencyError, match=message) as caught:
        ArgumentPlan(function, ["foo"])
    assert caught.value.parameter == parameter
    assert caught.value.fix


def test_two_marks_on_one_parameter_are_refused() -> None:
    def function(x: Annotated[int, Depends(get_two)] = Depends(get_two)) -> None: ...

    with pytest.raises(DependencyError, match="two `Depends`"):
        ArgumentPlan(function)


def test_a_dependency_on_the_tasks_own_function_is_a_circle() -> None:
    def function(x: int) -> None: ...

    function.__annotations__["x"] = Annotated[int, Depends(function)]
    with pytest.raises(DependencyError, match="circle"):
        ArgumentPlan(function)


def test_an_input_that_cannot_be_a_parameter_says_so() -> None:
    with pytest.raises(DependencyError, match="Rename it to a Python name"):
        ArgumentPlan(lambda: 0, ["foo-bar"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scope": "worker"}, "the scopes are call, run, service"),
        ({"scope": "service", "use_cache": False}, "built once and shared"),
        ({"dependency": 3}, "give a function, a class or another callable"),
    ],
)
def test_a_mark_that_cannot_be_is_refused_where_it_is_made(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Depends(**{"dependency": get_two, **arguments})


def test_marks_are_values() -> None:
    assert Depends(get_two, scope="run") == Depends(get_two, scope="run")
    assert hash(Depends(get_two)) == hash(Depends(get_two))
    assert Depends(get_two) != Depends(get_two, scope="run")
