"""What the services here have in common with every real one: they attach, say when they work, and drain on SIGTERM."""

import asyncio
from typing import Any

from datamesh import LocalExecutor, Supervisor


async def _serve(supervisor: Supervisor) -> None:
    await supervisor.session()
    print("ready", flush=True)
    await supervisor.serve()
    print("drained", flush=True)


def serve(**options: Any) -> None:
    """Attach to the mesh that the environment names and serve until SIGTERM."""
    asyncio.run(_serve(Supervisor.attach(executor=LocalExecutor(), **options)))
