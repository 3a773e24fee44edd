"""What `datamesh worker` may be told to serve."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from datamesh.cli.target import supervisor_of
from datamesh.errors import ConfigurationError
from datamesh.supervise.supervisor import Supervisor

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a module into the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write_module(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source, "utf-8")

    yield write_module
    for name in set(sys.modules) - before:
        del sys.modules[name]


SERVICE = """
from datamesh import Supervisor
supervisor = Supervisor(tasks=[], mesh="here")
made = Supervisor(tasks=[], mesh="there")
class Nested:
    inner = made
def make(): return made
def broken(): raise KeyError("a setting")
"""


@pytest.mark.parametrize(
    ("attribute", "mesh"), [("", "here"), (":supervisor", "here"), (":make", "there"), (":Nested.inner", "there")]
)
def test_a_supervisor_or_what_returns_one_is_served(write: Write, attribute: str, mesh: str) -> None:
    write("shop", SERVICE)
    found = supervisor_of(f"shop{attribute}")
    assert isinstance(found, Supervisor)
    assert found.settings.mesh == mesh


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nowhere:supervisor", "there is no module 'nowhere'"),
        ("shop.inner:supervisor", "there is no module 'shop.inner'"),
        ("shop:other", "there is no 'other' in the module; it has the supervisor supervisor, made"),
        ("shop:Nested.other", "there is no 'Nested.other'"),
        ("shop:SERVICE", "there is no 'SERVICE'"),
        ("shop:broken", "KeyError: 'a setting'"),
        ("shop:__name__", "is a str: name a Supervisor"),
        ("shop.py", "with dots"),
        ("./shop:supervisor", "with dots"),
        (":supervisor", "names no module"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(write: Write, target: str, said: str) -> None:
    write("shop", SERVICE)
    with pytest.raises(ConfigurationError) as caught:
        supervisor_of(target)
    assert said in str(caught.value)


def test_a_mistake_in_the_module_is_told_with_its_place(write: Write) -> None:
    write("wrong", "x = 1\ny = x / 0\n")
    with pytest.raises(ConfigurationError, match=r"cannot be imported: ZeroDivisionError.*wrong\.py:2"):
        supervisor_of("wrong")


def test_a_module_that_a_module_misses_is_named(write: Write) -> None:
    write("needy", "import not_installed_anywhere\n")
    with pytest.raises(
        ConfigurationError, match="'needy' cannot be imported: No module named 'not_installed_anywhere'"
    ):
        supervisor_of("needy")
