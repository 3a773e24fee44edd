"""Health: what breaks in a service is seen, begun again, and given up with the service if that does not help."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from datamesh import Flow, IOVal, ServiceBrokenError, Supervisor, task
from datamesh.supervise import oversight
from datamesh.supervise.health import ActorHealth, Health, ServiceState
from datamesh.supervise.session import Session
from datamesh.supervise.timers import Timers
from tests.mesh.places import PATIENCE, Place, until
from tests.servers import Server

pytestmark = pytest.mark.anyio

RED_SECONDS = 10.0
ACTORS = {"intake", "settler", "timers", "news", "readers", "heartbeat", "waiting", "run-scopes", "store-watch"}


class Break(Exception):
    """What the tests break actors with."""


@pytest.fixture
def double() -> Any:
    @task(outputs="m")
    async def double(n: int) -> int:
        return 2 * n

    return double


def once(original: Callable[..., Any]) -> Callable[..., Any]:
    """Raise at the first call, and do what is to be done from then on."""
    calls = 0

    def call(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Break("on purpose")
        return original(*args, **options)

    return call


def always(*args: Any, **options: Any) -> Any:
    raise Break("on purpose")


def actor(health: Health, name: str) -> ActorHealth:
    (found,) = (one for one in health.actors if one.name == name)
    return found


async def works(supervisor: Supervisor, flow: Flow, n: int) -> bool:
    """Whether a run comes to its end, and a cancelled one is heard of."""
    async with asyncio.timeout(PATIENCE):
        return await (await supervisor.start_flow(flow, {"n": n})).result() == {"m": [2 * n]}


# --------------------------------------------------------------------------------------------------- what is told


async def test_a_service_tells_where_it_stands_from_its_start_to_its_end(place: Place, double: Any) -> None:
    supervisor = place.supervisor(concurrency=7)
    assert supervisor.health() == Health(ServiceState.STARTING)
    async with supervisor:
        health = supervisor.health()
        assert (health.state, health.is_healthy, health.is_ready) == (ServiceState.WORKING, True, True)
        assert {one.name for one in health.actors} == ACTORS | {"oversight"}
        assert (health.slots_used, health.slots_total, health.hung_threads) == (0, 7, 0)
    assert supervisor.health().state is ServiceState.STOPPED
    assert not supervisor.health().is_healthy


async def test_a_draining_service_is_healthy_but_not_ready(place: Place) -> None:
    began = asyncio.Event()

    @task(outputs="m")
    async def nap(n: int) -> int:
        began.set()
        await asyncio.sleep(0.5)
        return n

    async with place.supervisor(tasks=[]) as other:
        supervisor = place.supervisor()
        run = await supervisor.start_flow(Flow.from_tasks(nap).resolve(), {"n": 1})
        await began.wait()
        draining = asyncio.create_task(supervisor.drain())
        await asyncio.sleep(0.1)
        health = supervisor.health()
        assert (health.state, health.is_healthy, health.is_ready) == (ServiceState.DRAINING, True, False)
        assert health.slots_used == 1
        await draining
        assert await (await other.get_run(run.id)).result() == {"m": [1]}


async def test_asking_costs_no_command_and_an_idle_service_next_to_none(
    place: Place, server: Server, double: Any
) -> None:
    async with place.supervisor(lease=10.0) as supervisor:
        await asyncio.sleep(1.0)
        before = _commands(server)
        began = time.monotonic()
        while time.monotonic() - began < 5.0:
            assert supervisor.health().is_healthy
            await asyncio.sleep(0.01)
        assert (_commands(server) - before) / 5.0 <= 2.0


def _commands(server: Server) -> int:
    """How many came over connections: those that ran within a script came with it."""
    told: Any = server.client.info("commandstats")
    inside = {"zrem", "zrange", "zcount", "zadd", "zscore", "zcard", "pexpire", "time"}
    return sum(one["calls"] for name, one in told.items() if name.removeprefix("cmdstat_") not in {*inside, "info"})


async def test_a_store_that_is_silent_makes_it_unhealthy_until_it_answers(
    place: Place, server: Server, double: Any
) -> None:
    flow = Flow.from_tasks(double).resolve()
    async with place.supervisor(lease=4.0) as supervisor:
        server.pause()
        try:
            began = time.monotonic()
            await until(_is(supervisor, lambda health: not actor(health, "heartbeat").is_healthy), seconds=RED_SECONDS)
            await until(_is(supervisor, lambda health: not actor(health, "intake").is_healthy), seconds=RED_SECONDS)
            assert time.monotonic() - began < RED_SECONDS
            assert supervisor.health().state is ServiceState.WORKING
        finally:
            server.resume()
        await until(_is(supervisor, lambda health: health.is_ready))
        assert await works(supervisor, flow, 4)


def _is(supervisor: Supervisor, condition: Callable[[Health], bool]) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return condition(supervisor.health())

    return look


async def test_who_has_no_slot_or_nothing_to_do_is_healthy(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    release = asyncio.Event()

    @task(outputs="m")
    async def hold(n: int) -> int:
        await release.wait()
        return n

    async with place.supervisor(concurrency=1) as supervisor:
        session = await supervisor.session()
        for pulse in session._oversight.pulses:
            pulse._within = 3.0
        run = await supervisor.start_flow(Flow.from_tasks(hold).resolve(), {"n": 1})
        await until(_is(supervisor, lambda health: actor(health, "intake").is_resting))
        began = time.monotonic()
        while time.monotonic() - began < 4.0:
            assert supervisor.health().is_healthy, supervisor.health()
            await asyncio.sleep(0.05)
        release.set()
        assert await run["m"].first() == 1


# ------------------------------------------------------------------------------------------------- what breaks


def break_intake(session: Session) -> None:
    session.slots.wait_free = once(session.slots.wait_free)  # type: ignore[method-assign]


def break_settler(session: Session) -> None:
    settler = session.members[0]._settler
    settler._patiently = once(settler._patiently)  # type: ignore[method-assign]


def break_timers(session: Session) -> None:
    timers = session.members[0]._timers
    timers._act = once(timers._act)  # type: ignore[method-assign]
    timers.due_in(1)


def break_news(session: Session) -> None:
    session._news[0]._heard = once(session._news[0]._heard)


def break_readers(session: Session) -> None:
    tails = session.store.shards[0].tails
    tails._look = once(tails._look)  # type: ignore[method-assign]


def break_heartbeat(session: Session) -> None:
    session._heartbeat._beat = once(session._heartbeat._beat)  # type: ignore[method-assign]


def break_run_scopes(session: Session) -> None:
    session._scopes._active = once(session._scopes._active)


def break_store_watch(session: Session) -> None:
    assert session._store_watch._task is not None
    session._store_watch._task.cancel()


@pytest.mark.parametrize(
    "break_it",
    [
        break_intake,
        break_settler,
        break_timers,
        break_news,
        break_readers,
        break_heartbeat,
        break_run_scopes,
        break_store_watch,
    ],
)
async def test_an_actor_that_breaks_is_logged_and_begun_again(
    place: Place, double: Any, break_it: Callable[[Session], None], caplog: pytest.LogCaptureFixture
) -> None:
    name = break_it.__name__.removeprefix("break_").replace("_", "-")
    flow = Flow.from_tasks(double).resolve()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        assert await works(supervisor, flow, 1)
        break_it(await supervisor.session())
        began = time.monotonic()
        if name != "readers":  # whoever comes to read would begin it again
            # News come of runs that end early.
            await (await supervisor.start_flow(flow, {"n": 1}, open_inputs=True)).cancel()
        results = asyncio.create_task(works(supervisor, flow, 2)) if name != "readers" else None
        await until(_is(supervisor, lambda health: actor(health, name).restarts == 1), seconds=RED_SECONDS)
        await until(_is(supervisor, lambda health: health.is_ready), seconds=RED_SECONDS)
        assert time.monotonic() - began < RED_SECONDS
        assert results is None or await results
        assert await works(supervisor, flow, 3)
    (record,) = (record for record in caplog.records if record.name == "datamesh.oversight")
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert f"{name}" in record.getMessage()


@pytest.mark.parametrize("name", sorted(ACTORS - {"heartbeat"}))
async def test_an_actor_that_somebody_cancels_is_begun_again(place: Place, double: Any, name: str) -> None:
    flow = Flow.from_tasks(double).resolve()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        session = await supervisor.session()
        if name == "waiting":
            await until(_is(supervisor, lambda health: actor(health, name).is_resting))
            session._loops[1].start()
        elif name == "settler":
            session.members[0]._settler.restart()
        names = {"readers": "datamesh-tails"}
        (running,) = (t for t in asyncio.all_tasks() if t.get_name() == names.get(name, f"datamesh-{name}"))
        running.cancel()
        await until(_is(supervisor, lambda health: actor(health, name).restarts == 1))
        assert await works(supervisor, flow, 2)
        await until(_is(supervisor, lambda health: health.is_ready))


async def test_a_settlement_that_breaks_is_not_lost_and_not_doubled(place: Place) -> None:
    seen: list[int] = []

    @task(outputs="m")
    async def note(n: int) -> int:
        seen.append(n)
        return n

    flow = Flow.from_tasks(note).resolve()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        session = await supervisor.session()
        break_settler(session)
        run = await supervisor.start_flow(flow, [IOVal("n", n) for n in range(50)])
        assert sorted((await run.result())["m"]) == list(range(50))
        assert set(seen) == set(range(50))
        assert (await run.status()).tasks[note.name].done == 50


# ------------------------------------------------------------------------------------------ what stays broken


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between restarts that a test can wait for."""
    monkeypatch.setattr(oversight, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(oversight, "_LOOK_SECONDS", 0.02)


@pytest.mark.usefixtures("hasty")
async def test_what_breaks_again_and_again_takes_the_service_with_it(
    place: Place, server: Server, double: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Timers, "_until_due", always)
    supervisor = place.supervisor()
    async with asyncio.timeout(RED_SECONDS):
        with pytest.raises(ServiceBrokenError, match="timers of shard 0 cannot be kept going"):
            await supervisor.serve()
    health = supervisor.health()
    assert (health.state, health.is_healthy) == (ServiceState.BROKEN, False)
    assert "on purpose" in health.error
    assert actor(health, "timers").restarts == oversight.MOST_RESTARTS + 1
    assert "timers of shard 0 broke 6 times within 60 s" in caplog.text
    assert server.client.zcard(f"{{{place.mesh}:0}}:members") == 0, "others would have to wait for its lease"


@pytest.mark.usefixtures("hasty")
async def test_a_program_that_goes_on_works_anew_with_its_next_flow(
    place: Place, double: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = Flow.from_tasks(double).resolve()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        with monkeypatch.context() as broken:
            broken.setattr(Timers, "_until_due", always)
            (await supervisor.session()).members[0]._timers.due_in(1)
            await until(_is(supervisor, lambda health: health.state is ServiceState.BROKEN))
        assert await works(supervisor, flow, 3)
        assert supervisor.health().is_ready


async def test_nobody_watches_over_the_oversight_but_it_does_not_end_unseen(place: Place, double: Any) -> None:
    supervisor = place.supervisor()
    serving = asyncio.create_task(supervisor.serve())
    await until(_is(supervisor, lambda health: health.is_ready))
    (running,) = (t for t in asyncio.all_tasks() if t.get_name() == "datamesh-oversight")
    running.cancel()
    with pytest.raises(ServiceBrokenError, match="oversight"):
        await serving


# ------------------------------------------------------------------------------------------------- together


async def test_the_end_of_one_service_changes_nothing_for_another(place: Place, server: Server, double: Any) -> None:
    flow = Flow.from_tasks(double).resolve()
    members = f"{{{place.mesh}:0}}:members"
    async with place.supervisor() as stays:
        async with place.supervisor():
            assert server.client.zcard(members) == 2
        assert server.client.zcard(members) == 1
        assert stays.health().is_ready
        assert await works(stays, flow, 1)


async def test_threads_that_hang_are_counted(place: Place) -> None:
    release = asyncio.Event()
    loop = asyncio.get_running_loop()

    @task(outputs="m")
    def hang(n: int) -> int:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result()
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(hang).resolve(), {"n": 1})
        await until(_is(supervisor, lambda health: health.slots_used == 1))
        await run.cancel()
        await until(_is(supervisor, lambda health: health.hung_threads == 1))
        assert supervisor.health().is_healthy
        release.set()
        await until(_is(supervisor, lambda health: health.hung_threads == 0 and health.slots_used == 0))
        with suppress(Exception):
            await run.wait()
