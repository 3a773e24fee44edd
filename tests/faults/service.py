"""A service of the fault tests: `python -m tests.faults.service TASK...` serves these tasks until it is ended.

Where its Redis is and how it behaves comes from the environment, as for any service. It says `ready` when it works.
SIGUSR1 writes the stacks of its threads to the log, SIGUSR2 those of its asyncio tasks. What else tests ask of it:

- `DATAMESH_TEST_LEDGER`: a file in which functions note that they run; see `ledger.py`.
- `DATAMESH_TEST_PACE`: seconds that a value of `refine` takes.
- `DATAMESH_TEST_SWEEP`: seconds between two looks for runs whose retention is over.
- `DATAMESH_TEST_SKEW`: seconds by which `time.time` is wrong.
- `DATAMESH_TEST_CHAOS`: when to die; see `chaos.py`.
"""

import asyncio
import faulthandler
import os
import signal
import sys
import threading
import time

from datamesh import Supervisor
from datamesh.supervise import timers
from tests.faults import chaos, flows, tasks


def served(names: list[str]) -> list[object]:
    """Tasks of these names."""
    assert all(hasattr(tasks, name) for name in names)
    return [getattr(flows, name) for name in names]


def skew() -> None:
    """Set the clock of this process wrong."""
    seconds = float(os.environ.get("DATAMESH_TEST_SKEW", "0"))
    if seconds:
        right = time.time
        time.time = lambda: right() + seconds


def sweep() -> None:
    """Look for what is over as often as asked."""
    seconds = float(os.environ.get("DATAMESH_TEST_SWEEP", "0"))
    if seconds:
        timers._SWEEP_SECONDS = seconds


def die_with(parent: int) -> None:
    """End when the process that started this one has ended."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def tell_of_tasks() -> None:
    """Write where each asyncio task stands."""
    for task in asyncio.all_tasks():
        task.print_stack(limit=6)


async def serve(names: list[str]) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, tell_of_tasks)
    supervisor = Supervisor(tasks=served(names))
    await supervisor.session()
    print("ready", flush=True)
    await supervisor.serve()


def main() -> None:
    faulthandler.register(signal.SIGUSR1)
    threading.Thread(target=die_with, args=(os.getppid(),), daemon=True).start()
    skew()
    sweep()
    chaos.install(os.environ.get("DATAMESH_TEST_CHAOS", ""))
    asyncio.run(serve(sys.argv[1:]))


if __name__ == "__main__":
    main()
