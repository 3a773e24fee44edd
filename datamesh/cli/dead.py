"""`datamesh dead`: values that were given up: list them, look at one, send them again, drop them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import typer

from datamesh.cli.letters import letter_row, print_letter, print_letters
from datamesh.cli.options import AsJson, Mesh, Url, onlooker
from datamesh.cli.runs import print_json
from datamesh.errors import ConfigurationError, DatameshError, DeadLetterError
from datamesh.supervise.dead import DeadLetters
from datamesh.supervise.letter import DeadLetter
from datamesh.supervise.redrive import Redrive

Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids, as `datamesh dead ls` prints them.")]
Every = Annotated[bool, typer.Option("--all", help="All that there are now, or all of --run and --task.")]
OfRun = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Those of this run alone.")]
OfTask = Annotated[str | None, typer.Option("--task", metavar="TASK", help="Those of this task alone.")]

app = typer.Typer(
    help="Values that were given up: list them, look at one, send them again, drop them.", no_args_is_help=True
)


@app.command("ls")
def ls(
    run: OfRun = None,
    task: OfTask = None,
    limit: Annotated[int, typer.Option(min=1, help="Most letters to list.")] = 50,
    as_json: AsJson = False,
    url: Url = None,
    mesh: Mesh = None,
) -> None:
    """List the dead letters, the newest first."""

    async def look() -> tuple[list[DeadLetter], str]:
        async with _letters(url, mesh) as (dead, where):
            return await dead.list(run_id=run, task=task, limit=limit), where

    found, where = asyncio.run(look())
    if as_json:
        print_json([letter_row(letter) for letter in found])
    elif not found:
        typer.echo(f"no dead letters in {where}", err=True)
    else:
        print_letters(found, now=time.time())


@app.command("show")
def show(
    id: Annotated[str, typer.Argument(metavar="ID", help="Id of the letter.")],
    as_json: AsJson = False,
    url: Url = None,
    mesh: Mesh = None,
) -> None:
    """Show a dead letter: the reason, with the traceback, and the values as they stand in Redis."""

    async def look() -> DeadLetter:
        async with _letters(url, mesh) as (dead, _):
            return await dead.get(id)

    letter = asyncio.run(look())
    if as_json:
        print_json(letter_row(letter, whole=True))
    else:
        print_letter(letter)


@app.command("retry")
def retry(
    ids: Ids = None, every: Every = False, run: OfRun = None, task: OfTask = None, url: Url = None, mesh: Mesh = None
) -> None:
    """Send dead letters again: into their run while it is open, else in a run of their own.

    One that cannot be sent is told of and stays; then the command ends with 1.
    """
    _check(ids, every, run, task)

    async def send() -> int:
        async with _letters(url, mesh) as (dead, _):
            return await _each(dead, ids, run, task, lambda id: _retried(dead, id))

    _tell(asyncio.run(send()))


@app.command("drop")
def drop(
    ids: Ids = None, every: Every = False, run: OfRun = None, task: OfTask = None, url: Url = None, mesh: Mesh = None
) -> None:
    """Drop dead letters: they are gone then.

    One that is not there is told of; then the command ends with 1.
    """
    _check(ids, every, run, task)

    async def forget() -> int:
        async with _letters(url, mesh) as (dead, _):
            return await _each(dead, ids, run, task, lambda id: _dropped(dead, id))

    _tell(asyncio.run(forget()))


@asynccontextmanager
async def _letters(url: str | None, mesh: str | None) -> AsyncIterator[tuple[DeadLetters, str]]:
    """The letters of a mesh, and where they are."""
    async with onlooker(url, mesh) as supervisor:
        yield supervisor.dead, f"mesh {supervisor.settings.mesh!r}, {supervisor.location}"


def _check(ids: list[str] | None, every: bool, run: str | None, task: str | None) -> None:
    """All letters are never meant by leaving something out."""
    if ids and every:
        raise ConfigurationError("both ids and --all were given: pass one of them")
    if ids and (run or task):
        raise ConfigurationError("--run and --task choose among all letters: pass them with --all, and no ids")
    if not ids and not every:
        raise ConfigurationError("no letter was named: pass ids, as `datamesh dead ls` prints them, or --all")


async def _each(
    dead: DeadLetters, ids: list[str] | None, run: str | None, task: str | None, act: Callable[[str], Awaitable[str]]
) -> int:
    """Act on each letter and print what became of it; return how many could not be acted on."""
    failed = 0
    chosen = _given(ids) if ids else (letter.id async for letter in dead.scan(run_id=run, task=task))
    async for id in chosen:
        try:
            typer.echo(await act(id))
        except DeadLetterError as error:
            failed += 1
            typer.echo(str(error), err=True)
    return failed


async def _given(ids: list[str]) -> AsyncIterator[str]:
    for id in dict.fromkeys(ids):
        yield id


async def _retried(dead: DeadLetters, id: str) -> str:
    (sent,) = await dead.retry(id)
    return _told(sent)


def _told(sent: Redrive) -> str:
    return f"{sent.id} is under way in {'a run of its own, ' if sent.is_new_run else 'run '}{sent.run_id}"


async def _dropped(dead: DeadLetters, id: str) -> str:
    if not await dead.drop(id):
        raise DeadLetterError(letter=id, problem="there is none of this id", fix="Nothing was dropped for it")
    return f"{id} is dropped"


def _tell(failed: int) -> None:
    if failed:
        raise DatameshError(f"{failed} of the dead letters could not be dealt with: see above")
