"""Annotations that are text, as `from __future__ import annotations` makes all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import pytest

from datamesh.depends.annotations import agree, type_text
from datamesh.depends.context import Context
from datamesh.depends.markers import Depends
from datamesh.depends.plan import ArgumentPlan
from datamesh.depends.scopes import RunScope, ServiceScope
from datamesh.errors import DependencyError

if TYPE_CHECKING:
    from decimal import Decimal


def get_two() -> int:
    return 2


Two = Annotated[int, Depends(get_two)]


@dataclass
class Settings:
    two: Two
    name: str = "settings"


def solved(function: Callable[..., Any]) -> dict[str, Any] | None:
    return ArgumentPlan(function).solve_now(RunScope(ServiceScope()), Context(run_id="r", task="t"))


def test_text_resolves_in_the_module() -> None:
    def function(x: Two, y: Annotated[int, Depends(get_two)], settings: Annotated[Settings, Depends()]) -> None: ...

    assert solved(function) == {"x": 2, "y": 2, "settings": Settings(2)}


def test_text_may_name_what_is_local_to_the_enclosing_functions() -> None:
    def get_local() -> str:
        return "local"

    class Local:
        def __init__(self, text: Annotated[str, Depends(get_local)]) -> None:
            self.text = text

    def inner() -> dict[str, Any] | None:
        def function(x: Annotated[str, Depends(get_local)], y: Annotated[Local, Depends()], c: Context) -> None: ...

        return solved(function)

    arguments = inner()
    assert arguments is not None
    assert arguments["x"] == "local"
    assert arguments["y"].text == "local"
    assert arguments["c"].task == "t"


def test_text_may_name_what_the_function_closes_over_when_the_definition_is_over() -> None:
    def define() -> Callable[..., Any]:
        def get_kept() -> str:
            return "kept"

        def function(x: Annotated[str, Depends(get_kept)]) -> Any:
            return get_kept

        return function

    assert solved(define()) == {"x": "kept"}


def test_text_that_does_not_resolve_is_refused_by_name() -> None:
    def function(x: Two, price: Decimal = 0) -> None: ...  # type: ignore[assignment]

    with pytest.raises(
        DependencyError, match=r"'price' of .*function: its annotation 'Decimal'.*TYPE_CHECKING"
    ) as caught:
        ArgumentPlan(function)
    assert caught.value.parameter == "price"


def test_text_of_a_dependency_that_does_not_resolve_names_the_dependency() -> None:
    def get_price(price: Decimal) -> Decimal:
        return price

    with pytest.raises(DependencyError, match=r"'price' of .*get_price"):
        ArgumentPlan(lambda x=Depends(get_price): x)


def test_what_a_dependency_returns_is_not_read() -> None:
    def get_price() -> Decimal:
        return 3  # type: ignore[return-value]

    assert solved(lambda x=Depends(get_price): x) == {"x": 3}


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (None, "None"),
        (int | None, "int | None"),
        (list[int | str], "list[int | str]"),
        (Annotated[int, "x"], "int"),
        (Any, "Any"),
        (Settings, f"{__name__}.Settings"),
        ("Decimal", "Decimal"),
    ],
)
def test_types_are_written_as_a_person_would(annotation: Any, text: str) -> None:
    assert type_text(annotation) == text


def test_annotations_agree_when_equal_or_when_one_says_nothing() -> None:
    assert agree(int, Annotated[int, "x"])
    assert agree(Any, str)
    assert agree(str, Any)
    assert not agree(int, str)
