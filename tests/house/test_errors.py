"""The tree of errors: complete as drawn, public, and built from facts."""

from __future__ import annotations

import builtins
import inspect
import re
from typing import Any

import pytest

import datamesh
from datamesh import errors

CLASSES = [
    thing
    for thing in vars(errors).values()
    if isinstance(thing, type) and issubclass(thing, Exception) and thing.__module__ == errors.__name__
]
LINE = re.compile(r"(?P<trunk>(?:│   |    )*)(?P<branch>├── |└── )?(?P<name>[A-Z]\w+Error)(?: {2,}(?P<text>\S.*))?")


def drawn_tree() -> dict[str, str | None]:
    """Read the tree at the top of the module: the name of each error and that of its parent."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := LINE.fullmatch(line):
            del path[len(found["trunk"]) // 4 + bool(found["branch"]) :]
            assert found["name"] not in parents, f"{found['name']} is drawn twice"
            parents[found["name"]] = path[-1] if path else None
            path.append(found["name"])
    return parents


def test_the_tree_is_drawn_as_it_is() -> None:
    actual = {cls.__name__: base.__name__ for cls in CLASSES if (base := cls.__base__) is not None}
    assert drawn_tree() == {**actual, "DatameshError": None}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_is_explained_where_it_is_drawn(cls: type[Exception]) -> None:
    if cls is not errors.DatameshError:
        assert re.search(rf"── {cls.__name__} +\S", errors.__doc__ or ""), "the tree has no text for it"
    assert cls.__dict__.get("__doc__"), "the class has no docstring of its own"


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_is_public(cls: type[Exception]) -> None:
    assert cls.__name__ in datamesh.__all__
    assert getattr(datamesh, cls.__name__) is cls


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_an_error_has_a_name_of_its_own(cls: type[Exception]) -> None:
    assert cls.__name__.endswith("Error")
    assert not hasattr(builtins, cls.__name__), "`except` would catch the builtin where this one is not imported"


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if "__init__" in vars(cls)], ids=lambda cls: cls.__name__)
def test_an_error_carries_its_facts(cls: type[Exception]) -> None:
    parameters = inspect.signature(cls).parameters
    assert {p.kind for p in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    facts = {name: sample(p.annotation) for name, p in parameters.items()}
    error = cls(**facts)
    assert {name: getattr(error, name) for name in facts} == facts
    assert str(error)


def sample(annotation: str) -> Any:
    """Make a value of the type that the annotation names."""
    if "Sequence" in annotation or "Iterable" in annotation:
        return (("a", "b"), ("c", "d")) if "Sequence[Sequence" in annotation else ("ab", "cd")
    return 2 if annotation.startswith("int") else "ab"
