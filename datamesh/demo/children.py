"""Children: the services that the demo starts, and ends again."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import IO, Self

from datamesh.errors import ConfigurationError

_TARGET = "datamesh.demo.service:child"
_PATIENCE = 5.0
"""Seconds that a service has to drain before it is killed."""


class Children:
    """Services as processes of their own, as long as the context lasts.

    Args:
        number: How many; 0 for those that serve the mesh already.
        environment: Of each, beside this process's own.
    """

    def __init__(self, number: int, environment: Mapping[str, str]) -> None:
        self._number = number
        self._environment = {**os.environ, **environment}
        self._processes: list[asyncio.subprocess.Process] = []
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the services."""
        return tuple(process.pid for process in self._processes)

    async def __aenter__(self) -> Self:
        try:
            for _ in range(self._number):
                await self._start()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.shield(self._end())

    async def fail(self) -> None:
        """Wait until no service is left. While one is, it takes over what the others leave; with none, wait for ever.

        Raises:
            ConfigurationError: None is left; with the last lines that they logged.
        """
        if not self._processes:
            await asyncio.Event().wait()
        await asyncio.gather(*(process.wait() for process in self._processes))
        self._log.seek(0)
        last = self._log.read().decode(errors="replace").strip().splitlines()[-3:]
        raise ConfigurationError(
            "every service has ended before the run has: " + (" | ".join(last) or "no reason given")
        )

    async def _start(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "datamesh", "worker", _TARGET, "--log-level", "warning",
            stdin=asyncio.subprocess.PIPE, stdout=self._log, stderr=self._log, env=self._environment,
            start_new_session=True,  # Ctrl-C is for the asking process, which ends them in good order.
        )  # fmt: skip
        self._processes.append(process)

    async def _end(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(*map(_ended, self._processes))
        self._log.close()


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(_PATIENCE):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    # The pipe's transport would otherwise be closed by the garbage collector, with a warning.
    assert process.stdin is not None
    process.stdin.close()
    with suppress(ConnectionError):
        await process.stdin.wait_closed()
