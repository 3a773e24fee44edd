"""Place: a mesh of one test on a server, and ways to take part in it, in this process and in others."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamesh import Supervisor

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0
"""Seconds within which everything here must have happened."""


@dataclass(frozen=True)
class Place:
    """A mesh of its own on the server at `url`."""

    url: str
    mesh: str

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "DATAMESH_URL": self.url, "DATAMESH_MESH": self.mesh, "PYTHONPATH": str(ROOT)}

    def supervisor(self, **options: Any) -> Supervisor:
        """Make a supervisor of this mesh; it serves what the test has registered unless `tasks` says otherwise."""
        return Supervisor(url=self.url, **{"mesh": self.mesh, "lease": 2.0, "grace": 2.0, **options})

    @asynccontextmanager
    async def service(self, name: str, **environment: str) -> AsyncIterator[Process]:
        """Run a module of `tests.mesh.services` in a process; it works when this returns, and is killed in the end."""
        arguments = ("-m", f"tests.mesh.services.{name}")
        async with running(arguments, {**self.environment, **environment}) as process:
            assert process.stdout is not None
            async with asyncio.timeout(PATIENCE):
                assert await process.stdout.readline() == b"ready\n"
            yield process


@asynccontextmanager
async def running(arguments: Sequence[str], environment: dict[str, str]) -> AsyncIterator[Process]:
    """Run Python in a process, killed in the end if it has not ended by then."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", *arguments, stdout=PIPE, cwd=ROOT, env=environment
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def gather_until_error(values: AsyncIterable[Any], into: list[Any]) -> None:
    """Append every value of an iteration that is expected to end with an error."""
    async for value in values:
        into.append(value)


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = PATIENCE) -> None:
    """Wait until an async condition holds."""
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)
