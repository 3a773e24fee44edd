"""A task one of whose values kills whoever runs it."""

import asyncio
import os
import signal

from datamesh import task

DEADLY = 150


@task(outputs="doubled", on_error="dead")
async def doubling(n: int) -> int:
    await asyncio.sleep(0.001)
    if n == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * n
