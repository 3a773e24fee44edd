"""Stages: the flow that goes on while servers fail, and the service that runs it.

A number is split into parts by a generator that pauses, each part is weighed, and a task that waits for all of them
counts. A weighed part tells which attempt it comes from, and the count tells whether the stream ended too early.
`python -m tests.faults.server_faults.stages` serves the tasks until it is killed; options come from the environment.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import anyio

from datamesh import IO, Context, Flow, Supervisor, Task

MODULE = "tests.faults.server_faults.stages"
"""What a process runs to serve the tasks."""
PARTS = 3

split = Task(name="split", inputs={"number": int}, outputs={"part": int})
weigh = Task(name="weigh", inputs={"part": int}, outputs={"weighed": list[int]})
tally = Task(name="tally", inputs={"weighed": list[int]}, outputs={"total": int}, wait=True)

stages = Flow.from_tasks(split, weigh, tally, name="stages").resolve()


def implement() -> None:
    """Make this process one that has the functions; those who only look on do not."""

    @split
    async def _split(number: int) -> AsyncIterator[int]:
        for part in range(PARTS):
            yield PARTS * number + part
            await anyio.sleep(0.004 * random.random())

    @weigh
    async def _weigh(part: int, context: Context) -> list[int]:
        await anyio.sleep(0.004 * random.random())
        return [part, context.attempt]

    @tally
    async def _tally(weighed: IO[list[int]]) -> int:
        return len([value async for value in weighed])


async def serve() -> None:
    """Serve the three tasks."""
    async with Supervisor(tasks=[split, weigh, tally]):
        print("ready", flush=True)
        await anyio.sleep_forever()


if __name__ == "__main__":
    implement()
    anyio.run(serve)
