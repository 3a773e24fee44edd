"""Every example does what its docstring says."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

from tests.mesh.commands import ROOT, new_mesh, python

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
CONTRACT = "0\n2\n4\n6\n8\n"


def promised(example: Path) -> str:
    """What stands behind `Prints:` in the docstring; the first program has none, for it is the contract's text."""
    docstring = ast.get_docstring(ast.parse(example.read_text("utf-8")))
    if docstring is None:
        assert example.stem == "first_program"
        return CONTRACT
    _, found, printed = docstring.partition("Prints:\n")
    assert found, f"{example.name} does not say what it prints"
    return textwrap.dedent(printed).rstrip() + "\n"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_prints_what_it_promises(example: Path) -> None:
    done = python(example, mesh=new_mesh())
    assert (done.returncode, done.stdout) == (0, promised(example)), done.stderr
    assert "Traceback" not in done.stderr


def test_the_tests_of_the_example_on_unit_tests_are_tests() -> None:
    options = ("-q", "-n", "0", "-p", "anyio", "-o", "anyio_mode=auto", "-o", "addopts=", "--no-header")
    done = python("-m", "pytest", *options, ROOT / "examples" / "unit_testing.py", mesh=new_mesh())
    assert "2 passed" in done.stdout, done.stdout
