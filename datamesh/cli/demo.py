"""`datamesh demo`: real files through three tasks in several services, and a question that they answer."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Annotated

import typer

from datamesh.cli.answer import Answer
from datamesh.cli.gauge import gauge, tell_missing
from datamesh.cli.options import Mesh, Url
from datamesh.demo.asking import Reading, read_all
from datamesh.demo.children import Children
from datamesh.demo.corpus import default_files, found_files
from datamesh.errors import ConfigurationError
from datamesh.settings import Settings, environment_url
from datamesh.supervise.supervisor import Supervisor

_QUESTION = "context manager that suppresses exceptions"
_LEASE = 3.0
"""Seconds: short, so that nobody waits long for what a killed service held."""
_GRACE = 3.0
_RETENTION = 60.0


def demo(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Files and folders to read; the standard library and the readmes of installed packages if left out.",
        ),
    ] = None,
    find: Annotated[str, typer.Option(metavar="WORDS", help="What to look for.")] = _QUESTION,
    services: Annotated[
        int, typer.Option(min=0, max=64, help="Service processes to start; 0: ask those of the mesh.")
    ] = 2,
    hits: Annotated[int, typer.Option(min=1, help="Passages to show.")] = 3,
    url: Url = None,
    mesh: Mesh = None,
) -> None:
    """Search real files: services read them, split them and count their words; this process ranks and answers.

    Without --url and --mesh it is a mesh of its own on the embedded server, and nothing is left of it. Files that
    cannot be read, or are no text, are reported and skipped.
    """
    files = found_files(paths) if paths else default_files()
    if not files:
        where = ", ".join(map(str, paths)) if paths else "the library of this Python: name a folder of yours"
        raise ConfigurationError(f"there are no files under {where}")
    Answer(find, hits, shown_from=Path.cwd()).show(asyncio.run(_read(files, services, url, mesh)))


async def _read(files: list[str], services: int, url: str | None, mesh: str | None) -> Reading:
    supervisor = Supervisor(
        url=url, tasks=(), name="demo", mesh=mesh or _mesh(url, services), lease=_LEASE, retention=_RETENTION
    )  # fmt: skip
    environment = {
        "DATAMESH_MESH": supervisor.settings.mesh, "DATAMESH_LEASE": str(_LEASE), "DATAMESH_GRACE": str(_GRACE),
    }  # fmt: skip
    if url is not None:
        environment["DATAMESH_URL"] = url
    async with supervisor, Children(services, environment) as children:
        place = supervisor.location
        with gauge(f"{len(files):,} files; services: {_text(children.pids)}; {place}") as show:
            return await read_all(supervisor, files, show=show, miss=tell_missing, fail=children.fail)


def _mesh(url: str | None, services: int) -> str:
    """The mesh that is asked for, else one of our own: on an embedded server, which ends with us, of a new name."""
    known = Settings.of({}).mesh
    if services == 0 or known != Settings().mesh:
        return known
    return "datamesh-demo" if url or environment_url() else f"demo-{secrets.token_hex(4)}"


def _text(pids: tuple[int, ...]) -> str:
    if not pids:
        return "those of the mesh"
    return f"process{'es' if len(pids) > 1 else ''} {', '.join(map(str, pids))}"
