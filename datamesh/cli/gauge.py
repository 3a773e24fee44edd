"""Gauge: how far a reading is, while it goes on: a bar on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from datamesh.demo.asking import Reading

_REDRAW = 0.1
_LINE_EVERY = 2.0
"""Seconds between two updates of the bar, and two plain lines."""

Show = Callable[[Reading], None]


@contextmanager
def gauge(title: str) -> Iterator[Show]:
    """Print what is about to happen; give a function to call with each value, which shows how far it is."""
    console = Console(stderr=True, highlight=False)
    console.print(title, soft_wrap=True, markup=False)
    if not console.is_terminal:
        yield _seldom(lambda reading: console.print(facts(reading), soft_wrap=True, markup=False), _LINE_EVERY)
        return
    columns = (BarColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        bar = progress.add_task("waiting for the services", total=None)
        progress.refresh()

        def draw(reading: Reading) -> None:
            finished = reading.read + len(reading.skipped)
            progress.update(bar, description=facts(reading), completed=finished, total=reading.files, refresh=True)

        yield _seldom(draw, _REDRAW)


def facts(reading: Reading) -> str:
    """Return one line: files, passages, values per second."""
    finished = reading.read + len(reading.skipped)
    return (
        f"{finished:,}/{reading.files:,} files, {len(reading.index):,} passages, "
        f"{reading.values:,} values, {reading.rate:,.0f} values/s"
    )


def tell_missing(refs: Sequence[str]) -> None:
    """Print what the run waits for."""
    typer.echo(f"waiting for a service that implements {', '.join(refs)}", err=True)


def _seldom(show: Show, pause: float) -> Show:
    due = time.monotonic() + pause

    def when_due(reading: Reading) -> None:
        nonlocal due
        if time.monotonic() >= due:
            show(reading)
            due = time.monotonic() + pause

    return when_due
