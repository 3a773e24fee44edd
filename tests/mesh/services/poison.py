"""A service with a task one of whose values kills whoever runs it."""

import asyncio

from datamesh import Supervisor
from tests.mesh.services import poisoned


async def main() -> None:
    async with Supervisor(tasks=[poisoned.doubling]):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
