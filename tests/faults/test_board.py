"""The scoreboard works, and the quickest of its scenarios run in their smallest form.

The proof is `python -m tests.faults`, which takes longer.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.board import SCENARIOS, Budget, Figures, Size, discover
from tests.faults.ledger import Ledger, Pen, check
from tests.faults.report import Outcome, Result, page_of
from tests.faults.rows import ROWS

pytestmark = [pytest.mark.anyio]
QUICK = ("R1", "R4", "R9", "R21", "R24")


@pytest.mark.redis
@pytest.mark.slow
@pytest.mark.timeout(90)
@pytest.mark.parametrize("row", QUICK)
async def test_a_scenario_in_its_smallest_form(row: str) -> None:
    found = discover()[row]
    figures = await found.run(Budget(Size.TINY, seed=1))
    assert figures.of(row, row)
    assert not [str(figure) for figure in figures.all if not figure.is_met]


def test_every_row_has_a_scenario_or_a_reason() -> None:
    measured = {row.id for found in discover().values() for row in found.rows}
    assert not [id for id, row in ROWS.items() if id not in measured and not row.why_not]


def test_rows_are_measured_once() -> None:
    rows = [row.id for found in SCENARIOS.values() for row in found.rows]
    assert len(rows) == len(set(rows))


def test_chance_is_repeated_by_its_seed() -> None:
    assert Budget(seed=3).chance("a").random() == Budget(seed=3).chance("a").random()
    assert Budget(seed=3).chance("a").random() != Budget(seed=3).chance("b").random()
    assert Budget(seed=3).chance("a").random() != Budget(seed=4).chance("a").random()


# ------------------------------------------------------------------------------------------------------ the ledger


def test_what_functions_note_is_read_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    pen = Pen(str(ledger.path))
    pen.note("a", 1)
    pen.note("a", 1, attempt=2)
    pen.note("b", 1)
    assert ledger.executions("a") == {("a", 1): 2}
    assert [line.attempt for line in ledger.lines()] == [1, 2, 1]


def test_nothing_is_noted_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATAMESH_TEST_LEDGER", raising=False)
    Pen().note("a", 1)


@pytest.mark.parametrize(
    ("name", "first", "again"),
    [
        ("lost", [1, 2], [1, 2]),
        ("doubled", [1, 2, 2, 3], [1, 2, 2, 3]),
        ("doubled", [1, 2, 2, 3], [1, 2, 3]),
        ("phantom", [1, 2, 3, 4], [1, 2, 3, 4]),
        ("early", [1, 2], [1, 2, 3]),
    ],
)
def test_the_check_finds(name: str, first: list[int], again: list[int]) -> None:
    verdict = check([1, 2, 3], first, again)
    assert getattr(verdict, name) == 1
    assert verdict.wrong == 1
    assert not check([1, 2, 3], [3, 2, 1], [1, 2, 3]).wrong


def test_the_check_finds_values_that_no_function_ran() -> None:
    assert check([1, 2], [1, 2], [1, 2], ran={1: 1}, wanted=[1, 2]).unheard == 1


# ------------------------------------------------------------------------------------------------------ the report


def test_a_row_passes_when_all_its_figures_are_within_their_limits() -> None:
    figures = Figures()
    figures.add("kills", 40, least=40)
    figures.add("lost", 0, most=0)
    assert Result(ROWS["R1"], figures.all).outcome is Outcome.PASS
    figures.add("doubled", 1, most=0)
    assert Result(ROWS["R1"], figures.all).outcome is Outcome.FAIL
    assert Result(ROWS["R1"], (), "no time", is_measured=False).outcome is Outcome.NOT_MEASURED
    assert Result(ROWS["R1"], (), "it broke").outcome is Outcome.FAIL


def test_figures_belong_to_the_first_row_unless_they_name_one() -> None:
    figures = Figures()
    figures.add("kills", 40)
    figures.add("for each value", 1.01, row="R2")
    assert [figure.name for figure in figures.of("R1", "R1")] == ["kills"]
    assert [figure.name for figure in figures.of("R2", "R1")] == ["for each value"]


def test_the_page_has_a_line_for_each_row() -> None:
    results = [Result(row, (), "a | b", is_measured=False) for row in ROWS.values()]
    page = page_of(results, Budget(seed=7), date="2030-01-01", seconds=600)
    assert page.count("\n| R") == len(ROWS)
    assert "--seed 7" in page
    assert r"a \| b" in page
