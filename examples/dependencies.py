"""Dependencies: what a function needs beside its inputs, built for one call, one run, or once for the whole service.

Prints:
    open the pool
    begin run
    ana asks pool 1 (call 1)
    bob asks pool 1 (call 2)
    end run
    close the pool
"""

from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Annotated

import anyio

from datamesh import Depends, Flow, IOVal, Supervisor, task

pools, calls = count(1), count(1)


async def pool() -> AsyncIterator[str]:
    """Once per service, for as long as it serves: connection pools, models."""
    print("open the pool")
    yield f"pool {next(pools)}"
    print("close the pool")


def transaction(pool: Annotated[str, Depends(pool, scope="service")]) -> Iterator[str]:
    """Once per run. It may use what lives longer than itself; the other way round is refused at registration."""
    print("begin run")
    yield pool
    print("end run")


def number() -> int:
    """Once per call."""
    return next(calls)


@task(outputs="answer", concurrency=1)
async def ask(
    name: str,
    connection: Annotated[str, Depends(transaction, scope="run")],
    call: Annotated[int, Depends(number)],
) -> str:
    return f"{name} asks {connection} (call {call})"


async def main() -> None:
    async with Supervisor(tasks=[ask]) as supervisor:
        run = await supervisor.start_flow(Flow.from_tasks(ask).resolve(), [IOVal("name", "ana"), IOVal("name", "bob")])
        for answer in await run["answer"].collect(ordered=True):
            print(answer)


anyio.run(main)
