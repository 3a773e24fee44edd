"""Report: what the scenarios showed, as a table for a terminal and as a page of the documentation."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

from tests.faults.board import Budget, Figure
from tests.faults.rows import Row
from tests.servers import KINDS, program

_PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
_SOCKET = re.compile(r"/[\w./-]+\.sock")
"""Where a server of ours was; it says nothing to others."""
_INTRODUCTION = (
    "This page is written by `python -m tests.faults`, which starts its own servers and services, breaks them on",
    "purpose, and compares what functions ran with what readers read. It takes about twenty minutes on two cores; with",
    "`--short` a few minutes, and then it writes nothing. `--seed` repeats what chance decided, `--only R1,R3` runs",
    "some rows, and `--update` with it puts these into the page.",
    "",
    "The figures are those of one run on one machine. A row passes when all its figures are within the target; `(!)`",
    "marks those that are not. What was not measured says why. What is promised stands in",
    "[the protocol](protocol.md#what-is-guaranteed).",
)


class Outcome(StrEnum):
    """What a row came to."""

    PASS = "pass"
    FAIL = "fail"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Result:
    """One row, filled in.

    Attributes:
        row: What was asked.
        figures: What was measured.
        problem: Why it was not measured, or what went wrong beside the figures.
        is_measured: Whether anything was run.
        seconds: That the scenario took.
    """

    row: Row
    figures: Sequence[Figure] = ()
    problem: str = ""
    is_measured: bool = True
    seconds: float = 0.0

    @property
    def outcome(self) -> Outcome:
        if not self.is_measured:
            return Outcome.NOT_MEASURED
        is_met = not self.problem and all(figure.is_met for figure in self.figures)
        return Outcome.PASS if is_met else Outcome.FAIL

    @property
    def told(self) -> str:
        """Figures and problems in one line."""
        parts = [str(figure) for figure in self.figures]
        if self.problem:
            parts.append(self.problem)
        return ", ".join(parts)


def line_of(result: Result, seed: int) -> str:
    """One row for a terminal."""
    mark = {Outcome.PASS: "pass", Outcome.FAIL: "FAIL", Outcome.NOT_MEASURED: "  - "}[result.outcome]
    head = f"{result.row.id:4} {mark} {result.seconds:6.1f} s  seed {seed}  {result.row.title}"
    return f"{head}\n{'':23}target: {result.row.target}\n{'':23}{result.told}"


def summary_of(results: Iterable[Result]) -> str:
    """How many of which kind."""
    outcomes = [result.outcome for result in results]
    return ", ".join(f"{outcomes.count(kind)} {kind.value}" for kind in Outcome)


def page_of(results: Sequence[Result], budget: Budget, *, date: str, seconds: float) -> str:
    """The page `docs/reliability.md`."""
    facts = [f"| {name} | {value} |" for name, value in surroundings(budget, date, seconds)]
    lines = [
        "# Reliability, measured", "", *_INTRODUCTION, "",
        "| | |", "|---|---|", *facts, "",
        "| | what happens | target | figures | result | seconds |", "|---|---|---|---|---|---|", *map(_row, results),
        "",
        f"{summary_of(results)}.", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _row(result: Result) -> str:
    told = _SOCKET.sub("the server", result.told)
    cells = [result.row.id, result.row.title, result.row.target, told, result.outcome.value]
    shown = " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)
    return f"| {shown} | {result.seconds:.0f} |"


def updated(page: str, results: Sequence[Result], *, date: str) -> str:
    """The page with these rows measured again, and the counts that follow."""
    again = {result.row.id: _row(result) for result in results}
    lines = [again.get(line.split(" | ")[0].removeprefix("| "), line) for line in page.splitlines()]
    kinds = {
        kind.value: sum(f" | {kind.value} | " in line for line in lines if line.startswith("| ")) for kind in Outcome
    }
    counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    summary = next(at for at, line in enumerate(lines) if line.endswith(f"{Outcome.NOT_MEASURED.value}."))
    told = f"Measured again by themselves on {date}: {', '.join(again)}."
    return "\n".join([*lines[:summary], f"{counted}.", *lines[summary + 1 :], told, ""])


def surroundings(budget: Budget, date: str, seconds: float) -> list[tuple[str, str]]:
    """What the figures depend on."""
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("redis", "anyio", "hiredis"))
    project = tomllib.loads(_PYPROJECT.read_text("utf-8"))["project"]
    return [
        ("command", f"`python -m tests.faults --seed {budget.seed}`"),
        ("date", date),
        ("time", f"{seconds / 60:.0f} minutes"),
        ("datamesh", str(project["version"])),
        ("Python", platform.python_version()),
        ("packages", packages),
        *((kind, version) for kind in KINDS if (version := version_of(kind))),
        ("machine", f"{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()} {platform.release()}"),
    ]


def version_of(kind: str) -> str:
    """Version of a server, if it is here."""
    found = program(kind)
    if found is None:
        return ""
    told = subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
    return next((word.removeprefix("v=") for word in told.split() if word.startswith("v=")), told.strip())
