"""Two services that share only Redis, and a third process that asks them.

Each service is a command of its own: `datamesh worker two_services:doubler`, `datamesh worker two_services:describer`.
They come in any order, before or after the flow is started, on any machine that reaches the same Redis
(`DATAMESH_URL`). This program starts both itself and implements nothing.

Prints:
    1 doubled is 2
    2 doubled is 4
    3 doubled is 6
    processes that took part, beside this one: 2
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio

from datamesh import Flow, IOVal, Supervisor, Task

double = Task("double", inputs={"number": int}, outputs={"doubled": tuple[int, int, int]})
describe = Task("describe", inputs={"doubled": tuple[int, int, int]}, outputs={"text": tuple[str, int, int]})


@double
async def _double(number: int) -> tuple[int, int, int]:
    return number, 2 * number, os.getpid()


@describe
async def _describe(doubled: tuple[int, int, int]) -> tuple[str, int, int]:
    number, twice, pid = doubled
    return f"{number} doubled is {twice}", pid, os.getpid()


doubler = Supervisor(tasks=[double], name="doubler")
describer = Supervisor(tasks=[describe], name="describer")


@contextmanager
def service(name: str) -> Iterator[None]:
    """A service in a process of its own, drained at the end."""
    command = [sys.executable, "-m", "datamesh", "worker", f"two_services:{name}", "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=Path(__file__).parent)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


async def main() -> None:
    flow = Flow.from_tasks(double, describe).resolve()
    async with Supervisor(tasks=[], name="asking") as supervisor:
        run = await supervisor.start_flow(flow, [IOVal("number", number) for number in (1, 2, 3)])
        found = await run["text"].collect(ordered=True)
    for text, _, _ in found:
        print(text)
    pids = {pid for _, *both in found for pid in both}
    print("processes that took part, beside this one:", len(pids - {os.getpid()}))


if __name__ == "__main__":
    with service("doubler"), service("describer"):
        anyio.run(main)
