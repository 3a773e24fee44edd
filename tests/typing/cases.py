"""What users write, with the types that they must get. Checked by mypy, never run as a whole."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Annotated, Any, assert_type

from datamesh import IO, Context, Depends, Flow, FlowRun, IOVal, Retry, RunStatus, Supervisor, Task, task

foobar = Task(name="foobar", inputs=["foo"], outputs={"bar": int})


def get_multiplier() -> int:
    return 2


@foobar
async def implement(foo: IO[int], multiplier: Annotated[int, Depends(get_multiplier)]) -> AsyncIterator[IOVal[int]]:
    yield IOVal(name="bar", value=multiplier * await foo.first())


@foobar(retry=Retry(attempts=3), timeout=1.0)
async def implement_again(foo: IO[int], multiplier: int = Depends(get_multiplier)) -> AsyncIterator[IOVal[int]]:
    yield IOVal(name="bar", value=multiplier)


@task(outputs="words")
def split(text: str, context: Context) -> list[str]:
    return text.split()


@task
async def nothing(words: str) -> None: ...


def functions_keep_their_types() -> None:
    assert_type(split("a b", Context(run_id="r", task="t")), list[str])
    plain: Callable[[str], Coroutine[Any, Any, None]] = nothing
    assert callable(plain)


async def streams_have_the_type_of_their_values(numbers: IO[int], texts: IO[str]) -> None:
    assert_type(await numbers.first(), int)
    assert_type(await numbers.latest(), int)
    assert_type(await numbers.collect(), list[int])
    assert_type([value async for value in numbers], list[int])
    assert_type([value async for value in numbers.stream(ordered=True)], list[int])
    assert_type([pair async for pair in numbers.stream_with(texts)], list[tuple[int, str]])
    assert_type([value async for value in numbers.as_available(texts)], list[int | str])
    assert_type([value async for value in numbers.as_available(texts, tagged=True)], list[tuple[str, int | str]])


async def a_run_is_a_mapping_of_streams() -> None:
    flow = Flow.from_tasks(foobar, split.rename(outputs={"words": "w"})).resolve()
    result: dict[str, IO[Any]] = await Supervisor.instance.start_flow(flow, inputs=[IOVal(name="foo", value=5)])
    mapping: Mapping[str, IO[Any]] = result
    run = await Supervisor.instance().start_flow(flow, {"foo": 5})
    assert_type(run, FlowRun)
    assert_type(await run.status(), RunStatus)
    outputs: dict[str, list[Any]] = await run.result()
    assert_type(outputs["bar"], list[Any])
    assert_type((await run.result()).skipped, int)
    assert_type(mapping["bar"], IO[Any])
