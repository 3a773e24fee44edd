"""Answer: what a reading found, for people."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from textwrap import dedent, indent

from rich.console import Console
from rich.text import Text

from datamesh.demo.asking import Reading
from datamesh.demo.search import Hit
from datamesh.demo.text import words
from datamesh.errors import ConfigurationError

_SHOWN_SKIPPED = 5
_LONGEST = 240
"""Characters of a line that are shown."""
_TASKS = ("read", "split", "count")
_WORD = re.compile(r"[^\W_]+")


class Answer:
    """Prints the summary of a reading and the best passages for a question.

    Args:
        question: The words to look for.
        hits: Most passages to print.
        shown_from: Folder that paths are shown relative to, where they are under it.
    """

    def __init__(self, question: str, hits: int, *, shown_from: Path) -> None:
        self._question = question
        self._hits = hits
        self._shown_from = shown_from
        console = Console(highlight=False)
        self._console = console if console.is_terminal else Console(highlight=False, width=200)

    def show(self, reading: Reading) -> None:
        """Print all of it.

        Raises:
            ConfigurationError: There was nothing to search, since every file was skipped.
        """
        self._show_work(reading)
        self._show_skipped(reading)
        if not len(reading.index):
            raise ConfigurationError(
                f"there is nothing to search: of {reading.files:,} files, {len(reading.skipped):,} were skipped "
                f"and {reading.read:,} are empty"
            )
        self._show_hits(reading.index.search(self._question, limit=self._hits))

    def _show_work(self, reading: Reading) -> None:
        self._line(
            f"{reading.read:,} files ({reading.size_bytes / 1e6:,.1f} MB), {len(reading.index):,} passages, "
            f"{reading.index.terms:,} different words in {reading.seconds:.1f} s"
        )
        self._line(
            f"{reading.values:,} values, {reading.rate:,.0f} values/s with the start of the services; "
            f"the first result came after {reading.first or 0.0:.2f} s"
        )
        for service, count in sorted(reading.handled.items()):
            tasks = ", ".join(f"{task} {count[task]:,}" for task in _TASKS)
            self._line(f"  {service} handled {count.total():,} values: {tasks}")

    def _show_skipped(self, reading: Reading) -> None:
        if not reading.skipped:
            return
        reasons = Counter(skipped.reason for skipped in reading.skipped)
        self._line(
            f"{len(reading.skipped):,} skipped: {', '.join(f'{reason} {n:,}' for reason, n in reasons.most_common())}"
        )
        for skipped in sorted(reading.skipped, key=lambda skipped: skipped.path)[:_SHOWN_SKIPPED]:
            self._line(f"  {self._shown(skipped.path)} {skipped.reason}")
        if len(reading.skipped) > _SHOWN_SKIPPED:
            self._line(f"  and {len(reading.skipped) - _SHOWN_SKIPPED:,} more")

    def _show_hits(self, hits: list[Hit]) -> None:
        asked = set(words(self._question))
        self._line("")
        if not hits:
            self._line(f"no passage has any of the words {self._question!r}")
        for hit in hits:
            place = f"{self._shown(hit.path)}:{hit.line}"
            self._console.print(Text.assemble((place, "bold"), (f"  {hit.score:.1f}", "dim")), soft_wrap=True)
            self._console.print(_marked(hit.excerpt, asked), soft_wrap=True)
            self._line("")

    def _shown(self, path: str) -> str:
        inside = Path(path).is_relative_to(self._shown_from)
        return os.path.relpath(path, self._shown_from) if inside else path

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _marked(excerpt: str, asked: set[str]) -> Text:
    """The excerpt, indented, its control characters gone, with the words that were asked for in bold."""
    clean = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in excerpt.expandtabs(4))
    clean = "\n".join(_cropped(line, asked) for line in clean.split("\n"))
    text = Text(indent(dedent(clean), "    "))
    for found in _WORD.finditer(text.plain):
        if asked.intersection(words(found.group())):
            text.stylize("bold green", found.start(), found.end())
    return text


def _cropped(line: str, asked: set[str]) -> str:
    """A line, or of a very long one what stands around the first word that was asked for."""
    if len(line) <= _LONGEST:
        return line
    found = (match.start() for match in _WORD.finditer(line) if asked.intersection(words(match.group())))
    start = max(0, next(found, 0) - _LONGEST // 3)
    end = start + _LONGEST
    return f"{'…' if start else ''}{line[start:end]}{'…' if end < len(line) else ''}"
