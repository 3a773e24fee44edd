"""A process that starts a run and says so: `python -m tests.faults.starter RUN_ID COUNT`. It is killed right then."""

import sys

import anyio

from datamesh import IOVal, Supervisor
from tests.faults.flows import doubling


async def start(run_id: str, count: int) -> None:
    values = [IOVal(name="number", value=value) for value in range(count)]
    await Supervisor(tasks=[]).start_flow(doubling, inputs=values, run_id=run_id)
    print("started", flush=True)
    await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(start, sys.argv[1], int(sys.argv[2]))
