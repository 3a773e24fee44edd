"""Isolation: functions that fail, and functions for which there is no child."""

import asyncio
import functools
import sys
from pathlib import Path
from typing import Any

import pytest

from datamesh import InvalidValueError, LocalExecutor, PayloadTooLargeError, Task
from datamesh.codec.limits import MAX_VALUE_BYTES
from datamesh.depends.binding import Binding
from datamesh.model.registry import registry
from datamesh.supervise.child_process import ChildProcess
from datamesh.supervise.isolation import Isolated, Isolation, NotRun, Raised, is_isolable
from datamesh.supervise.served import Served
from datamesh.supervise.thread_feed import Pair
from tests.mesh.services import suspects
from tests.unit.isolating import (
    KILLED,
    binding_of,
    children,
    failure_of,
    isolated,
    pairs_of,
)

pytestmark = pytest.mark.anyio

# ------------------------------------------------------------------------------------------------- failures


async def test_a_failure_keeps_its_type_its_message_and_its_traceback() -> None:
    async with isolated("raising") as run:
        outcome = await run("needle", attempt=2)
    failure = failure_of(outcome)
    assert (failure.remote_type, failure.message) == ("LookupError", "no needle here")
    assert (failure.task, failure.attempt, failure.run_id, failure.service) == ("suspect", 2, "r1", "here")
    assert 'raise LookupError(f"no {kind} here")' in failure.remote_traceback
    assert outcome == Raised(outcome.failure, retry_ms=4000)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("kind", "attempt", "remote_type", "retry_ms", "later"),
    [
        ("needle", 1, "LookupError", 2000, None),
        ("needle", 3, "LookupError", None, None),
        ("key", 1, "KeyError", None, None),
        ("later", 3, "datamesh.model.policies.RetryLater", None, 7.5),
        ("exit", 1, "SystemExit", None, None),
        ("cancel", 1, "asyncio.exceptions.CancelledError", None, None),
    ],
)
async def test_whether_it_is_repeated(
    kind: str, attempt: int, remote_type: str, retry_ms: int | None, later: float | None
) -> None:
    async with isolated("raising") as run:
        outcome = await run(kind, attempt=attempt)
    assert failure_of(outcome).remote_type == remote_type
    assert isinstance(outcome, Raised)
    assert (outcome.retry_ms, outcome.later) == (retry_ms, later)


async def test_a_value_that_cannot_be_sent_fails_and_ends_its_generator() -> None:
    async with asyncio.timeout(15), isolated("mistaken") as run:
        assert failure_of(await run(3)).remote_type == "datamesh.errors.InvalidValueError"


async def test_a_value_that_is_too_large_fails() -> None:
    async with isolated("turned", max_value_bytes=1024) as run:
        assert pairs_of(await run(bytes(1000)))
    served = Served.of(binding_of("turned"), executors={}, default=LocalExecutor(), max_value_bytes=1024)
    with pytest.raises(PayloadTooLargeError):
        served.inputs["content"].frames([bytes(2000)])


async def test_an_input_that_does_not_fit_fails() -> None:
    served = Served.of(binding_of("older"), executors={}, default=LocalExecutor(), max_value_bytes=MAX_VALUE_BYTES)
    isolation = Isolation(served)
    outcome = await isolation.run(b"\x91\x01", run_id="r", task="t", attempt=1, delivery_id="1-1", blobs={})
    await isolation.aclose()
    assert failure_of(outcome).remote_type == "datamesh.errors.InvalidValueError"


async def test_what_refuses_a_value_gets_its_error_back_and_the_child_is_gone() -> None:
    def refuse(pairs: list[Pair]) -> None:
        raise InvalidValueError(where="here", expected="nothing", problem="something")

    async with isolated("counting") as run:
        with pytest.raises(InvalidValueError):
            await run(3, accept=refuse)
        assert not children()


# ------------------------------------------------------------------------------------- no child to run it in


def test_what_can_be_found_again() -> None:
    assert is_isolable(binding_of("touchy"))
    assert is_isolable(binding_of("threaded"))


def test_what_cannot_be_found_again() -> None:
    with registry.isolated():
        declared = Task(name="unit.suspect", inputs=["word"], outputs=["found"])
        made = {
            "closure": suspects.not_made_here(),
            "lambda": lambda word: word,
            "partial": functools.partial(suspects.threaded.function),
            "main": _of_main(),
        }
        made["lambda"].__annotations__ = {"word": str}
        assert not [name for name, function in made.items() if is_isolable(_registered(declared, function))]
        touchy = binding_of("touchy")
        _registered(touchy.task, suspects.threaded.function)
        assert not is_isolable(touchy), "another function has taken its place"


def _registered(declared: Task, function: Any) -> Binding:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        binding: Binding = registry.register(declared, function).compiled
    return binding


def _of_main() -> Any:
    async def found(word: str) -> str:
        return word

    found.__module__, found.__qualname__ = "__main__", "found"
    return found


async def test_a_module_that_fails_when_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = await of_module(tmp_path, monkeypatch, "raise OSError('the disk is gone')")
    failure = failure_of(outcome)
    assert isinstance(outcome, NotRun)
    assert (failure.remote_type, failure.message) == ("OSError", "the disk is gone")
    assert (failure.task, failure.attempt, failure.run_id, failure.service) == ("suspect", 1, "r1", "here")


async def test_a_module_that_registers_nothing_in_a_fresh_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = await of_module(tmp_path, monkeypatch, "")
    assert isinstance(outcome, NotRun)
    assert "does not make it the implementation of task suspects.touchy@1" in failure_of(outcome).message


async def test_a_module_that_kills_who_imports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = await of_module(tmp_path, monkeypatch, "import os; os._exit(5)")
    assert isinstance(outcome, NotRun)
    assert failure_of(outcome).message.endswith("it ended with 5")


async def test_a_module_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datamesh.supervise.isolation._START_SECONDS", 0.2)
    outcome = await of_module(tmp_path, monkeypatch, "import time; time.sleep(60)")
    assert isinstance(outcome, NotRun)
    assert failure_of(outcome).message.endswith("it took over 0.2 s")


async def of_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> Isolated:
    """Run a value of a function whose module is another one in a fresh process."""
    (tmp_path / "grown_strange.py").write_text(source, "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(suspects.touchy, "__module__", "grown_strange")
    async with asyncio.timeout(20), isolated("touchy") as run:
        return await run("well")


async def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    async with isolated("touchy") as run:
        outcome = await run("well")
    assert isinstance(outcome, NotRun)
    assert "no process can be started" in failure_of(outcome).message


async def test_a_child_without_a_service_ends() -> None:
    child = await ChildProcess.start()
    child._writer.transport.abort()
    await asyncio.wait((child._exit,), timeout=20)
    assert not child.is_alive
    assert await child.kill() != KILLED
