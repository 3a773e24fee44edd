"""Overrides: fakes in the place of dependencies, for the length of a `with`."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest

from datamesh.depends.markers import Depends
from datamesh.depends.overrides import Overrides
from datamesh.depends.plan import ArgumentPlan
from datamesh.depends.scopes import RunScope, ServiceScope
from datamesh.errors import ConfigurationError, DependencyError

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def get_url() -> str:
    return "real"


def get_db(url: Annotated[str, Depends(get_url, scope="service")]) -> str:
    return f"db at {url}"


def get_user(db: Annotated[str, Depends(get_db, scope="service")]) -> str:
    return f"user in {db}"


@pytest.fixture
def overrides() -> Overrides:
    return Overrides()


@pytest.fixture
def run(overrides: Overrides) -> RunScope:
    return RunScope(ServiceScope(overrides))


def function(user: Annotated[str, Depends(get_user)]) -> None: ...


async def user_of(plan: ArgumentPlan, run: RunScope) -> Any:
    async with plan.solve(run) as arguments:
        return arguments["user"]


async def test_a_dependency_is_replaced_inside_the_block_only(overrides: Overrides, run: RunScope) -> None:
    plan = ArgumentPlan(function)
    with overrides.use({get_user: lambda: "fake"}):
        assert plan.solve_now(run) == {"user": "fake"}
    assert plan.solve_now(run) is None
    assert await user_of(plan, run) == "user in db at real"


async def test_a_value_that_lasts_is_neither_reused_under_an_override_nor_kept_after_it(
    overrides: Overrides, run: RunScope
) -> None:
    plan = ArgumentPlan(function)
    assert await user_of(plan, run) == "user in db at real"
    with overrides.use({get_url: lambda: "fake"}):
        assert await user_of(plan, run) == "user in db at fake"
    assert await user_of(plan, run) == "user in db at real"


async def test_a_replacement_may_be_of_another_form_and_have_dependencies(overrides: Overrides, run: RunScope) -> None:
    closed: list[str] = []

    async def fake_user(url: Annotated[str, Depends(get_url)]) -> AsyncIterator[str]:
        yield f"fake with {url}"
        closed.append("fake")

    with overrides.use({get_user: fake_user}):
        assert await user_of(ArgumentPlan(function), run) == "fake with real"
    assert closed == ["fake"]


async def test_a_replacement_may_build_on_what_it_replaces(overrides: Overrides, run: RunScope) -> None:
    def spied(user: Annotated[str, Depends(get_user)]) -> str:
        return f"spied {user}"

    with overrides.use({get_user: spied}):
        assert await user_of(ArgumentPlan(function), run) == "spied user in db at real"


async def test_the_inner_block_wins_and_the_outer_one_returns(overrides: Overrides, run: RunScope) -> None:
    plan = ArgumentPlan(function)
    with overrides.use({get_user: lambda: "outer"}):
        with overrides.use({get_user: lambda: "inner"}):
            assert plan.solve_now(run) == {"user": "inner"}
        assert plan.solve_now(run) == {"user": "outer"}


async def test_blocks_may_end_in_any_order(overrides: Overrides, run: RunScope) -> None:
    plan = ArgumentPlan(function)
    first, second = overrides.use({get_user: lambda: "first"}), overrides.use({get_user: lambda: "second"})
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert plan.solve_now(run) == {"user": "second"}
    second.__exit__(None, None, None)
    assert overrides.replaced == {}


def test_a_replacement_that_cannot_be_resolved_is_refused_at_once(overrides: Overrides) -> None:
    def fake(unknown: int) -> int:
        return unknown

    with pytest.raises(DependencyError, match=r"'unknown' of .*fake"), overrides.use({get_user: fake}):
        pass
    assert overrides.replaced == {}


def test_a_replacement_that_is_no_callable_is_refused(overrides: Overrides) -> None:
    with (
        pytest.raises(ConfigurationError, match="get_user cannot be overridden by 'fake'"),
        overrides.use({get_user: "fake"}),  # type: ignore[dict-item]
    ):
        pass


def test_a_replacement_that_does_not_fit_the_plans_is_refused_at_once() -> None:
    def get_request() -> str:
        return "request"

    def fake_db(request: Annotated[str, Depends(get_request)]) -> str:
        return request

    plan = ArgumentPlan(function)
    overrides = Overrides(plans=lambda: [plan])
    with pytest.raises(DependencyError, match="as long as the service"), overrides.use({get_db: fake_db}):
        pass
    assert plan.under(overrides) is plan


def test_a_plan_is_compiled_once_for_an_override(overrides: Overrides) -> None:
    plan = ArgumentPlan(function)
    with overrides.use({get_user: lambda: "fake"}):
        assert plan.under(overrides) is plan.under(overrides)
        assert plan.under(overrides) is not plan


async def test_what_a_replacement_alters_is_altered_at_every_depth_and_place(
    overrides: Overrides, run: RunScope
) -> None:
    def get_name(url: Annotated[str, Depends(get_url)]) -> str:
        return f"name of {url}"

    def fake_url(name: Annotated[str, Depends(get_name)]) -> str:
        return f"fake after {name}"

    def both(a: Annotated[str, Depends(get_url)], b: Annotated[str, Depends(get_name)]) -> None: ...

    with overrides.use({get_url: fake_url}):
        assert ArgumentPlan(both).solve_now(run) == {
            "a": "fake after name of real",
            "b": "name of fake after name of real",
        }


async def test_a_generator_built_under_an_override_is_cleaned_up(overrides: Overrides, run: RunScope) -> None:
    closed: list[str] = []

    def fake_db() -> Iterator[str]:
        yield "fake"
        closed.append("fake")

    with overrides.use({get_db: fake_db}):
        assert await user_of(ArgumentPlan(function), run) == "user in fake"
    await run.service.aclose()
    assert closed == ["fake"]
