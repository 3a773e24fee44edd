"""The guide, from the first task to a small document flow. Read it from top to bottom."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from pydantic import BaseModel

from datamesh import IO, Depends, Flow, IOVal, Retry, Supervisor, Task, TaskFailedError, task

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("supervisor")]


async def test_1_a_task_is_a_declaration_and_any_process_may_implement_it() -> None:
    greet = Task(name="greet", inputs=["name"], outputs=["greeting"])

    @greet
    async def _greet(name: str) -> str:
        return f"Hello {name}"

    # The function is unchanged: a unit test needs no mesh.
    assert await _greet("Ada") == "Hello Ada"

    flow = Flow.from_tasks(greet).resolve()
    run = await Supervisor.instance.start_flow(flow, inputs=[IOVal(name="name", value="Ada")])
    assert await run["greeting"].first() == "Hello Ada"


async def test_2_the_short_form_declares_and_implements_in_one_step() -> None:
    @task(outputs="word")
    async def split(text: str) -> AsyncIterator[str]:
        for word in text.split():
            yield word  # only `yield` fans out: one text, many words

    @task(outputs="length")
    def measure(word: str) -> int:  # not async: it runs in a thread, never on the event loop
        return len(word)

    # Tasks are wired by the names of their streams.
    flow = Flow.from_tasks(split, measure).resolve()
    run = await Supervisor.instance.start_flow(flow, {"text": "tasks are wired by name"})

    # Each word was measured on its own, by whoever was free; ask for the order of origin if it matters.
    assert await run["length"].collect(ordered=True) == [5, 3, 5, 2, 4]


async def test_3_a_stream_is_read_while_it_is_made_and_ends_by_itself() -> None:
    @task(outputs="number")
    async def count(limit: IO[int]) -> AsyncIterator[int]:
        for number in range(await limit.first()):
            yield number

    @task(outputs="total")
    async def sum_up(number: IO[int]) -> AsyncIterator[int]:
        total = 0
        async for value in number:
            total += value
            yield total

    flow = Flow.from_tasks(count, sum_up).resolve()
    run = await Supervisor.instance.start_flow(flow, {"limit": 5}, all_outputs=True)

    # Side by side, and as often as you like: reading takes nothing away.
    pairs = [pair async for pair in run["number"].stream_with(run["total"])]
    assert pairs == [(0, 0), (1, 1), (2, 3), (3, 6), (4, 10)]
    assert await run["total"].latest() == 10


async def test_4_a_task_may_wait_for_all_of_its_input() -> None:
    @task(outputs="score")
    async def roll(dice: int) -> AsyncIterator[int]:
        for score in (3, 1, 2)[:dice]:
            yield score

    @task(outputs="best", wait=True)
    async def pick(score: IO[int]) -> int:
        return max(await score.collect())

    flow = Flow.from_tasks(roll, pick).resolve()
    run = await Supervisor.instance.start_flow(flow, {"dice": 3})
    assert await run.result() == {"best": [3]}


async def test_5_dependencies_are_what_a_task_needs_besides_its_input(supervisor: Supervisor) -> None:
    def get_rate() -> float:
        return 1.19

    @task(outputs="gross")
    async def tax(net: float, rate: Annotated[float, Depends(get_rate)]) -> float:
        return round(net * rate, 2)

    flow = Flow.from_tasks(tax).resolve()
    assert await (await supervisor.start_flow(flow, {"net": 100.0}))["gross"].first() == 119.0
    with supervisor.override({get_rate: lambda: 1.0}):
        assert await (await supervisor.start_flow(flow, {"net": 100.0}))["gross"].first() == 100.0


async def test_6_errors_come_to_whoever_reads() -> None:
    attempts: list[int] = []

    @task(outputs="parsed", retry=Retry(attempts=2, backoff=0.01))
    async def parse(text: str) -> int:
        attempts.append(1)
        return int(text)

    run = await Supervisor.instance.start_flow(Flow.from_tasks(parse).resolve(), {"text": "seven"})
    with pytest.raises(TaskFailedError) as caught:
        await run["parsed"].first()
    assert caught.value.message == "invalid literal for int() with base 10: 'seven'"
    assert "return int(text)" in caught.value.remote_traceback
    assert len(attempts) == 2


async def test_7_a_small_document_flow() -> None:
    class Document(BaseModel):
        title: str
        text: str

    class Passage(BaseModel):
        title: str
        line: int
        words: Counter[str]

    @task(outputs="passage")
    def split(document: Document) -> list[IOVal[Passage]]:
        lines = document.text.splitlines()
        return [
            IOVal("passage", Passage(title=document.title, line=n, words=Counter(line.lower().split())))
            for n, line in enumerate(lines, 1)
        ]

    @task(outputs="index")
    async def index(passage: IO[Passage]) -> dict[str, list[tuple[str, int]]]:
        places: dict[str, list[tuple[str, int]]] = {}
        async for found in passage.stream(ordered=True):
            for word in found.words:
                places.setdefault(word, []).append((found.title, found.line))
        return places

    flow = Flow.from_tasks(split, index).resolve()
    assert "split" in str(flow.topology)
    documents = [Document(title="a", text="a rose\nis a rose"), Document(title="b", text="a stone")]
    run = await Supervisor.instance.start_flow(flow, [IOVal("document", each) for each in documents])
    found = await run["index"].first()
    assert found["rose"] == [("a", 1), ("a", 2)]
    assert found["a"] == [("a", 1), ("a", 2), ("b", 1)]
