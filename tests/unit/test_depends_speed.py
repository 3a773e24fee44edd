"""What resolving costs: a figure that may be ten times worse on a busy machine, and not a hundred times."""

import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

from datamesh.depends.markers import Depends
from datamesh.depends.plan import ArgumentPlan
from datamesh.depends.scopes import RunScope, ServiceScope


def get_two() -> int:
    return 2


def get_double(two: Annotated[int, Depends(get_two)]) -> int:
    return two * 2


def function(foo: int, two: Annotated[int, Depends(get_two)], double: Annotated[int, Depends(get_double)]) -> int:
    return foo + two + double


def median_us(call: Callable[[], Any], *, rounds: int = 15, calls: int = 400) -> float:
    """Microseconds a call takes, over the median round."""
    durations = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        durations.append((time.perf_counter() - start) / calls * 1e6)
    return statistics.median(durations)


def test_two_dependencies_cost_a_few_microseconds() -> None:
    plan = ArgumentPlan(function, ["foo"])
    run = RunScope(ServiceScope())

    def resolved() -> int:
        arguments = plan.solve_now(run, None)
        assert arguments is not None
        return function(foo=1, **arguments)

    assert resolved() == 7
    cost = median_us(resolved) - median_us(lambda: function(foo=1, two=2, double=4))
    print(f"two dependencies: {cost:.2f} us a call over the bare function")
    assert cost < 25
