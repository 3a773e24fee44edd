"""Tables: runs and their status, for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from datamesh.model.run import RunState, RunStatus, TaskStatus
from datamesh.supervise.runs import RunSummary

_COLORS = {
    RunState.WAITING: "yellow",
    RunState.OPEN: "cyan",
    RunState.DONE: "green",
    RunState.FAILED: "red",
    RunState.CANCELLED: "magenta",
    RunState.TIMEOUT: "red",
}
_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_COUNTS = ("open", "done", "failed", "skipped", "dead", "cancelled", "retrying", "queued", "backlog")


def print_runs(runs: Sequence[RunSummary], *, now: float) -> None:
    """Print one line for each run.

    Args:
        runs: In the order to print.
        now: Seconds since the epoch.
    """
    rows = table("run", "flow", "state", ">age", ">took", ">open", ">done")
    for run in runs:
        took = span_text(run.ended - run.started) if run.ended is not None else ""
        age = span_text(now - run.started)
        rows.add_row(run.id, run.flow, _state(run.state), age, took, f"{run.open:,}", f"{run.done:,}")
    console().print(rows)


def print_status(status: RunStatus, *, now: float) -> None:
    """Print what is known of a run: its state, its tasks and its streams."""
    out = console()
    out.print(Text.assemble("run ", (status.id, "bold"), " of ", (status.flow, "bold"), " is ", _state(status.state)))
    out.print(f"  started {span_text(now - status.started)} ago{_took(status)}")
    if status.error:
        out.print(Text(f"  {status.error}", style="red"))
    if status.missing:
        out.print(
            Text(f"  waits for a service that implements {', '.join(status.missing)}", style="yellow"), soft_wrap=True
        )
    out.print()
    out.print(_tasks(status.tasks.values()))
    out.print()
    streams = table("stream", ">values", "state")
    for stream in status.streams.values():
        streams.add_row(stream.stream, f"{stream.values:,}", "closed" if stream.closed else "open")
    out.print(streams)


def span_text(seconds: float) -> str:
    """Return a time span in its largest unit: `0.42 s`, `31 s`, `5 min`, `2.5 h`, `3 d`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def table(*columns: str) -> Table:
    """Make a table without a frame; the names of columns of numbers begin with `>`."""
    made = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        right = column.startswith(">")
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=True)
    return made


def console(*, width: int = 200) -> Console:
    """Make what tables are printed with."""
    made = Console(highlight=False)
    # In a pipe or a file a line is as long as it needs to be: ids must not be cut.
    return made if made.is_terminal else Console(highlight=False, width=width)


def _tasks(tasks: Iterable[TaskStatus]) -> Table:
    rows = table("task", *(f">{name}" for name in _COUNTS), ">high", ">low", "")
    for task in tasks:
        # Who feeds a task that is full waits until it is down at its low mark.
        full = Text("full", style="yellow") if task.full else ""
        rows.add_row(
            task.task, *(f"{getattr(task, name):,}" for name in _COUNTS), f"{task.high:,}", f"{task.low:,}", full
        )
    return rows


def _took(status: RunStatus) -> str:
    return "" if status.ended is None else f", took {span_text(status.ended - status.started)}"


def _state(state: RunState) -> Text:
    return Text(state.value, style=_COLORS[state])
