"""The board: scenarios that break things on purpose, registered by the rows that they measure.

A scenario is an asynchronous function in a module of `tests/faults/scenarios/` or `tests/faults/server_faults/`; these
are found by themselves. It starts what it needs, measures, and returns figures; those with a limit pass or fail:

    @scenario("R10")
    async def restarts(budget: Budget) -> Figures:
        cycles = budget.of(full=20, short=3, tiny=1)
        chance = budget.chance("restarts")          # a random.Random that `--seed` repeats
        ...
        figures = Figures()
        figures.add("cycles", cycles, least=cycles) # has to be reached
        figures.add("lost", lost, most=0)           # must not be exceeded
        figures.add("stall", "1.2 s")               # only told
        return figures

One function may measure several rows: `@scenario("R1", "R2")`, and `figures.add(..., row="R2")` for those of the
second; without `row` a figure belongs to the first. A row of one's own needs words: `@scenario("X1", title=...,
target=...)`.
`in_short=False` leaves it out of `--short`. Where something is missing, `raise NotMeasured("why")`. An exception is a
failure, with its text; `seconds` is the time after which a scenario counts as hung (in full; a half of it in short).
Scenarios run one after another, in the order of their rows.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

from tests.faults.rows import ROWS, Row

T = TypeVar("T")
_PLACES = ("tests.faults.scenarios", "tests.faults.server_faults")


class Size(Enum):
    """How much of a scenario is run: all of it, what fits into CI, or just enough to see that it works."""

    FULL = "full"
    SHORT = "short"
    TINY = "tiny"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a scenario may spend.

    Attributes:
        size: How much of it is run.
        seed: Of everything that chance decides.
    """

    size: Size = Size.FULL
    seed: int = 1

    def of(self, *, full: T, short: T, tiny: T) -> T:
        """Choose by size."""
        return {Size.FULL: full, Size.SHORT: short, Size.TINY: tiny}[self.size]

    def chance(self, name: str) -> random.Random:
        """Chance that the seed repeats; another name is another sequence."""
        return random.Random(f"{self.seed}:{name}")


class NotMeasured(Exception):
    """A scenario cannot be run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that was measured, and the limits that it was held to."""

    row: str
    name: str
    value: float | int | str
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether it is within its limits; a text has none."""
        if isinstance(self.value, str):
            return True
        return (self.least is None or self.value >= self.least) and (self.most is None or self.value <= self.most)

    def __str__(self) -> str:
        value = self.value
        text = f"{value:,}" if isinstance(value, int) else value if isinstance(value, str) else f"{value:.4g}"
        return f"{self.name} {text}" + ("" if self.is_met else " (!)")


@dataclass(slots=True)
class Figures:
    """What a scenario measured."""

    all: list[Figure] = field(default_factory=list)

    def add(
        self, name: str, value: float | int | str, *, least: float | None = None, most: float | None = None,
        row: str = "",
    ) -> None:  # fmt: skip
        """Note a figure.

        Args:
            name: What it is, in a word or two, with its unit.
            value: What was measured.
            least: Below it the row fails.
            most: Above it the row fails.
            row: Where it belongs; the scenario's first row if left out.
        """
        self.all.append(Figure(row, name, value, least, most))

    def of(self, row: str, first: str) -> list[Figure]:
        """Figures of one row of a scenario whose first row is `first`."""
        return [figure for figure in self.all if (figure.row or first) == row]


Run = Callable[[Budget], Awaitable[Figures]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A function that measures rows.

    Attributes:
        rows: What it measures; figures that name no row belong to the first.
        run: The function.
        in_short: Whether `--short` runs it.
        seconds: After which it counts as hung.
    """

    rows: tuple[Row, ...]
    run: Run
    in_short: bool = True
    seconds: float = 150.0

    @property
    def name(self) -> str:
        return getattr(self.run, "__name__", repr(self.run))


SCENARIOS: dict[str, Scenario] = {}
"""By their first row."""


def scenario(
    *ids: str, title: str = "", target: str = "", in_short: bool = True, seconds: float = 150.0
) -> Callable[[Run], Run]:
    """Register a function for the rows that it measures; see the top of this file."""
    own = (Row(ids[0], title, target),) if title else ()
    rows = own + tuple(ROWS[id] for id in ids[len(own) :])

    def register(run: Run) -> Run:
        known = SCENARIOS.get(ids[0])
        assert known is None or known.run.__module__ == run.__module__, f"{ids[0]} is measured by {known} already"
        SCENARIOS[ids[0]] = Scenario(rows, run, in_short, seconds)
        return run

    return register


def discover() -> dict[str, Scenario]:
    """Import all modules that hold scenarios, and return what they registered, in the order of their rows."""
    for name in _modules():
        importlib.import_module(name)
    return dict(sorted(SCENARIOS.items(), key=lambda item: _order(item[0])))


def _modules() -> Iterator[str]:
    for place in _PLACES:
        try:
            package = importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name != place:
                raise
            continue
        for found in pkgutil.iter_modules(package.__path__, f"{place}."):
            if not found.name.rpartition(".")[2].startswith(("test_", "conftest")):
                yield found.name


def _order(row: str) -> tuple[str, int]:
    return row.rstrip("0123456789"), int("0" + "".join(filter(str.isdigit, row)))
