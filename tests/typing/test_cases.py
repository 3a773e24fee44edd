"""The public names have the types that users rely on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_what_users_write_type_checks() -> None:
    cases = ROOT / "tests" / "typing" / "cases.py"
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(cases)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_what_is_wrong_does_not_type_check(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from datamesh import IO\n\nasync def read(numbers: IO[int]) -> str:\n    return await numbers.first()\n"
    )
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", str(wrong)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert 'got "int", expected "str"' in checked.stdout
