"""Dead letters: a value that a task could not take is kept with the reason, and sent again when it can.

Prints:
    the run is done, with [4, 9] and 1 dead
    7 of task squared: task 'squared' failed at attempt 2: LookupError: no square of 7 is known yet
    sent again: [49]
    dead letters left: 0
"""

import anyio

from datamesh import Flow, IOVal, Retry, Supervisor, task

SQUARES = {2: 4, 3: 9}


@task(outputs="square", on_error="dead", retry=Retry(attempts=2, backoff=0.01))
async def squared(number: int) -> int:
    if number not in SQUARES:
        raise LookupError(f"no square of {number} is known yet")
    return SQUARES[number]


async def main() -> None:
    flow = Flow.from_tasks(squared).resolve()
    async with Supervisor(tasks=[squared]) as supervisor:
        run = await supervisor.start_flow(flow, [IOVal("number", number) for number in (2, 7, 3)])
        status = await run.wait()
        squares = await run["square"].collect(ordered=True)
        print("the run is", f"{status.state}, with {squares} and {status.tasks['squared'].dead} dead")

        (letter,) = await supervisor.dead.list(run_id=run.id)
        print(*letter.content(), "of task", f"{letter.task}: {letter.error}")

        SQUARES[7] = 49  # whatever was wrong is put right
        (sent,) = await supervisor.dead.retry(letter.id)
        again = await supervisor.get_run(sent.run_id)
        print("sent again:", await again["square"].collect())
        print("dead letters left:", len(await supervisor.dead.list()))


anyio.run(main)
