"""Reading streams: side by side, merged, resumed, by many readers, in order of origin."""

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from datamesh import (
    IO,
    ConfigurationError,
    Flow,
    FlowRun,
    IOVal,
    ReadOnlyIOError,
    StreamCursor,
    Supervisor,
    TaskFailedError,
    UnequalLengthError,
    task,
)
from tests.mesh.places import PATIENCE, Place, gather_until_error, running
from tests.mesh.services.numbers import count, halfway, slow_square

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ab(place: Place) -> AsyncIterator[FlowRun]:
    """A run with 0, 1, 2 in `a` and "b" in `b`."""

    @task(outputs="a")
    async def three(n: int) -> AsyncIterator[int]:
        for i in range(3):
            yield i

    @task(outputs="b")
    async def one(n: int) -> str:
        return "b"

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        yield await supervisor.start_flow(Flow.from_tasks(three, one).resolve(), {"n": 1})


async def test_side_by_side(ab: FlowRun) -> None:
    assert [pair async for pair in ab["a"].stream_with(ab["b"])] == [(0, "b")]
    padded = [pair async for pair in ab["a"].stream_with(ab["b"], pad=None)]
    assert padded == [(0, "b"), (1, None), (2, None)]
    found: list[object] = []
    with pytest.raises(UnequalLengthError, match="b ended after 1 values"):
        await gather_until_error(ab["a"].stream_with(ab["b"], strict=True), found)
    assert found == [(0, "b")]
    assert [row async for row in ab["a"].stream_with(ab["a"], ab["a"])] == [(i, i, i) for i in range(3)]


async def test_merged(ab: FlowRun) -> None:
    assert sorted([str(value) async for value in ab["a"].as_available(ab["b"])]) == ["0", "1", "2", "b"]
    tagged = [pair async for pair in ab["a"].as_available(ab["b"], tagged=True)]
    assert sorted(tagged, key=str) == [("a", 0), ("a", 1), ("a", 2), ("b", "b")]


async def test_cursors(ab: FlowRun) -> None:
    assert await ab["a"].collect() == [0, 1, 2]
    assert await ab["a"].latest() == 2
    assert [value async for value in ab["a"].stream(cursor=StreamCursor.FROM_FIRST)] == [0, 1, 2]
    assert [value async for value in ab["a"].stream(cursor=StreamCursor.FROM_LATEST)] == [2]
    assert [value async for value in ab["a"].stream(cursor=StreamCursor.ONLY_NEW)] == []
    with pytest.raises(ConfigurationError, match="no place in a stream"):
        ab["a"].stream(cursor="somewhere")


async def test_a_reader_resumes_where_it_stopped(ab: FlowRun) -> None:
    io = ab["a"]
    start = io.position
    async for value in io:
        if value == 1:
            break
    place = io.position
    assert [value async for value in ab["a"].stream(cursor=place)] == [2]
    assert [value async for value in ab["a"].stream(cursor=start)] == [0, 1, 2]
    behind = io.stream(cursor=place)
    assert [value async for value in behind] == [2]
    assert [value async for value in io.stream(cursor=behind.position)] == []


async def test_it_resumes_in_another_process(place: Place) -> None:
    async with place.service("numbers"), place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(count).resolve(), {"limit": 20}, run_id="resumed")
        stream = run["number"].stream()
        assert [await anext(stream) for _ in range(7)] == list(range(7))
        reader = (
            "import asyncio, sys\nfrom datamesh import Supervisor\n"
            "async def main():\n"
            "    run = await Supervisor.instance.get_run('resumed')\n"
            "    print([value async for value in run['number'].stream(cursor=sys.argv[1])])\n"
            "Supervisor.attach(tasks=[])\nasyncio.run(main())\n"
        )
        async with running(["-c", reader, stream.position], place.environment) as process:
            out, _ = await process.communicate()
        assert out.decode().strip() == str(list(range(7, 20)))


async def test_latest_while_it_grows(place: Place) -> None:
    @task(outputs="echo")
    async def echo(n: IO[int]) -> AsyncIterator[int]:
        async for value in n:
            yield value

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(echo).resolve(), open_inputs=True)
        only_new = run["echo"].stream(StreamCursor.ONLY_NEW)
        for n in range(3):
            await run.inputs["n"].write(n)
            while await run["echo"].latest() != n:
                await asyncio.sleep(0.01)
            if n == 0:
                await only_new.begin()
        assert not await run["echo"].is_complete()
        await run.inputs["n"].complete()
        assert [value async for value in only_new] == [1, 2]
        assert await run["echo"].is_complete()


async def test_two_hundred_readers_of_one_stream(place: Place) -> None:
    flow = Flow.from_tasks(count).resolve()
    async with place.service("numbers"), place.supervisor(tasks=[]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"limit": 500})
        again = await supervisor.get_run(run.id)
        reads = [(run if n % 2 else again)["number"].collect() for n in range(200)]
        assert all(values == list(range(500)) for values in await asyncio.gather(*reads))


async def test_readers_share_connections(place: Place) -> None:
    @task(outputs="echo")
    async def echo(n: IO[int]) -> AsyncIterator[int]:
        async for value in n:
            yield value

    async def clients(supervisor: Supervisor) -> int:
        shard = (await supervisor.session()).store.shards[0]
        return int((await shard.protocol.command("CLIENT", "LIST")).count(b"id="))

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        flow = Flow.from_tasks(echo).resolve()
        runs = [await supervisor.start_flow(flow, open_inputs=True) for _ in range(40)]
        before = await clients(supervisor)
        readers = [asyncio.create_task(run["echo"].collect()) for run in runs]
        await asyncio.sleep(0.2)
        assert await clients(supervisor) <= before + 1
        for n, run in enumerate(runs):
            await run.inputs["n"].write(n)
            await run.inputs["n"].complete()
        assert await asyncio.gather(*readers) == [[n] for n in range(40)]


async def test_in_the_order_of_origin(place: Place) -> None:
    chance = random.Random(4)

    @task(outputs="word")
    async def words(n: int) -> AsyncIterator[str]:
        await asyncio.sleep(chance.random() * 0.05)
        for letter in "xyz":
            yield f"{n}{letter}"

    @task(outputs="upper")
    async def upper(word: str) -> str:
        await asyncio.sleep(chance.random() * 0.02)
        return word.upper()

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        flow = Flow.from_tasks(words, upper).resolve()
        run = await supervisor.start_flow(flow, [IOVal("n", n) for n in range(20)])
        expected = [f"{n}{letter}" for n in range(20) for letter in "XYZ"]
        assert [value async for value in run["upper"].stream(ordered=True)] == expected
        arrived = await run["upper"].collect()
        assert arrived != expected
        assert sorted(arrived) == sorted(expected)


async def test_in_order_from_several_services(place: Place) -> None:
    flow = Flow.from_tasks(slow_square).resolve()
    async with (
        place.service("numbers"),
        place.service("numbers"),
        place.supervisor(tasks=[]) as supervisor,
        asyncio.timeout(PATIENCE),
    ):
        run = await supervisor.start_flow(flow, [IOVal("number", n) for n in range(300)])
        assert await run["square"].collect(ordered=True) == [n * n for n in range(300)]


async def test_merged_gives_what_exists_before_the_error(place: Place) -> None:
    @task(outputs="other")
    async def other(limit: int) -> AsyncIterator[str]:
        for letter in "ab":
            yield letter

    flow = Flow.from_tasks(other, halfway).resolve()
    async with place.service("numbers"), place.supervisor(tasks=[other]) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"limit": 6})
        found: list[object] = []
        with pytest.raises(TaskFailedError):
            await gather_until_error(run["number"].as_available(run["other"]), found)
        assert {0, 1, 2} <= set(found) <= {0, 1, 2, "a", "b"}


async def test_streams_that_are_not_open_inputs_cannot_be_written(ab: FlowRun) -> None:
    for io in (ab["a"], ab.inputs["n"]):
        with pytest.raises(ReadOnlyIOError, match="open_inputs=True"):
            await io.write(1)
    with pytest.raises(ReadOnlyIOError):
        await ab["a"].complete()
