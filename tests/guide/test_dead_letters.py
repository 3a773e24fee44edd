"""The programs of the page on dead letters print what it says."""

from __future__ import annotations

from pathlib import Path

from tests.guide.test_docs import ROOT, commands, environment, run_all, text_of, write_files

PAGE = ROOT / "docs" / "dead-letters.md"


def test_the_programs_print_what_the_page_says(tmp_path: Path) -> None:
    write_files(PAGE, tmp_path)
    run_all(commands(text_of(PAGE)), tmp_path, environment())
