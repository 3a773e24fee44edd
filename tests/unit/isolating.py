"""Isolating: values that run alone in a child process, for the tests of that."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from datamesh import LocalExecutor
from datamesh.codec.failure import Failure
from datamesh.codec.limits import MAX_VALUE_BYTES
from datamesh.depends.binding import Binding
from datamesh.model.registry import registry
from datamesh.supervise.isolation import Finished, Isolated, Isolation, Raised
from datamesh.supervise.served import Served
from datamesh.supervise.thread_feed import Accept, Pair

SEGFAULT = -signal.SIGSEGV
KILLED = -signal.SIGKILL
Run = Callable[..., Awaitable[Isolated]]


def binding_of(name: str) -> Binding:
    found = registry.get(f"suspects.{name}@1")
    assert found is not None
    binding: Binding = found.compiled
    return binding


@asynccontextmanager
async def isolated(binding: Binding | str, *, max_value_bytes: int = MAX_VALUE_BYTES) -> AsyncIterator[Run]:
    """A way to run values of one implementation; no process and no file descriptor is left in the end."""
    binding = binding_of(binding) if isinstance(binding, str) else binding
    served = Served.of(binding, executors={}, default=LocalExecutor(), max_value_bytes=max_value_bytes)
    isolation = Isolation(served, max_value_bytes=max_value_bytes, service="here")
    ((_, codec),) = served.inputs.items()

    async def run(value: Any, *, attempt: int = 1, run_id: str = "r1", accept: Accept | None = None) -> Isolated:
        (frame,) = codec.frames([value])
        return await isolation.run(
            frame.payload, run_id=run_id, task="suspect", attempt=attempt, delivery_id="7-1",
            blobs={blob.digest: blob.body for blob in frame.blobs}, accept=accept,
        )  # fmt: skip

    opened = set(os.listdir("/dev/fd"))
    try:
        yield run
    finally:
        await isolation.aclose()
        assert not children()
        assert len(os.listdir("/dev/fd")) <= len(opened)


def children() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "datamesh.supervise.child" in " ".join(_line(child))]


def _line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def pairs_of(outcome: Isolated) -> list[Pair]:
    assert isinstance(outcome, Finished), failure_of(outcome)
    return outcome.pairs


def failure_of(outcome: Isolated) -> Failure:
    assert isinstance(outcome, Raised), outcome
    return Failure.unpack(outcome.failure)


async def written(path: Path) -> int:
    async with asyncio.timeout(20):
        while not (text := _text(path)):
            await asyncio.sleep(0.01)
    return int(text)


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.exists() else ""


async def gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while psutil.pid_exists(pid):
            await asyncio.sleep(0.01)
