"""The scripts say what they do, and speak the same words as the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from datamesh.model.run import RunState
from datamesh.store.frames import Status
from datamesh.store.script import SCRIPTS
from tests.house.source import lua_files

SHARED = ("state", "graph")
"""What is put in front of other scripts: it has no keys of its own."""
LABELS = ("Guarantee:", "KEYS ", "ARGV ", "Returns ")

every_script = pytest.mark.parametrize(
    "path", [path for path in lua_files() if path.stem not in SHARED], ids=lambda path: path.stem
)


def header(path: Path) -> list[str]:
    """The comment that the script opens with, without its dashes."""
    lines = path.read_text("utf-8").splitlines()
    end = next((at for at, line in enumerate(lines) if not line.startswith("--")), len(lines))
    return [line[2:].strip() for line in lines[:end]]


def section(path: Path, label: str) -> str:
    """What the header says under a label, up to the next one."""
    text, inside = [], False
    for line in header(path):
        if line.startswith(LABELS) or not line:
            inside = line.startswith(label)
        if inside:
            text.append(line)
    return " ".join(text).removeprefix(label).strip()


def body(path: Path) -> str:
    """The script without comments."""
    return "\n".join(re.sub(r"--.*", "", line) for line in path.read_text("utf-8").splitlines())


def replies(path: Path) -> set[str]:
    """Words that the script answers with: constants in capitals, in what it returns or adds to its reply."""
    answers = re.findall(r"\b(?:return|reply)\b(.*)", body(path))
    return {word for answer in answers for word in re.findall(r"(?<!call\()'([A-Z]{2,})'", answer)}


def states() -> set[str]:
    """Words that the scripts store as the state of a run, or compare it with."""
    patterns = (
        r"\bstate [~=]= '(\w+)'",
        r"\.ending(?:, [\w.]+)* = '(\w+)'",
        r"'HSET', [^,']+, 'state', '(\w+)'",
    )
    return {word for path in lua_files() for pattern in patterns for word in re.findall(pattern, body(path))}


def test_every_script_is_loaded() -> None:
    assert set(SCRIPTS) == {path.stem for path in lua_files()} - set(SHARED)


@every_script
def test_the_header_tells_the_purpose(path: Path) -> None:
    assert re.match(rf"{path.stem}: \w.+", header(path)[0])


@every_script
def test_the_header_tells_what_goes_in_and_out(path: Path) -> None:
    assert section(path, "KEYS ")
    assert section(path, "Returns ")
    assert bool(section(path, "ARGV ")) == ("ARGV" in body(path))


@every_script
def test_the_header_names_each_key(path: Path) -> None:
    named = section(path, "KEYS ").split(", ")
    used = {int(index) for index in re.findall(r"KEYS\[(\d+)\]", body(path))}
    fixed = [name for name in named if not name.startswith("then ")]
    assert used <= set(range(1, len(named) + 1))
    assert len(fixed) == max(used)


@every_script
def test_the_header_names_each_answer(path: Path) -> None:
    assert set(re.findall(r"\b[A-Z]{2,}\b", section(path, "Returns "))) == replies(path)


def test_the_status_of_an_item_has_the_words_of_settle() -> None:
    (settle,) = (path for path in lua_files() if path.stem == "settle")
    assert set(Status) == replies(settle)


def test_the_state_of_a_run_has_the_words_of_the_scripts() -> None:
    told_by_callers = {RunState.CANCELLED}  # an argument of `end`
    assert set(RunState) == states() | told_by_callers
    assert not states() & told_by_callers
