"""Dead letters: what was given up is found with its reason, sent again once, or dropped."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from typing import Any, cast

import msgpack
import pytest

from datamesh import (
    IO,
    ConfigurationError,
    Context,
    Flow,
    FlowRun,
    IOVal,
    Retry,
    RunState,
    Supervisor,
    TamperedDataError,
    task,
)
from datamesh.errors import DeadLetterError
from datamesh.store.dead import DeadStream
from datamesh.store.keys import MeshKeys, ShardKeys
from datamesh.supervise.letter import DeadLetter
from tests.mesh.commands import datamesh
from tests.mesh.places import PATIENCE, Place, until
from tests.servers import Server

pytestmark = pytest.mark.anyio

NOWHERE = "0/1763640000000-0"
KEYS = (16 * "old", 16 * "new")
COMMANDS = 50.0
"""Seconds for a test that runs several commands; each takes one or two."""


class Shop:
    """A task that refuses numbers as long as it is told to, and what it has met."""

    def __init__(self) -> None:
        self.is_broken = True
        self.attempts: list[tuple[int, int]] = []

        @task(outputs="paid", on_error="dead", retry=Retry(attempts=2, backoff=0.01))
        async def pay(order: int, context: Context) -> int:
            self.attempts.append((order, context.attempt))
            if self.is_broken and order < 0:
                raise ValueError(f"order {order} [owes]")
            return 10 * order

        self.pay = pay
        self.flow = Flow.from_tasks(pay, name="shopping").resolve()


@pytest.fixture
def shop() -> Shop:
    return Shop()


async def buried(supervisor: Supervisor, *, count: int = 1, **chosen: Any) -> list[DeadLetter]:
    """Wait for letters, and return them newest first."""

    async def are_there() -> bool:
        return len(await supervisor.dead.list(**chosen)) >= count

    await until(are_there)
    return await supervisor.dead.list(**chosen)


async def finished(supervisor: Supervisor, flow: Flow, *values: Any, **options: Any) -> FlowRun:
    """A run of these values of the only input, that is over."""
    (name,) = flow.plan.inputs
    run = await supervisor.start_flow(flow, [IOVal(name, value) for value in values], **options)
    await run.wait()
    return run


# ------------------------------------------------------------------------------------------------------ looking


async def test_a_letter_says_whose_it_is_and_why(place: Place, shop: Shop) -> None:
    async with place.supervisor(name="till") as supervisor, asyncio.timeout(PATIENCE):
        run = await finished(supervisor, shop.flow, 1, -2, 3)
        assert (await run.status()).tasks["pay"].dead == 1
        (letter,) = await supervisor.dead.list()
        assert (letter.run_id, letter.flow, letter.task, letter.attempt) == (run.id, "shopping", "pay", 2)
        assert (letter.values, letter.lineages, letter.content()) == (1, ((1,),), [-2])
        assert (letter.error_type, letter.error) == (
            "ValueError",
            "task 'pay' failed at attempt 2: ValueError: order -2 [owes]",
        )
        assert "raise ValueError" in letter.remote_traceback
        assert letter.service.startswith("till.")
        assert abs(letter.time - ((await run.status()).ended or 0)) < 5
        assert 0 < letter.size_bytes < 20
        assert await supervisor.dead.get(letter.id) == letter


async def test_letters_of_all_shards_are_listed_newest_first_and_chosen(
    place: Place, server: Server, shop: Shop
) -> None:
    @task(outputs="checked", on_error="dead")
    async def check(item: int) -> int:
        raise OSError(item)

    checking = Flow.from_tasks(check).resolve()
    server.client.hset(MeshKeys(place.mesh).settings, "shards", 4)
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        runs = [await finished(supervisor, shop.flow, -n) for n in range(1, 9)]
        last = await finished(supervisor, checking, 7)
        found = await supervisor.dead.list()
        assert [letter.run_id for letter in found] == [last.id, *(run.id for run in reversed(runs))]
        assert len({letter.id.partition("/")[0] for letter in found}) > 1
        assert await supervisor.dead.list(limit=2) == found[:2]
        assert await supervisor.dead.list(run_id=runs[3].id) == [found[5]]
        assert await supervisor.dead.list(task="check") == found[:1]
        assert await supervisor.dead.list(task="check", run_id=runs[3].id) == []
        scanned = [letter async for letter in supervisor.dead.scan(task="pay")]
        assert sorted(letter.id for letter in scanned) == sorted(letter.id for letter in found[1:])
        assert await supervisor.dead.drop(*(letter.id for letter in found), NOWHERE) == 9
        assert await supervisor.dead.list() == []


async def test_a_letter_whose_entry_could_not_be_read(place: Place, server: Server) -> None:
    keys, client = ShardKeys(place.mesh, 0), cast(Any, server.client)
    raw = msgpack.packb([b"m", b"no\x1b[31m"])
    fields = {"w": keys.work("pay@1", ":high"), "x": "it cannot be read: \x1b[31mKeyError", "raw": raw}
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        entry_id = client.xadd(keys.dead, fields).decode()
        (letter,) = await supervisor.dead.list()
        assert (letter.id, letter.run_id, letter.flow, letter.task) == (f"0/{entry_id}", "", "?", "pay")
        assert (letter.values, letter.content(), letter.size_bytes) == (0, [], len(raw))
        assert letter.error == r"it cannot be read: \x1b[31mKeyError"
        with pytest.raises(DeadLetterError, match="could not be read"):
            await supervisor.dead.retry(letter.id)
        assert await supervisor.dead.list() == [letter]
        assert await supervisor.dead.drop(letter.id) == 1


@pytest.mark.parametrize("id", ["", "0", "0/", "0/x-0", "7/1-0", "1763640000000-0", "0/1-0/2"])
async def test_what_is_no_id_is_refused(place: Place, id: str) -> None:
    async with place.supervisor() as supervisor:
        for ask in (supervisor.dead.get, supervisor.dead.retry, supervisor.dead.drop):
            with pytest.raises(ConfigurationError, match="is no id of a dead letter"):
                await ask(id)


async def test_a_letter_that_is_not_there_is_told(place: Place) -> None:
    async with place.supervisor() as supervisor:
        with pytest.raises(DeadLetterError, match="there is none of this id") as caught:
            await supervisor.dead.get(NOWHERE)
        assert caught.value.letter == NOWHERE
        with pytest.raises(DeadLetterError):
            await supervisor.dead.retry(NOWHERE)
        with pytest.raises(ConfigurationError, match="limit=0"):
            await supervisor.dead.list(limit=0)
        with pytest.raises(ConfigurationError, match="run id"):
            await supervisor.dead.list(run_id="no run")


# ------------------------------------------------------------------------------------------------ sending again


async def test_it_goes_back_into_the_run_that_is_still_open(place: Place, shop: Shop) -> None:
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(shop.flow, [IOVal("order", -1)], open_inputs=True)
        (letter,) = await buried(supervisor)
        await run.inputs["order"].write(2)
        shop.is_broken = False
        (sent,) = await supervisor.dead.retry(letter.id)
        assert (sent.id, sent.run_id, sent.is_new_run) == (letter.id, run.id, False)
        await run.inputs["order"].complete()
        assert await run["paid"].collect(ordered=True) == [-10, 20]
        status = (await run.wait()).tasks["pay"]
        assert (status.done, status.dead, status.open) == (2, 0, 0)
        assert shop.attempts.count((-1, 1)) == 2, "its attempts begin anew"
        assert await supervisor.dead.list() == []
        with pytest.raises(DeadLetterError):
            await supervisor.dead.retry(letter.id)


async def test_it_is_buried_again_if_nothing_has_changed(place: Place, shop: Shop) -> None:
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(shop.flow, [IOVal("order", -1)], open_inputs=True)
        (first,) = await buried(supervisor)
        await supervisor.dead.retry(first.id)
        (second,) = await buried(supervisor)
        assert second.id != first.id
        assert (second.run_id, second.attempt, second.lineages) == (run.id, 2, first.lineages)
        assert (await run.status()).tasks["pay"].dead == 1
        await run.inputs["order"].complete()
        assert (await run.wait()).state == "done"


async def test_it_gets_a_run_of_its_own_when_its_run_is_over(place: Place, shop: Shop) -> None:
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        first = await finished(supervisor, shop.flow, 1, -2, priority=1)
        (letter,) = await supervisor.dead.list()
        shop.is_broken = False
        (sent,) = await supervisor.dead.retry(letter.id)
        assert sent.is_new_run
        run = await supervisor.get_run(sent.run_id)
        assert await run.result() == {"paid": [-20]}
        status = await run.wait()
        assert (status.state, status.flow, status.tasks["pay"].done) == ("done", "shopping", 1)
        assert await first.result() == {"paid": [10]}
        assert await supervisor.dead.list() == []
        assert [pair for pair in shop.attempts if pair[0] == -2] == [(-2, 1), (-2, 2), (-2, 1)]


async def test_its_run_of_its_own_is_started_once(place: Place, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one who sends it dies before the letter is gone, and somebody sends it again."""
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        await finished(supervisor, shop.flow, -2)
        (letter,) = await supervisor.dead.list()
        shop.is_broken = False
        with monkeypatch.context() as patch:
            patch.setattr(DeadStream, "drop", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                await supervisor.dead.retry(letter.id)
        (sent,) = await supervisor.dead.retry(letter.id)
        assert await (await supervisor.get_run(sent.run_id)).result() == {"paid": [-20]}
        assert [pair for pair in shop.attempts if pair[0] == -2] == [(-2, 1), (-2, 2), (-2, 1)]
        assert await supervisor.dead.list() == []


async def _interrupted(*_: object) -> int:
    raise KeyboardInterrupt


async def test_many_who_send_one_letter_send_it_once(place: Place, shop: Shop) -> None:
    async with place.supervisor() as one, place.supervisor() as other, asyncio.timeout(PATIENCE):
        await finished(one, shop.flow, -2)
        (letter,) = await one.dead.list()
        shop.is_broken = False
        both = [supervisor.dead.retry(letter.id) for supervisor in (one, other) for _ in range(5)]
        found = await asyncio.gather(*both, return_exceptions=True)
        sent = {one[0].run_id for one in found if isinstance(one, list)}
        assert len(sent) == 1
        assert all(isinstance(outcome, (list, DeadLetterError)) for outcome in found)
        assert await (await other.get_run(sent.pop())).result() == {"paid": [-20]}
        assert [pair for pair in shop.attempts if pair[0] == -2] == [(-2, 1), (-2, 2), (-2, 1)]


async def test_only_what_follows_the_task_runs_in_a_run_of_its_own(place: Place, server: Server) -> None:
    called: list[str] = []
    broken = [True]

    @task(outputs="number")
    async def count(limit: IO[int]) -> AsyncIterator[int]:
        called.append("count")
        for number in range(await limit.first()):
            yield number

    @task(outputs="listed", wait=True)
    async def audit(limit: IO[int]) -> int:
        called.append("audit")
        return await limit.first()

    @task(outputs="square", on_error="dead")
    def square(number: int) -> int:
        if number == 3 and broken[0]:
            raise ValueError(number)
        return number * number

    @task(outputs="total", wait=True)
    async def add(square: IO[int]) -> int:
        called.append("add")
        return sum(await square.collect())

    flow = Flow.from_tasks(count, audit, square, add).resolve()
    server.client.hset(MeshKeys(place.mesh).settings, "shards", 8)
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await finished(supervisor, flow, 5, all_outputs=True)
        assert await run["total"].collect() == [0 + 1 + 4 + 16]
        (letter,) = await supervisor.dead.list()
        assert letter.lineages == ((3,),)
        broken[0] = False
        called.clear()
        (sent,) = await supervisor.dead.retry(letter.id)
        again = await supervisor.get_run(sent.run_id)
        assert await again.result() == {"limit": [], "number": [], "listed": [], "square": [9], "total": [9]}
        assert called == ["add"]
        status = await again.status()
        assert status.state is RunState.DONE
        assert {name: one.open for name, one in status.tasks.items()} == dict.fromkeys(status.tasks, 0)


async def test_large_values_go_with_it_while_they_are_kept(place: Place, server: Server) -> None:
    broken = [True]

    @task(outputs="length", on_error="dead")
    async def measure(text: str) -> int:
        if broken[0]:
            raise ValueError("too long")
        return len(text)

    flow = Flow.from_tasks(measure).resolve()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        await finished(supervisor, flow, "a" * 100_000)
        gone = await finished(supervisor, flow, "b" * 100_000)
        newest, oldest = await supervisor.dead.list()
        assert newest.size_bytes > 100_000
        with pytest.raises(TamperedDataError, match="is not there"):
            newest.content()
        assert (await supervisor.dead.get(newest.id)).content() == ["b" * 100_000]
        server.client.delete(ShardKeys(place.mesh, 0).blobs(gone.id), ShardKeys(place.mesh, 0).run(gone.id))
        broken[0] = False
        with pytest.raises(DeadLetterError, match="large values of it were kept with run"):
            await supervisor.dead.retry(newest.id)
        with pytest.raises(TamperedDataError):
            (await supervisor.dead.get(newest.id)).content()
        (sent,) = await supervisor.dead.retry(oldest.id)
        assert await (await supervisor.get_run(sent.run_id)).result() == {"length": [100_000]}
        assert await supervisor.dead.list() == [newest]


async def test_a_plan_that_is_gone_is_told(place: Place, shop: Shop, server: Server) -> None:
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await finished(supervisor, shop.flow, -2)
    (plan,) = server.client.keys(ShardKeys(place.mesh, 0).plan("*"))
    server.client.delete(plan)
    async with place.supervisor(tasks=()) as supervisor, asyncio.timeout(PATIENCE):
        (letter,) = await supervisor.dead.list()
        assert (letter.flow, letter.task, letter.run_id) == ("?", "pay", run.id)
        with pytest.raises(DeadLetterError, match=f"the plan of run '{run.id}' is gone"):
            await supervisor.dead.retry(letter.id)
        assert await supervisor.dead.list() == [letter]


async def test_a_task_over_whole_streams_cannot_be_given_its_streams_again(place: Place) -> None:
    @task(outputs="total", on_error="dead")
    async def add(number: IO[int]) -> int:
        raise OSError("never")

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await finished(supervisor, Flow.from_tasks(add).resolve(), 1, 2)
        status = await run.status()
        assert (status.state, status.tasks["add"].dead) == ("done", 1)
        (letter,) = await supervisor.dead.list()
        assert (letter.values, letter.content(), letter.lineages) == (0, [], ())
        with pytest.raises(DeadLetterError, match="task 'add' takes whole streams") as caught:
            await supervisor.dead.retry(letter.id)
        assert "Start the flow again" in caught.value.fix


@pytest.mark.parametrize("keys", [(), KEYS])
async def test_what_a_generator_had_published_is_not_published_again(place: Place, keys: tuple[str, ...]) -> None:
    broken = [True]

    @task(outputs="part", on_error="dead")
    async def split(text: str) -> AsyncIterator[str]:
        for number, letter in enumerate(text):
            yield letter
            if number == 1 and broken[0]:
                await asyncio.sleep(0.2)
                raise OSError("half-way")

    flow = Flow.from_tasks(split).resolve()
    async with place.supervisor(signing_keys=keys) as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, [IOVal("text", "abcd")], open_inputs=True)
        (letter,) = await buried(supervisor)
        broken[0] = False
        assert not (await supervisor.dead.retry(letter.id))[0].is_new_run
        await run.inputs["text"].complete()
        assert await run["part"].collect() == ["a", "b", "c", "d"]
        assert (await run.status()).state is RunState.DONE


async def test_a_signed_letter_is_read_and_sent_by_who_has_the_keys(place: Place, shop: Shop, server: Server) -> None:
    async with place.supervisor(signing_keys=KEYS) as supervisor, asyncio.timeout(PATIENCE):
        await finished(supervisor, shop.flow, -1, -2)
        newest, oldest = await supervisor.dead.list()
        assert newest.content() == [-2]
        # Without the keys it is not even let in, while the mesh remembers that it is signed.
        signed = f"{{{place.mesh}}}:mesh"
        keys = server.client.hget(signed, "signed")
        server.client.hset(signed, "signed", "")
        async with place.supervisor(tasks=()) as stranger:
            with pytest.raises(TamperedDataError):
                (await stranger.dead.get(newest.id)).content()
            with pytest.raises(DeadLetterError, match="signing_keys"):
                await stranger.dead.retry(newest.id)
        shop.is_broken = False
        server.client.hset(signed, "signed", keys)
        async with place.supervisor(tasks=(), signing_keys=KEYS[::-1]) as operator:
            for letter in (newest, oldest):
                (sent,) = await operator.dead.retry(letter.id)
                assert await (await operator.get_run(sent.run_id)).result() == {"paid": [10 * letter.content()[0]]}


# ------------------------------------------------------------------------------------------------- the command


async def say(place: Place, *args: str) -> subprocess.CompletedProcess[str]:
    """Run `datamesh dead`."""
    return await asyncio.to_thread(datamesh, "dead", *args, "--url", place.url, mesh=place.mesh)


async def test_the_command_lists_and_shows(place: Place, shop: Shop) -> None:
    async with place.supervisor() as supervisor, asyncio.timeout(COMMANDS):
        await finished(supervisor, shop.flow, -1, run_id="r1")
        await finished(supervisor, shop.flow, -2, -3, run_id="r2")
        *_, oldest = found = await supervisor.dead.list()
        listed = (await say(place, "ls")).stdout.splitlines()
        assert [line.split()[0] for line in listed] == ["id", *(letter.id for letter in found)]
        assert listed[-1].endswith("ValueError: order -1 [owes]")
        rows = json.loads((await say(place, "ls", "--run", "r1", "--json")).stdout)
        assert [(row["id"], row["task"], row["lineages"]) for row in rows] == [(oldest.id, "pay", [[0]])]

        shown = (await say(place, "show", oldest.id)).stdout
        assert "run r1 of shopping, task pay, attempt 2" in shown
        assert "order -1 [owes]" in shown
        assert "Traceback (most recent call last)" in shown
        assert "value 0 of 1, lineage (0,):\n    -1\n" in shown
        assert json.loads((await say(place, "show", oldest.id, "--json")).stdout)["content"] == [-1]


async def test_the_command_sends_and_drops(place: Place, shop: Shop) -> None:
    async with place.supervisor() as supervisor, asyncio.timeout(COMMANDS):
        await finished(supervisor, shop.flow, -1, run_id="r1")
        await finished(supervisor, shop.flow, -2, -3, run_id="r2")
        *_, oldest = await supervisor.dead.list()
        shop.is_broken = False
        sent = await say(place, "retry", oldest.id, NOWHERE)
        assert sent.returncode == 1
        assert sent.stdout.startswith(f"{oldest.id} is under way in a run of its own, redrive-0-")
        assert f"dead letter {NOWHERE}: there is none of this id" in sent.stderr
        assert "error: 1 of the dead letters could not be dealt with" in sent.stderr
        run = await supervisor.get_run(sent.stdout.split()[-1])
        assert await run.result() == {"paid": [-10]}

        assert (await say(place, "drop", "--all", "--run", "r1")).stdout == ""
        dropped = await say(place, "drop", "--all", "--run", "r2", "--task", "pay")
        assert (dropped.returncode, len(dropped.stdout.splitlines())) == (0, 2)
        assert await supervisor.dead.list() == []


async def test_the_command_sends_all_of_a_run_once(place: Place, shop: Shop) -> None:
    async with place.supervisor() as supervisor, asyncio.timeout(COMMANDS):
        run = await supervisor.start_flow(shop.flow, [IOVal("order", -n) for n in (1, 2, 3)], open_inputs=True)
        await buried(supervisor, count=3)
        sent = await say(place, "retry", "--all", "--run", run.id)
        assert (sent.returncode, sent.stdout.count(f"is under way in run {run.id}\n")) == (0, 3)
        await buried(supervisor, count=3)
        shop.is_broken = False
        assert (await say(place, "retry", "--all")).returncode == 0
        await run.inputs["order"].complete()
        assert await run["paid"].collect(ordered=True) == [-10, -20, -30]


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["show", "nope"], 1, "error: 'nope' is no id of a dead letter of this mesh"),
        (["show", NOWHERE], 1, f"error: dead letter {NOWHERE}: there is none of this id"),
        (["retry"], 1, "error: no letter was named: pass ids"),
        (["drop", "--run", "r"], 1, "error: no letter was named: pass ids"),
        (["drop", NOWHERE, "--all"], 1, "error: both ids and --all were given"),
        (["retry", NOWHERE, "--task", "pay"], 1, "error: --run and --task choose among all letters"),
        (["drop", NOWHERE], 1, "error: 1 of the dead letters could not be dealt with"),
        (["ls", "--run", "no run"], 1, "error: 'no run' cannot be the name of a run id"),
        (["ls", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (["ls"], 0, "no dead letters in mesh"),
    ],
)
async def test_an_error_is_one_clear_line(place: Place, args: list[str], code: int, said: str) -> None:
    done = await say(place, *args)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
