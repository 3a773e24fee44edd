from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from datamesh import Depends, Flow, IO, IOVal, LocalExecutor, Supervisor, Task

def get_multiplier() -> int:
    return 2

foobar = Task(name="foobar", inputs=["foo"], outputs=["bar"])

@foobar
async def _foobar(
    foo: IO[int],
    multiplier: Annotated[int, Depends(get_multiplier)],
) -> AsyncIterator[IOVal[int]]:
    n = await foo.first()
    for i in range(n):
        yield IOVal(name="bar", value=i * multiplier)

async def main() -> None:
    flow = Flow.from_tasks(foobar).resolve()
    result: dict[str, IO[Any]] = await Supervisor.instance.start_flow(
        flow, inputs=[IOVal(name="foo", value=5)]
    )
    async for value in result["bar"].stream():
        print(value)                      # 0 2 4 6 8, one a line; the loop ends by itself

Supervisor.attach(executor=LocalExecutor())   # no client, no URL: the embedded server
anyio.run(main)                               # the process exits cleanly, exit code 0
