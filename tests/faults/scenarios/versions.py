"""Two versions of the package side by side: this one, and a copy whose protocol is one ahead."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import datamesh
import tests
from datamesh import RunState
from tests.faults import flows
from tests.faults.arena import Arena
from tests.faults.board import Budget, Figures, NotMeasured, scenario
from tests.faults.checks import numbers
from tests.faults.ledger import check

NAMES = ("split", "refine", "gather")
_VERSION = re.compile(r"^PROTOCOL = (\d+)$", re.MULTILINE)


@scenario("R23")
async def mixed(budget: Budget) -> Figures:
    count, figures = budget.of(full=4000, short=600, tiny=100), Figures()
    async with Arena(budget) as arena:
        folder = arena.folder / "next"
        next_version(folder)
        await arena.fleet.start(1, *NAMES, concurrency=20)
        other = arena.fleet.make(folder=str(folder))
        try:
            other.wait_until_ready()
        except AssertionError:
            refusal = "ProtocolMismatchError" in other.log()
            raise NotMeasured("this version refuses the next one") if refusal else AssertionError(other.log()) from None
        async with arena.asker() as asker:
            run = await asker.start_flow(flows.three_stages, inputs=numbers(count))
            values = [value async for value in run["kept"]]
            state = await arena.ended(run)
            status = await run.status()
        both = {line.pid for line in arena.ledger.lines("refine")}
        unfinished = sum(task.open for task in status.tasks.values())
        verdict = check(range(flows.PIECES * count), values, values, unfinished=unfinished)
        figures.add("values", count + flows.PIECES * count)
        figures.add("services of both versions that ran some", len(both), least=2)
        figures.add("lost or doubled", verdict.wrong, most=0)
        figures.add("dead or skipped", sum(t.dead + t.skipped for t in status.tasks.values()), most=0)
        figures.add("runs that did not end well", int(state is not RunState.DONE), most=0)
        await arena.audit(figures)
    return figures


def next_version(folder: Path) -> None:
    """Copy the package and its tests, and put its protocol one ahead."""
    package = Path(datamesh.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(package, folder / "datamesh", ignore=ignored)
    shutil.copytree(Path(tests.__path__[0]), folder / "tests", ignore=ignored)
    changed = 0
    for path in (folder / "datamesh" / "store").glob("*.py"):
        text = path.read_text("utf-8")
        newer, count = _VERSION.subn(lambda found: f"PROTOCOL = {int(found[1]) + 1}", text)
        path.write_text(newer, "utf-8")
        changed += count
    assert changed == 1, f"the version of the protocol stands in {changed} places"
