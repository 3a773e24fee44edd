"""Open inputs: write values while the run goes on, read what becomes of them, and decide when it is enough.

Prints:
    3 -> 9
    4 -> 16
    5 -> 25
    the run is done
"""

import anyio

from datamesh import Flow, Supervisor, task


@task(outputs="square")
async def squared(number: int) -> int:
    return number * number


async def main() -> None:
    async with Supervisor(tasks=[squared]) as supervisor:
        run = await supervisor.start_flow(Flow.from_tasks(squared).resolve(), open_inputs=True)
        squares = run["square"].stream()
        for number in (3, 4, 5):
            await run.inputs["number"].write(number)
            print(number, "->", await anext(squares))  # the answer is here before the next is written
        await run.inputs["number"].complete()
        print("the run is", (await run.wait()).state)


anyio.run(main)
