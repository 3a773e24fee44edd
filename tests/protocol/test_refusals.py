"""What goes wrong inside a script leaves everything as it was; and what must work when memory is out does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from datamesh.errors import StoreUnavailableError
from datamesh.model.modes import Mode
from datamesh.model.task import Task
from datamesh.store.frames import Burial, Delivery, Requeue, Settlement
from datamesh.store.link import ReplyError
from datamesh.store.protocol import ShardProtocol
from tests.protocol.rig import HOUR_MS, LEASE_MS, Rig, frame, frames, on_both_servers
from tests.servers import Server

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")
B = Task("b", "mid", "out")
W = Task("w", "out", "last", wait=True)
PLANTED = "this is a text"

Call = Callable[[], Awaitable[object]]
Scene = Callable[[Rig], Awaitable[Call]]


async def _run(rig: Rig, values: int = 1, **options: Any) -> list[Delivery]:
    """A run of a chain, with all that may be kept of it, and what a member `m` has taken of it."""
    bound = await rig.bind(A, B, W)
    await rig.join("m", slots=9)
    await rig.start(bound, values=values, **options)
    await rig.protocol.listen("R")
    return await rig.take("m")


async def _taken(rig: Rig) -> Delivery:
    (delivery,) = await _run(rig)
    return delivery


async def settling_the_last_value(rig: Rig) -> Call:
    delivery = await _taken(rig)
    return lambda: rig.settle("m", Settlement(delivery, done=1))


async def settling_with_outputs(rig: Rig) -> Call:
    first, *_ = await _run(rig, 40)
    outputs = [(1, some) for some in frames(range(20))]
    return lambda: rig.settle("m", Settlement(first, done=1, outputs=outputs))


async def settling_several(rig: Rig) -> Call:
    first, *others = await _run(rig, 4)
    outcomes = [
        Settlement(first, step=1, mark=b"mark", outputs=[(1, frame([1]))]),
        Settlement(others[0], retries=[Requeue(others[0].frame, 2)]),
        Settlement(others[1], returned=[Requeue(others[1].frame, 1)] * 30),
        Settlement(others[2], burials=[Burial(others[2].frame, 1, b"why")]),
    ]
    return lambda: rig.settle("m", *outcomes)


async def failing(rig: Rig) -> Call:
    first, *_ = await _run(rig, 40, deadline_ms=HOUR_MS)
    return lambda: rig.settle("m", Settlement(first, outputs=[(1, frame([1]))], failure=b"why"))


async def starting(rig: Rig) -> Call:
    bound = await rig.bind(A, B, W, Task("s", "in", "x"), s=Mode.STREAM)
    await rig.protocol.put_blobs("R", {"d": b"body"})
    submission = rig.submission(bound, inputs={"in": frames(range(20))}, deadline_ms=HOUR_MS)
    return lambda: rig.protocol.submit(submission)


async def starting_without_values(rig: Rig) -> Call:
    bound = await rig.bind(A, B)
    submission = rig.submission(bound)
    return lambda: rig.protocol.submit(submission)


async def starting_with_what_was_brought_in(rig: Rig) -> Call:
    bound = await rig.bind(A)
    staged = [
        (kind, 0, await rig.protocol.stage("R", "t", kind, 0, 1, frames(range(20))), 20, 20) for kind in ("s", "b")
    ]
    return lambda: rig.protocol.submit(rig.submission(bound, staged=staged))


async def bringing_in(rig: Rig) -> Call:
    await rig.protocol.stage("R", "t", "b", 0, 1, frames([1]))
    return lambda: rig.protocol.stage("R", "t", "b", 0, 2, frames([2]))


async def waiting(rig: Rig) -> Call:
    key = await rig.protocol.stage("R", "t", "b", 0, 1, frames([1]))
    return lambda: rig.protocol.wait(
        "R", origin="o", retention_ms=HOUR_MS, request=b"r", taps="0 1", level="", staged=[key], deadline_ms=HOUR_MS
    )


async def starting_what_waited(rig: Rig) -> Call:
    bound = await rig.bind(A)
    await (await waiting(rig))()
    submission = rig.submission(bound, inputs={"in": frames([1])}, origin="o")
    return lambda: rig.protocol.submit(submission)


async def cancelling_what_waits(rig: Rig) -> Call:
    await (await waiting(rig))()
    return lambda: rig.protocol.end("R", state="cancelled")


async def cancelling(rig: Rig) -> Call:
    await _run(rig, 40, deadline_ms=HOUR_MS)
    return lambda: rig.protocol.end("R", state="cancelled")


async def writing(rig: Rig) -> Call:
    await _run(rig, 3, complete=False)
    return lambda: rig.protocol.push("R", 0, writer="w", number=1, frames=frames(range(20)))


async def closing(rig: Rig) -> Call:
    (delivery,) = await _run(rig, 1, complete=False)
    await rig.settle("m", Settlement(delivery, done=1))
    return lambda: rig.protocol.push("R", 0, writer="w", number=1, frames=[], close=True)


async def promoting(rig: Rig) -> Call:
    first, second = await _run(rig, 2)
    await rig.settle("m", *(Settlement(d, retries=[Requeue(d.frame, 2)]) for d in (first, second)))
    return rig.protocol.promote


async def promoting_a_deadline(rig: Rig) -> Call:
    await _run(rig, 40, deadline_ms=HOUR_MS)
    rig.client.zadd(rig.keys.due, {"deadline R": 1})
    return rig.protocol.promote


async def joining(rig: Rig) -> Call:
    await _taken(rig)
    await rig.join("n")
    return lambda: rig.join("m2", slots=20, former="m")


async def beating(rig: Rig) -> Call:
    await _taken(rig)
    return lambda: rig.protocol.beat("m", lease_ms=LEASE_MS)


async def leaving(rig: Rig) -> Call:
    await _taken(rig)
    return lambda: rig.protocol.leave("m")


async def reaping(rig: Rig) -> Call:
    delivery = await _taken(rig)
    await rig.settle("m", Settlement(delivery, step=1, mark=b"mark"))
    await rig.join("n")
    rig.expire("m")
    return lambda: rig.protocol.reap("n", slots=5, works=rig.works)


async def recovering(rig: Rig) -> Call:
    await _taken(rig)
    return lambda: rig.protocol.recover("m", works=rig.works)


async def taking(rig: Rig) -> Call:
    await _run(rig, 3)
    await rig.join("n")
    return lambda: rig.take("n")


async def sweeping(rig: Rig) -> Call:
    bound = await rig.bind(A)
    await rig.start(bound, retention_ms=0)
    return rig.protocol.sweep


async def keeping_large_values(rig: Rig) -> Call:
    await _taken(rig)
    return lambda: rig.protocol.put_blobs("R", {"d": b"body"})


async def listening(rig: Rig) -> Call:
    bound = await rig.bind(A)
    await rig.start(bound, values=1)
    return lambda: rig.protocol.listen("R")


SCENES: list[Scene] = [
    settling_the_last_value, settling_with_outputs, settling_several, failing, starting, starting_without_values,
    starting_with_what_was_brought_in, bringing_in, waiting, starting_what_waited, cancelling_what_waits, cancelling,
    writing, closing, promoting, promoting_a_deadline, joining, beating, leaving, reaping, recovering, taking, sweeping,
    keeping_large_values, listening,
]  # fmt: skip
ALLOWED_WITHOUT_MEMORY: list[Scene] = [
    settling_the_last_value, settling_with_outputs, settling_several, failing, cancelling_what_waits, cancelling,
    promoting, promoting_a_deadline, joining, beating, leaving, reaping, recovering, taking, sweeping, listening,
]  # fmt: skip
REFUSED_WITHOUT_MEMORY = [scene for scene in SCENES if scene not in ALLOWED_WITHOUT_MEMORY]


def _plant(rig: Rig, key: str) -> None:
    rig.client.delete(key)
    rig.client.set(key, PLANTED)


@pytest.mark.leaves_runs
@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
async def test_a_key_of_another_kind_stops_a_script_before_it_writes(rig: Rig, scene: Scene) -> None:
    call = await scene(rig)
    keys = {key.decode() for key in rig.client.scan_iter()}
    await call()
    keys |= {key.decode() for key in rig.client.scan_iter()} | {rig.keys.events("R"), rig.keys.stream("R", 1)}
    refused = set()
    for key in sorted(keys - {rig.keys.stage("R", "t") + ":b:0:n"}):
        rig.client.flushall()
        rig.works.clear()
        call = await scene(rig)
        _plant(rig, key)
        before = rig.snapshot()
        code = await _refusal(call)
        # Valkey makes a consumer for who reads, also where there is nothing to read.
        assert not code or scene is taking or rig.snapshot() == before, key
        refused.add(code)
    assert refused == {"WRONGTYPE", ""}


async def _refusal(call: Call) -> str:
    try:
        await call()
    except ReplyError as error:
        return error.code
    return ""


@pytest.mark.leaves_runs
@pytest.mark.parametrize(
    "scene", [settling_with_outputs, failing, cancelling, writing, promoting, promoting_a_deadline]
)
async def test_a_plan_that_is_gone_stops_a_script_before_it_writes(rig: Rig, scene: Scene) -> None:
    call = await scene(rig)
    rig.client.delete(*(rig.keys.plan(digest) for digest in rig.bounds))
    before = rig.snapshot()
    with pytest.raises(ReplyError, match="the plan of run R is gone"):
        await call()
    assert rig.snapshot() == before


@pytest.fixture
async def without_memory(server: Server, rig: Rig) -> AsyncIterator[Callable[[], None]]:
    """Call it to have the memory of the server used up until the test ends."""
    rig.protocol = ShardProtocol(rig.keys, rig.protocol.link, rig.endpoint, patience=0.0)

    def use_up() -> None:
        server.client.config_set("maxmemory", 1)

    yield use_up
    server.client.config_set("maxmemory", 0)


@pytest.mark.leaves_runs
@pytest.mark.parametrize("scene", ALLOWED_WITHOUT_MEMORY, ids=lambda scene: scene.__name__)
async def test_accepted_work_goes_on_when_memory_is_out(
    rig: Rig, scene: Scene, without_memory: Callable[[], None]
) -> None:
    call = await scene(rig)
    without_memory()
    assert await call() not in (["FENCED"], False)


@pytest.mark.leaves_runs
@pytest.mark.parametrize("scene", REFUSED_WITHOUT_MEMORY, ids=lambda scene: scene.__name__)
async def test_new_work_is_refused_as_a_whole_when_memory_is_out(
    rig: Rig, scene: Scene, without_memory: Callable[[], None]
) -> None:
    call = await scene(rig)
    before = rig.snapshot()
    without_memory()
    with pytest.raises(StoreUnavailableError, match="OOM"):
        await call()
    assert rig.snapshot() == before
