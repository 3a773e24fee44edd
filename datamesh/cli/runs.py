"""`datamesh runs`, `show` and `cancel`: what runs in a mesh."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from typing import Annotated, Any

import typer

from datamesh.cli.options import AsJson, Mesh, Url, onlooker
from datamesh.cli.tables import print_runs, print_status
from datamesh.model.run import RunStatus
from datamesh.supervise.runs import RunSummary, list_runs

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run.")]


def runs(
    limit: Annotated[int, typer.Option(min=1, help="Most runs to list.")] = 50,
    as_json: AsJson = False,
    url: Url = None,
    mesh: Mesh = None,
) -> None:
    """List the runs that go on or are still kept, the newest first."""

    async def look() -> tuple[list[RunSummary], str]:
        async with onlooker(url, mesh) as supervisor:
            return await list_runs(supervisor, limit=limit), f"mesh {supervisor.settings.mesh!r}, {supervisor.location}"

    found, where = asyncio.run(look())
    if as_json:
        print_json([dataclasses.asdict(run) for run in found])
    elif not found:
        typer.echo(f"no runs in {where}", err=True)
    else:
        print_runs(found, now=time.time())


def show(run: RunId, as_json: AsJson = False, url: Url = None, mesh: Mesh = None) -> None:
    """Show a run: what each task and each stream has, and what it waits for."""

    async def look() -> RunStatus:
        async with onlooker(url, mesh) as supervisor:
            return await (await supervisor.get_run(run)).status()

    _print_status(asyncio.run(look()), as_json)


def cancel(run: RunId, as_json: AsJson = False, url: Url = None, mesh: Mesh = None) -> None:
    """Cancel a run: running code is interrupted, readers get the error. A run that has ended stays as it is."""

    async def end() -> RunStatus:
        async with onlooker(url, mesh) as supervisor:
            return await (await supervisor.get_run(run)).cancel()

    status = asyncio.run(end())
    if as_json:
        print_json(dataclasses.asdict(status))
    else:
        typer.echo(f"run {status.id} of {status.flow} is {status.state}")


def _print_status(status: RunStatus, as_json: bool) -> None:
    if as_json:
        print_json(dataclasses.asdict(status))
    else:
        print_status(status, now=time.time())


def print_json(what: Any) -> None:
    """Print what a program reads."""
    json.dump(what, sys.stdout, indent=2)
    sys.stdout.write("\n")
