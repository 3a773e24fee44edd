"""`wait=True`: a task that starts when its inputs are complete, and the stages that this makes of a flow.

Without it `total` would start at once and add up numbers while they are made; with it, it starts after the last.

Prints:
    stage 1: numbers
    stage 2: total
    made 0
    made 1
    made 2
    add up
    3
"""

from collections.abc import AsyncIterator

import anyio

from datamesh import IO, Flow, Supervisor, task


@task(outputs="number")
async def numbers(count: IO[int]) -> AsyncIterator[int]:
    for number in range(await count.first()):
        print("made", number)
        yield number


@task(outputs="sum", wait=True)
async def total(number: IO[int]) -> int:
    print("add up")
    return sum([value async for value in number])


async def main() -> None:
    flow = Flow.from_tasks(numbers, total).resolve()
    for place, stage in enumerate(flow.execution_plan.partitions, 1):
        print(f"stage {place}: {', '.join(sorted(task.name for task in stage))}")
    async with Supervisor(tasks=[numbers, total]) as supervisor:
        run = await supervisor.start_flow(flow, {"count": 3})
        print(await run["sum"].first())


anyio.run(main)
