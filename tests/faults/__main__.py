"""The faults: `python -m tests.faults [--short] [--seed N] [--only R1,R3 [--update]] [--no-write] [--soak N]`.

Starts its own servers and services, breaks them in every way that a small machine can, prints what they showed, row by
row, and writes `docs/reliability.md` when everything was run in full. Exits with 1 if a row failed.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.board import Budget, Figures, NotMeasured, Scenario, Size, discover
from tests.faults.report import Outcome, Result, line_of, page_of, summary_of, updated
from tests.faults.rows import ROWS

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_MOST_TOLD = 300


def play(scenario: Scenario, budget: Budget) -> list[Result]:
    """Run a scenario and fill its rows in."""
    first = scenario.rows[0].id
    figures, problem, is_measured = Figures(), "", True
    began = time.monotonic()
    try:
        figures = asyncio.run(within(scenario, budget))
    except NotMeasured as error:
        problem, is_measured = str(error), False
    except Exception as error:
        # Whatever it is, the other rows are to be measured too.
        logging.getLogger("tests.faults").exception("%s with seed %d", scenario.name, budget.seed)
        problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:_MOST_TOLD]
    seconds = time.monotonic() - began
    return [Result(row, figures.of(row.id, first), problem, is_measured, seconds) for row in scenario.rows]


async def within(scenario: Scenario, budget: Budget) -> Figures:
    """Run a scenario, but not for longer than it may take."""
    limit = scenario.seconds if budget.size is Size.FULL else scenario.seconds / 2
    try:
        async with asyncio.timeout(limit) as timer:
            return await scenario.run(budget)
    except TimeoutError as error:
        raise AssertionError(f"hung: not over within {limit:g} s") if timer.expired() else error from error


def measure(scenarios: dict[str, Scenario], budget: Budget, only: set[str]) -> Iterator[Result]:
    """Play the scenarios one after another; rows that none of them measures come at the end of their kind."""
    measured = {row.id for scenario in scenarios.values() for row in scenario.rows}
    extra = [row.id for scenario in scenarios.values() for row in scenario.rows if row.id not in ROWS]
    done: dict[str, Result] = {}
    for id in (*ROWS, *extra):
        if only and id not in only:
            continue
        if id not in done and id in measured:
            one = next(found for found in scenarios.values() if any(row.id == id for row in found.rows))
            if budget.size is Size.SHORT and not one.in_short:
                done |= {row.id: Result(row, (), "only in full", False) for row in one.rows}
            else:
                done |= {result.row.id: result for result in play(one, budget)}
        yield done.get(id) or Result(ROWS[id], (), ROWS[id].why_not or "no scenario measures it", False)


def run_all(scenarios: dict[str, Scenario], budget: Budget, only: set[str]) -> list[Result]:
    """Measure and print row by row."""
    results = []
    for result in measure(scenarios, budget, only):
        print(line_of(result, budget.seed), flush=True)
        results.append(result)
    print(summary_of(results), flush=True)
    return results


def soak(scenarios: dict[str, Scenario], budget: Budget, only: set[str], times: int) -> Result:
    """Run them all in short with other seeds, so many times, and count those that failed: R30."""
    began, failed = time.monotonic(), []
    for seed in range(budget.seed, budget.seed + times):
        print(f"--- seed {seed}")
        results = run_all(scenarios, Budget(Size.SHORT, seed), only)
        failed += [f"{result.row.id} with seed {seed}" for result in results if result.outcome is Outcome.FAIL]
    figures = Figures()
    figures.add("repetitions", times)
    figures.add("failures", len(failed), most=0)
    if failed:
        figures.add("such as", ", ".join(failed[:8]))
    return Result(ROWS["R30"], figures.all, seconds=time.monotonic() - began)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--short", action="store_true", help="less of everything, for CI; writes nothing")
    parser.add_argument("--seed", type=int, default=1, help="of all that chance decides")
    parser.add_argument("--only", default="", help="rows to run, separated by commas; writes nothing by itself")
    parser.add_argument("--update", action="store_true", help="with --only: put these rows into docs/reliability.md")
    parser.add_argument("--no-write", action="store_true", help="leave docs/reliability.md as it is")
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="run the short form with N seeds, for R30")
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    budget = Budget(Size.SHORT if chosen.short else Size.FULL, chosen.seed)
    only = set(filter(None, chosen.only.split(",")))
    scenarios = discover()
    began = time.monotonic()
    results = [] if chosen.soak and chosen.short else run_all(scenarios, budget, only)
    if chosen.soak:
        soaked = soak(scenarios, budget, only, chosen.soak)
        print(line_of(soaked, budget.seed))
        results = [soaked if result.row.id == "R30" else result for result in results] or [soaked]
    if not (chosen.short or only or chosen.no_write):
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        PAGE.write_text(page_of(results, budget, date=date, seconds=time.monotonic() - began), "utf-8")
    if chosen.update and only and not chosen.short:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        PAGE.write_text(updated(PAGE.read_text("utf-8"), [r for r in results if r.row.id in only], date=date), "utf-8")
    return int(any(result.outcome is Outcome.FAIL for result in results))


if __name__ == "__main__":
    sys.exit(main())
