"""One word, one meaning: words that say nothing are not in names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.house.source import PACKAGE, Function, lua_files, name_of, nodes, python_files, words_of

BANNED = {
    "common", "data", "handle", "handles", "handler", "handlers", "helper", "helpers", "info", "infos", "job", "jobs",
    "manager", "managers", "util", "utils",
}  # fmt: skip
NO_VERBS = {"do", "handle", "process"}
NO_ROOMS = {"base", "bases"}

ALLOWED = {
    "DataError": "an error about a value or its bytes; TamperedDataError is one",
    "DataLossError": "a loss of data is what the world calls it",
    "INFO": "a level of logging",
    "TamperedDataError": "a name of the public contract",
    "data_directory": "what the world calls the directory in which a server keeps its keys",
    "data_dir": "its argument and the variable in the environment, by the same name",
    "error_info": "a parameter of a method of pydantic that is overridden",
    "handle_invalid_for_json_schema": "a method of pydantic that is overridden",
    "process": "a method of logging.LoggerAdapter that is overridden",
}
"""Names that hold a banned word and why."""


def defined_names() -> Iterator[tuple[str, str, bool]]:
    """Yield where a name is given, the name, and whether it is a function's."""
    for path in python_files():
        for room in path.relative_to(PACKAGE).with_suffix("").parts:
            yield name_of(path), room, False
    for path, node in nodes():
        for name in names_given_by(node):
            yield f"{name_of(path)}:{getattr(node, 'lineno', 0)}", name, isinstance(node, Function)
    for path in lua_files():
        yield from names_in_lua(path)


def names_given_by(node: ast.AST) -> list[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.arg(arg=name) | ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
            return [name]
        case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
            return [name]
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            return [name]
    return []


def names_in_lua(path: Path) -> Iterator[tuple[str, str, bool]]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if found := re.search(r"\bfunction (\w+)", line):
            yield f"{name_of(path)}:{number}", found[1], True
        for names in re.findall(r"\b(?:local|for) (?!function\b)(\w+(?:, *\w+)*)", line):
            for name in names.split(","):
                yield f"{name_of(path)}:{number}", name.strip(), False


def offends(name: str, is_function: bool, is_room: bool) -> bool:
    words = words_of(name)
    return bool(
        BANNED.intersection(words)
        or (is_function and words and words[0] in NO_VERBS)
        or (is_room and NO_ROOMS.intersection(words))
    )


def offenders() -> dict[str, str]:
    """Where a name offends, and which."""
    return {
        f"{place} {name}": name
        for place, name, is_function in defined_names()
        if offends(name, is_function, ":" not in place)
    }


def test_names_say_something() -> None:
    assert not [place for place, name in offenders().items() if name not in ALLOWED]


def test_every_exception_is_still_needed() -> None:
    assert set(ALLOWED) <= set(offenders().values())


def test_a_worker_is_the_command_only() -> None:
    found = {place for place, name, _ in defined_names() if "worker" in words_of(name) or "workers" in words_of(name)}
    assert not {place for place in found if not place.startswith("datamesh/cli/")}
