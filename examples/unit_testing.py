"""Unit tests: the decorated function is still the function, and dependencies can be replaced.

Prints:
    called with plain values: hello ana
    with another dependency: bonjour ana
"""

from typing import Annotated

import anyio

from datamesh import Depends, Flow, Supervisor, task


def greeting() -> str:
    return "hello"


@task(outputs="text")
async def greet(name: str, word: Annotated[str, Depends(greeting)]) -> str:
    return f"{word} {name}"


async def test_alone() -> None:
    """No mesh, no Redis: a call."""
    text = await greet("ana", word="hello")
    assert text == "hello ana"
    print("called with plain values:", text)


async def test_in_a_flow() -> None:
    """The whole way, with one dependency replaced as long as the context lasts."""
    flow = Flow.from_tasks(greet).resolve()
    async with Supervisor(tasks=[greet]) as supervisor:
        with supervisor.override({greeting: lambda: "bonjour"}):
            text = await (await supervisor.start_flow(flow, {"name": "ana"}))["text"].first()
    assert text == "bonjour ana"
    print("with another dependency:", text)


async def main() -> None:
    await test_alone()
    await test_in_a_flow()


if __name__ == "__main__":
    anyio.run(main)
