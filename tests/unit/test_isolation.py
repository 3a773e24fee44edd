"""Isolation: a value that runs alone in a child process, and what becomes of both."""

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from datamesh.supervise.child_process import ChildProcess
from datamesh.supervise.child_wire import Call, Opening, packed, read, receive, send
from datamesh.supervise.isolation import Died, Finished
from datamesh.supervise.thread_feed import Pair
from tests.mesh.services import suspects
from tests.unit.isolating import (
    KILLED,
    SEGFAULT,
    children,
    failure_of,
    gone,
    isolated,
    pairs_of,
    written,
)

pytestmark = pytest.mark.anyio

# ------------------------------------------------------------------------------------------------- who dies


@pytest.mark.parametrize("name", ["touchy", "threaded"])
async def test_only_the_child_dies_and_the_next_value_runs_in_another(name: str) -> None:
    async with isolated(name) as run:
        ((_, first),) = pairs_of(await run("well"))
        ((_, second),) = pairs_of(await run("well"))
        assert first == second != os.getpid()
        assert await run("kill") == Died(KILLED)
        ((_, third),) = pairs_of(await run("well"))
        assert third not in (first, os.getpid())


@pytest.mark.parametrize(("how", "status"), [("segv", SEGFAULT), ("exit", 3), ("leave children", KILLED)])
async def test_every_way_to_die(how: str, status: int) -> None:
    async with asyncio.timeout(15), isolated("touchy") as run:
        assert await run(how) == Died(status)


async def test_a_generator_dies_after_it_has_given_values() -> None:
    passed: list[Pair] = []
    async with isolated("counting") as run:
        assert await run(-3, accept=passed.extend) == Died(KILLED)
    assert passed in ([("number", n) for n in range(count)] for count in range(4))


async def test_a_child_that_dies_while_nothing_runs_is_replaced() -> None:
    async with isolated("touchy") as run:
        ((_, first),) = pairs_of(await run("well"))
        os.kill(first, signal.SIGKILL)
        await gone(first)
        ((_, second),) = pairs_of(await run("well"))
        assert second != first


async def test_signals_for_the_whole_group_are_the_service_s_affair() -> None:
    async with isolated("signalled") as run:
        assert pairs_of(await run("alive")) == [("survived", "alive")]


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel chooses another way")
async def test_where_memory_runs_out_the_child_is_the_first_to_go() -> None:
    async with isolated("touchy") as run:
        ((_, pid),) = pairs_of(await run("well"))
        assert await asyncio.to_thread(Path(f"/proc/{pid}/oom_score_adj").read_text) == "1000\n"


async def test_an_end_that_is_cancelled_kills() -> None:
    child = await ChildProcess.start()
    ending = asyncio.create_task(child.end(60))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert not child.is_alive


# -------------------------------------------------------------------------------------------- what it gives


@pytest.mark.parametrize("name", ["counting", "counting_in_thread"])
async def test_generators(name: str) -> None:
    async with isolated(name) as run:
        assert pairs_of(await run(1000)) == [("number", n) for n in range(1000)]
        assert pairs_of(await run(0)) == []


@pytest.mark.parametrize("name", ["counting", "counting_in_thread"])
async def test_what_a_generator_yields_is_passed_on_while_there_is_room(name: str) -> None:
    passed: list[Pair] = []
    rooms: list[asyncio.Future[None]] = []

    def accept(pairs: list[Pair]) -> asyncio.Future[None]:
        assert all(room.done() for room in rooms), "it was told to wait"
        passed.extend(pairs)
        rooms.append(asyncio.get_running_loop().create_future())
        asyncio.get_running_loop().call_soon(rooms[-1].set_result, None)
        return rooms[-1]

    async with isolated(name) as run:
        assert pairs_of(await run(200, accept=accept)) == []
    assert passed == [("number", n) for n in range(200)]


async def test_values_of_several_outputs_keep_their_order() -> None:
    async with isolated("sorting") as run:
        assert pairs_of(await run(4)) == [("even", 0), ("odd", 1), ("even", 2), ("odd", 3)]


async def test_a_model_goes_in_and_out() -> None:
    async with isolated("older") as run:
        ((_, found),) = pairs_of(await run(suspects.Person(name="Ada", born=1815)))
        assert found == suspects.Person(name="Ada", born=1814)
        assert type(found) is suspects.Person


async def test_a_large_value_goes_in_and_out() -> None:
    content = os.urandom(5_000_000)
    async with isolated("turned") as run:
        assert pairs_of(await run(content)) == [("turned", content[::-1])]


async def test_dependencies_are_resolved_in_the_child() -> None:
    before = list(suspects.builds)
    async with isolated("depending") as run:
        first = pairs_of(await run("a"))[0][1]
        second = pairs_of(await run("b", attempt=2, run_id="r2"))[0][1]
    assert first == ["a", first[1], "session of r1", "suspect", "1", "7-1"]
    assert second == ["b", first[1], "session of r2", "suspect", "2", "7-1"]
    assert first[1].startswith("connection 1 of ")
    assert suspects.builds == before


async def test_a_checkpoint_is_nothing_to_stumble_over() -> None:
    async with isolated("marking") as run:
        assert pairs_of(await run(3)) == [("number", 0), ("number", 1), ("number", 2)]


async def test_functions_may_start_processes() -> None:
    async with isolated("starting") as run:
        assert pairs_of(await run("a")) == [("status", 0)]


async def test_logs_arrive_at_the_service_and_prints_at_its_standard_error(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO):
        async with isolated("talking") as run:
            assert pairs_of(await run("hello")) == [("said", "hello")]
    heard = [record for record in caplog.records if record.name == "suspects"]
    assert [(record.getMessage(), record.levelno) for record in heard] == [("heard hello", logging.WARNING)]
    assert vars(heard[0])["word"] == "hello"
    assert vars(heard[0])["number"] == str(2**80)
    told = [record for record in caplog.records if record.name == "datamesh.task.suspect"]
    assert [(record.getMessage(), vars(record)["run_id"]) for record in told] == [("1 of 2 done", "r1")]
    assert capfd.readouterr() == ("", "printed hello\n")


# --------------------------------------------------------------------------------------------- limits of time


async def test_a_function_that_blocks_its_loop_is_killed_when_its_time_is_over() -> None:
    async with asyncio.timeout(20), isolated("slow") as run:
        assert pairs_of(await run(0.0)) == [("slept", 0.0)]  # its dependency took longer than its own time
        outcome = await run(60.0)
        assert not children()
    failure = failure_of(outcome)
    assert failure.remote_type == "TimeoutError"
    assert failure.message.startswith("no end after 0.3 s")


async def test_only_the_first_output_has_to_come_in_time() -> None:
    async with asyncio.timeout(20), isolated("hesitant") as run:
        assert pairs_of(await run(0.0)) == [("number", 1), ("number", 2)]
        failure = failure_of(await run(60.0))
    assert failure.message.startswith("no first output after 0.3 s")


async def test_a_cancellation_kills_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    async with isolated("endless") as run:
        running = asyncio.ensure_future(run(str(path)))
        pid = await written(path)
        began = time.monotonic()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert time.monotonic() - began < 0.5
        assert not psutil.pid_exists(pid)


async def test_a_cancellation_while_the_child_starts_leaves_none(tmp_path: Path) -> None:
    async with isolated("endless") as run:
        for seconds in (0.0, 0.005, 0.05, 0.3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(run(str(tmp_path / "pid")), seconds)
        assert not children()


async def test_values_wait_for_their_turn() -> None:
    async with isolated("touchy") as run:
        outcomes = await asyncio.gather(run("well"), run("kill"), run("well"))
    assert [type(outcome) for outcome in outcomes] == [Finished, Died, Finished]


# ----------------------------------------------------------------------------------------------------- the wire


async def test_messages_arrive_as_they_were_sent() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        call = Call(b"\x91\x01", {"00": bytes(2_000_000)}, "r", "t", 1, "1-1")
        opening = Opening("module", "module.function", "t@1", ["program", "-x"], 1024, "here", 30)
        writer.write(packed(opening) + packed(call) + packed(None))
        assert Opening(**await asyncio.to_thread(receive, theirs.fileno())) == opening
        assert Call(**await asyncio.to_thread(receive, theirs.fileno())) == call
        assert await asyncio.to_thread(receive, theirs.fileno()) is None
        await asyncio.to_thread(send, theirs.fileno(), packed(["given", "n", b"", {}]))
        assert await read(reader) == ["given", "n", b"", {}]
        writer.write(packed(["given"])[:-1])
        writer.close()
        await writer.wait_closed()
        with pytest.raises(EOFError):
            await asyncio.to_thread(receive, theirs.fileno())
