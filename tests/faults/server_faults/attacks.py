"""R28: what tests of their own show about attacks on the wire, about rights and about secrets, counted here."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from tests.faults.board import Budget, Figures, NotMeasured, scenario

_ROOT = Path(__file__).parents[3]
_PLACES = {
    "signing": "tests/unit/test_seal.py",
    "redaction": "tests/unit/test_redaction.py",
    "limits": "tests/unit/test_codec_limits.py",
    "failures": "tests/unit/test_codec_failure.py",
    "logs": "tests/unit/test_logs.py",
    "rights": "tests/mesh/test_acl.py",
    "wire": "tests/mesh/test_security.py",
}
_OPTIMISED = "signing"
"""Is run once more without assertions in the package, which must not be what it relies on."""


@scenario("R28", in_short=False)
async def attacks(budget: Budget) -> Figures:
    """Run the tests of each kind and add up what they say."""
    there = {name: place for name, place in _PLACES.items() if (_ROOT / place).exists()}
    if not there:
        raise NotMeasured("there are no tests of it")
    figures = Figures()
    passed, failed = await _run(there)
    for name in there:
        figures.add(name, passed[name], least=1)
    if missing := ", ".join(sorted(_PLACES.keys() - there.keys())):
        figures.add("without tests", missing)
    if _OPTIMISED in there:
        again, failed_again = await _run({_OPTIMISED: there[_OPTIMISED]}, "-O")
        figures.add(f"{_OPTIMISED} under -O", again[_OPTIMISED], least=1)
        failed += failed_again
    figures.add("failed", failed.total(), most=0)
    return figures


async def _run(places: Mapping[str, str], *options: str) -> tuple[Counter[str], Counter[str]]:
    """Run these files; returns how many of each have passed, and how many have not."""
    with tempfile.TemporaryDirectory() as directory:
        report = Path(directory) / "report.xml"
        process = await asyncio.create_subprocess_exec(
            sys.executable, *options, "-m", "pytest", "-q", "-n", "0", f"--junitxml={report}",
            "-W", "ignore::pytest.PytestConfigWarning", *places.values(),
            cwd=_ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await process.wait()
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    names = {place.removesuffix(".py").replace("/", "."): name for name, place in places.items()}
    passed, failed = Counter[str](), Counter[str]()
    for case in cases:
        name = names.get(case.attrib["classname"], "elsewhere")
        bad = case.find("failure") is not None or case.find("error") is not None
        if bad or case.find("skipped") is None:
            (failed if bad else passed)[name] += 1
    return passed, failed
