"""Dependencies in a running mesh: scopes, cleaning up, overrides."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated

import fastapi
import pytest

from datamesh import IO, Context, DependencyError, Depends, Flow, IOVal, Task, TaskFailedError, task
from tests.mesh.places import PATIENCE, Place

pytestmark = pytest.mark.anyio


async def test_a_service_is_built_once_under_concurrency_and_cleaned_up_by_the_drain(place: Place) -> None:
    built, closed = [], []

    async def get_model() -> AsyncIterator[str]:
        built.append(1)
        await asyncio.sleep(0.05)
        yield "model"
        closed.append(1)

    @task(outputs="m")
    async def use(n: int, model: Annotated[str, Depends(get_model, scope="service")]) -> str:
        await asyncio.sleep(0.01)
        return model

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        flow = Flow.from_tasks(use).resolve()
        runs = await asyncio.gather(*(supervisor.start_flow(flow, {"n": n}) for n in range(50)))
        assert await asyncio.gather(*(run["m"].first() for run in runs)) == ["model"] * 50
        assert (len(built), closed) == (1, [])
    assert (len(built), len(closed)) == (1, 1)


async def test_a_call_is_cleaned_up_after_each_invocation_also_on_errors(place: Place) -> None:
    events = []

    def get_session() -> Iterator[str]:
        events.append("open")
        try:
            yield "session"
        except ValueError:
            events.append("saw the error")
            raise
        finally:
            events.append("close")

    @task(outputs="m", on_error="skip")
    async def use(n: int, session: Annotated[str, Depends(get_session)]) -> int:
        if n == 1:
            raise ValueError("one")
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(use).resolve(), [IOVal("n", i) for i in range(3)])
        assert sorted(await run["m"].collect()) == [0, 2]
    assert (events.count("open"), events.count("close"), events.count("saw the error")) == (3, 3, 1)


async def test_a_run_shares_what_has_its_scope(place: Place) -> None:
    built: list[str] = []
    closed: list[str] = []

    async def get_cart() -> AsyncIterator[list[int]]:
        built.append("cart")
        yield []
        closed.append("cart")

    @task(outputs="m")
    async def collect(n: int, cart: Annotated[list[int], Depends(get_cart, scope="run")]) -> int:
        cart.append(n)
        await asyncio.sleep(0.01)
        return len(cart)

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        flow = Flow.from_tasks(collect).resolve()
        runs = [await supervisor.start_flow(flow, [IOVal("n", i) for i in range(5)]) for _ in range(2)]
        for run in runs:
            assert max(await run["m"].collect()) == 5
        assert len(built) == 2
    assert len(closed) == 2


async def test_overrides_in_a_running_mesh(place: Place) -> None:
    def get_db() -> str:
        return "real"

    async def fake_db() -> str:
        return "fake"

    @task(outputs="m")
    async def use(n: int, db: str = Depends(get_db)) -> str:
        return db

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        flow = Flow.from_tasks(use).resolve()
        with supervisor.override({get_db: fake_db}):
            assert await (await supervisor.start_flow(flow, {"n": 1}))["m"].first() == "fake"
        assert await (await supervisor.start_flow(flow, {"n": 1}))["m"].first() == "real"


async def test_nested_dependencies_classes_and_those_of_fastapi(place: Place) -> None:
    def get_base() -> int:
        return 40

    class Adder:
        def __init__(self, base: Annotated[int, fastapi.Depends(get_base)]) -> None:
            self.base = base

        def add(self, n: int) -> int:
            return self.base + n

    @task(outputs="m")
    def use(n: int, adder: Annotated[Adder, Depends(Adder)]) -> int:
        return adder.add(n)

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(use).resolve(), {"n": 2})
        assert await run["m"].first() == 42


async def test_the_context_tells_of_the_invocation(place: Place) -> None:
    @task(outputs="told")
    async def tell(n: IO[int], context: Context) -> AsyncIterator[tuple[str, str, int, bool]]:
        async for _ in n:
            context.log.info("a value")
            context.progress(1, 2)
            yield context.run_id, context.task, context.attempt, context.cancelled

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(tell).resolve(), {"n": 1})
        assert await run["told"].first() == (run.id, "tell", 1, False)


async def test_progress_is_logged_at_most_once_a_second(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    @task(outputs="told")
    async def tell(n: int, context: Context) -> int:
        context.progress(1, 2)
        context.progress(2, 2)  # within the same second
        return n

    caplog.set_level("INFO", "datamesh.task.tell")
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(tell).resolve(), {"n": 1})
        assert await run["told"].first() == 1
    assert [record.getMessage() for record in caplog.records if record.name == "datamesh.task.tell"] == ["1 of 2 done"]


async def test_a_dependency_that_fails_fails_the_task(place: Place) -> None:
    async def get_db() -> str:
        raise ConnectionError("no database")

    @task(outputs="m")
    async def use(n: int, db: Annotated[str, Depends(get_db)]) -> str:
        return db

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(use).resolve(), {"n": 1})
        with pytest.raises(TaskFailedError, match="ConnectionError: no database"):
            await run["m"].first()


def test_refused_at_registration() -> None:
    def get_call() -> int:
        return 1

    def get_service(call: Annotated[int, Depends(get_call, scope="call")]) -> int:
        return call

    with pytest.raises(DependencyError, match="call"):

        @task(outputs="m")
        async def longer_needs_shorter(n: int, s: Annotated[int, Depends(get_service, scope="service")]) -> int:
            return n

    declared = Task("unknown", inputs="n", outputs="m")
    with pytest.raises(DependencyError, match="'what'"):

        @declared
        async def _unknown(n: int, what: int) -> int:
            return n
