"""The command `datamesh`. Exit codes: 0 done, 1 an error (one line says which), 2 wrong usage, 130 interrupted."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

import typer
from rich.console import Console

from datamesh.cli import dead, demo, runs, worker
from datamesh.errors import DatameshError
from datamesh.model.redaction import printable

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="datamesh",
    help="Run tasks of a datamesh, and look at what runs in it.",
    epilog="Exit codes: 0 done, 1 an error (one line says which), 2 wrong usage, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("worker")(worker.worker)
app.command("runs")(runs.runs)
app.command("show")(runs.show)
app.command("cancel")(runs.cancel)
app.add_typer(dead.app, name="dead")
app.command("demo")(demo.demo)


@app.command("version")
def print_version() -> None:
    """Print the version of datamesh and of the Python that runs it."""
    try:
        number = version("datamesh")
    except PackageNotFoundError:
        number = "(not installed: run from its source)"
    typer.echo(f"datamesh {number}, Python {sys.version.partition(' ')[0]}")


def main() -> None:
    """Run the command line; an error of datamesh ends it with one line instead of a traceback."""
    try:
        app()
    except DatameshError as error:
        Console(stderr=True).print(
            "error:", printable(str(error)), style="red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(EXIT_ERROR)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(EXIT_INTERRUPTED)
