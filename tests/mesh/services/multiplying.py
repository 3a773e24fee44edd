"""The implementation of the first program, in a service of its own."""

from collections.abc import AsyncIterator
from typing import Annotated

from datamesh import IO, Depends, IOVal, Task
from tests.mesh.services.serving import serve

foobar = Task(name="foobar", inputs=["foo"], outputs=["bar"])


def get_multiplier() -> int:
    return 2


@foobar
async def _foobar(foo: IO[int], multiplier: Annotated[int, Depends(get_multiplier)]) -> AsyncIterator[IOVal[int]]:
    for i in range(await foo.first()):
        yield IOVal(name="bar", value=i * multiplier)


if __name__ == "__main__":
    serve()
