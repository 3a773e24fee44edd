"""Types: what goes in as a pydantic model or an array comes out as one, checked on both ends.

A value that does not fit is refused before anything is written. numpy is optional: `pip install datamesh[numpy]`.

Prints:
    Box(name='red', corners=((0, 0), (4, 3))) has the area 12
    float32 (2, 3), each row scaled: [[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]]
    refused: corners.1.1: Input should be a valid integer, unable to parse string as an integer (got str)
"""

import anyio
import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from datamesh import Flow, InvalidValueError, IOVal, Supervisor, task


class Box(BaseModel):
    """A rectangle by two corners."""

    name: str
    corners: tuple[tuple[int, int], tuple[int, int]]


Array = npt.NDArray[np.float32]


@task(outputs={"described": str})
async def describe(box: Box) -> str:
    (left, top), (right, bottom) = box.corners
    return f"{box!r} has the area {(right - left) * (bottom - top)}"


@task(outputs={"scaled": Array})
def scale(rows: Array) -> Array:
    largest: Array = rows.max(axis=1, keepdims=True)
    return rows / largest


async def main() -> None:
    flow = Flow.from_tasks(describe, scale).resolve()
    box = Box(name="red", corners=((0, 0), (4, 3)))
    rows = np.array([[0, 1, 2], [0, 2, 4]], dtype=np.float32)
    async with Supervisor(tasks=[describe, scale]) as supervisor:
        run = await supervisor.start_flow(flow, {"box": box, "rows": rows})
        print(await run["described"].first())
        scaled = await run["scaled"].first()
        print(f"{scaled.dtype} {scaled.shape}, each row scaled: {scaled.tolist()}")
        wrong = {"name": "red", "corners": [[0, 0], [4, "three"]]}
        try:
            await supervisor.start_flow(flow, [IOVal("box", wrong), IOVal("rows", rows)])
        except InvalidValueError as error:
            print("refused:", error.problem)


anyio.run(main)
