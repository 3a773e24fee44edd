"""Letters: dead letters, as people and programs read them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.pretty import pretty_repr
from rich.text import Text

from datamesh.cli.tables import console, span_text, table
from datamesh.errors import DatameshError
from datamesh.supervise.letter import DeadLetter

_WIDTH = 320
_ERROR_CHARACTERS = 100
_SHOWN_VALUES = 5
_SHOWN_LINES = 40
_DEEPEST = 64
_FACTS = (
    "id", "run_id", "flow", "task", "attempt", "time", "values", "lineages", "size_bytes", "error", "error_type",
)  # fmt: skip


def print_letters(letters: Sequence[DeadLetter], *, now: float) -> None:
    """Print one line for each letter.

    Args:
        letters: In the order to print.
        now: Seconds since the epoch.
    """
    rows = table("id", ">age", "run", "task", ">attempt", ">values")
    rows.add_column("error", overflow="fold")  # What has to be short gives way to what must not be cut.
    for letter in letters:
        rows.add_row(
            letter.id, span_text(now - letter.time), letter.run_id, Text(letter.task), str(letter.attempt),
            f"{letter.values:,}", Text(_cut(_brief(letter))),
        )  # fmt: skip
    console(width=_WIDTH).print(rows)


def print_letter(letter: DeadLetter) -> None:
    """Print a letter: whose it is, why it was buried, and its values, each cut to what fits on a page."""
    out = console()
    out.print(Text.assemble("dead letter ", (letter.id, "bold"), f" of {time_text(letter.time)}"))
    if letter.run_id:
        out.print(Text(f"  run {letter.run_id} of {letter.flow}, task {letter.task}, attempt {letter.attempt}"))
    else:
        out.print(Text(f"  of task {letter.task}; it is not known of which run"))
    if letter.service:
        out.print(Text(f"  last tried by {letter.service}"))
    out.print(Text(f"  {letter.error}", style="red"), soft_wrap=True)
    if letter.remote_traceback:
        out.print()
        out.print(Text(letter.remote_traceback.rstrip(), style="dim"), soft_wrap=True)
    out.print()
    for line in _content_lines(letter):
        out.print(Text(line), soft_wrap=True)


def letter_row(letter: DeadLetter, *, whole: bool = False) -> dict[str, Any]:
    """Return a letter as JSON has it; `whole` adds the traceback and the values."""
    row: dict[str, Any] = {name: getattr(letter, name) for name in _FACTS}
    if not whole:
        return row
    row |= {"service": letter.service, "remote_traceback": letter.remote_traceback}
    try:
        return row | {"content": [plain(value) for value in letter.content()], "content_problem": ""}
    except DatameshError as error:
        return row | {"content": None, "content_problem": str(error)}


def plain(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON can have it; what has no such form stands as its text."""
    if value is None or isinstance(value, (bool, int, str)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if depth < _DEEPEST and isinstance(value, Mapping):
        return {str(key): plain(part, depth + 1) for key, part in value.items()}
    if depth < _DEEPEST and isinstance(value, (list, tuple)):
        return [plain(part, depth + 1) for part in value]
    return repr(value)


def time_text(seconds: float) -> str:
    """Return a moment in UTC, to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _content_lines(letter: DeadLetter) -> list[str]:
    try:
        values = letter.content()
    except DatameshError as error:
        return [f"its values cannot be shown: {error}"]
    if not values:
        return [f"no values: the task takes whole streams, or none could be read ({letter.size_bytes:,} bytes)"]
    lines = []
    for place, value in enumerate(values[:_SHOWN_VALUES]):
        lineage = letter.lineages[place] if place < len(letter.lineages) else ()
        lines += [f"value {place} of {len(values)}, lineage {lineage}:", *_value_lines(value)]
    if len(values) > _SHOWN_VALUES:
        lines.append(f"and {len(values) - _SHOWN_VALUES:,} more")
    return lines


def _value_lines(value: Any) -> list[str]:
    found = pretty_repr(value, max_width=100, max_length=30, max_string=400, max_depth=6).splitlines()
    more = [f"[{len(found) - _SHOWN_LINES:,} more lines]"] if len(found) > _SHOWN_LINES else []
    return [f"    {line}" for line in (*found[:_SHOWN_LINES], *more)]


def _brief(letter: DeadLetter) -> str:
    """The error without what stands in other columns."""
    _, _, text = letter.error.partition(": ")
    return text if letter.error_type and text else letter.error


def _cut(text: str) -> str:
    return text if len(text) <= _ERROR_CHARACTERS else text[: _ERROR_CHARACTERS - 1] + "…"
