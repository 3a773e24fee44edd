"""Every form of function in every mode, and every way to give outputs."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from datamesh import IO, Flow, IOVal, MismatchedIOError, Task, TaskFailedError, task
from tests.mesh.places import PATIENCE, Place

pytestmark = pytest.mark.anyio
MAIN_THREAD = threading.get_ident()


async def each_async_generator(n: int) -> AsyncIterator[int]:
    await asyncio.sleep(0)
    for i in range(n):
        yield i


async def each_coroutine(n: int) -> int:
    await asyncio.sleep(0)
    return n + 1


def each_generator(n: int) -> Iterator[int]:
    assert threading.get_ident() != MAIN_THREAD
    yield from range(n)


def each_function(n: int) -> int:
    assert threading.get_ident() != MAIN_THREAD
    return n + 1


async def stream_async_generator(n: IO[int]) -> AsyncIterator[int]:
    async for value in n:
        yield value
        yield value


async def stream_coroutine(n: IO[int]) -> int:
    return sum(await n.collect())


def stream_generator(n: IO[int]) -> Iterator[int]:
    assert threading.get_ident() != MAIN_THREAD
    for value in n:  # type: ignore[attr-defined]  # in a thread, the same methods wait
        yield value
        yield value


def stream_function(n: IO[int]) -> int:
    assert threading.get_ident() != MAIN_THREAD
    values: list[int] = n.collect()  # type: ignore[assignment]
    return sum(values)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (each_async_generator, [0, 0, 0, 1, 1, 2]),
        (each_coroutine, [2, 3, 4]),
        (each_generator, [0, 0, 0, 1, 1, 2]),
        (each_function, [2, 3, 4]),
        (stream_async_generator, [1, 1, 2, 2, 3, 3]),
        (stream_coroutine, [6]),
        (stream_generator, [1, 1, 2, 2, 3, 3]),
        (stream_function, [6]),
    ],
)
async def test_form_and_mode(place: Place, function: Callable[..., Any], expected: list[int]) -> None:
    declared = Task("formed", inputs="n", outputs="m")
    assert declared(function) is function
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(declared).resolve(), [IOVal("n", i) for i in (1, 2, 3)])
        assert sorted(await run["m"].collect()) == expected
        assert (await run.wait()).state == "done"


async def test_named_outputs_go_to_their_streams(place: Place) -> None:
    @task(outputs=["even", "odd", "all"])
    async def sort(n: int) -> list[IOVal[int]]:
        return [IOVal("even" if n % 2 == 0 else "odd", n), IOVal("all", n)]

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(sort).resolve(), [IOVal("n", i) for i in range(6)])
        found = {name: sorted(values) for name, values in (await run.result()).items()}
        assert found == {"even": [0, 2, 4], "odd": [1, 3, 5], "all": [0, 1, 2, 3, 4, 5]}


async def test_a_tuple_of_iovals_is_several_outputs_and_a_list_is_one_value(place: Place) -> None:
    @task(outputs=["low", "high"])
    def bounds(numbers: list[int]) -> tuple[IOVal[int], IOVal[int]]:
        return IOVal("low", min(numbers)), IOVal("high", max(numbers))

    @task(outputs="numbers")
    def upto(n: int) -> list[int]:
        return list(range(n))

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        flow = Flow.from_tasks(upto, bounds).resolve()
        run = await supervisor.start_flow(flow, {"n": 4}, all_outputs=True)
        assert await run.result() == {"n": [4], "numbers": [[0, 1, 2, 3]], "low": [0], "high": [3]}


async def test_several_values_for_one_output_from_a_return(place: Place) -> None:
    @task(outputs="word")
    def split(text: str) -> list[IOVal[str]]:
        return [IOVal("word", word) for word in text.split()]

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(split).resolve(), {"text": "so it goes"})
        assert await run["word"].collect(ordered=True) == ["so", "it", "goes"]


async def test_none_emits_nothing_or_is_a_value_as_the_annotation_says(place: Place) -> None:
    seen = []

    @task(outputs="nothing")
    async def swallow(n: int) -> None:
        seen.append(n)

    @task(outputs="maybe")
    async def small(n: int) -> int | None:
        return n if n < 2 else None

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(swallow, small).resolve(), [IOVal("n", i) for i in (1, 2)])
        result = await run.result()
        assert result["nothing"] == []
        assert sorted(result["maybe"], key=str) == [1, None]
        assert sorted(seen) == [1, 2]


@pytest.mark.parametrize("mode", ["yield", "return"])
async def test_an_undeclared_output_is_refused(place: Place, mode: str) -> None:
    declared = Task("wrong", inputs="n", outputs="m")

    async def yields(n: int) -> AsyncIterator[IOVal[int]]:
        yield IOVal("m", 1)
        yield IOVal("k", 2)

    async def returns(n: int) -> IOVal[int]:
        return IOVal("k", n)

    declared(yields if mode == "yield" else returns)
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(declared).resolve(), {"n": 1})
        with pytest.raises((TaskFailedError, MismatchedIOError), match=r"MismatchedIOError.*'k'|'k'.*does not declare"):
            await run.result()


async def test_a_bare_value_of_a_task_with_two_outputs_is_refused(place: Place) -> None:
    declared = Task("bare", inputs="n", outputs=["a", "b"])

    @declared
    async def _bare(n: int):  # type: ignore[no-untyped-def]  # noqa: ANN202, RUF100 - so nothing is known before the call
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(declared).resolve(), {"n": 1})
        with pytest.raises((TaskFailedError, MismatchedIOError), match="2 outputs"):
            await run["a"].collect()


async def test_a_task_without_inputs_runs_once(place: Place) -> None:
    @task(outputs="number")
    async def source() -> AsyncIterator[int]:
        for i in range(3):
            yield i

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(source).resolve())
        assert await run.result() == {"number": [0, 1, 2]}


async def test_registering_twice_warns_and_overrides(place: Place) -> None:
    declared = Task("twice", inputs="n", outputs="m")

    @declared
    async def _one(n: int) -> int:
        return 1

    with pytest.warns(UserWarning, match="twice"):

        @declared
        async def _two(n: int) -> int:
            return 2

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(declared).resolve(), {"n": 1})
        assert await run.result() == {"m": [2]}


async def test_concurrency_of_a_task_bounds_its_invocations(place: Place) -> None:
    running, most = 0, 0
    declared = Task("narrow", inputs="n", outputs="m")

    @declared(concurrency=2)
    async def _narrow(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(declared).resolve(), [IOVal("n", i) for i in range(12)])
        assert sorted(await run["m"].collect()) == list(range(12))
    assert most == 2


async def test_a_full_task_is_taken_up_again_as_soon_as_it_has_a_slot(place: Place) -> None:
    @task(outputs="m", concurrency=1)
    async def narrow(n: int) -> int:
        await asyncio.sleep(0.03)
        return n

    @task(outputs="k")
    async def idle(i: int) -> int:
        return i

    flow = Flow.from_tasks(narrow).resolve()
    async with place.supervisor(tasks=[narrow, idle]) as supervisor, asyncio.timeout(PATIENCE):
        began = time.monotonic()
        run = await supervisor.start_flow(flow, [IOVal("n", i) for i in range(10)])
        assert await run["m"].collect(ordered=True) == list(range(10))
        assert time.monotonic() - began < 3.0


async def test_waiting_values_run_side_by_side(place: Place) -> None:
    declared = Task("nap", inputs="n", outputs="m")
    running, most = 0, 0

    @declared
    async def _nap(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.1)
        running -= 1
        return n

    async with place.supervisor(concurrency=20) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(declared).resolve(), [IOVal("n", i) for i in range(40)])
        assert sorted(await run["m"].collect()) == list(range(40))
    assert 10 <= most <= 20
