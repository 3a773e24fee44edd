"""Context: what a function knows of its invocation."""

import logging
from typing import Any

import pytest

from datamesh.depends.context import Context

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_a_context_made_by_hand_is_enough_for_a_unit_test() -> None:
    context = Context(run_id="run-1", task="foobar")
    context.progress(1, 2)
    await context.checkpoint({"page": 3})
    assert (context.attempt, context.delivery_id, context.cancelled) == (1, "", False)
    assert repr(context) == "Context(run_id='run-1', task='foobar', attempt=1)"


async def test_what_it_is_told_reaches_who_made_it() -> None:
    told: list[Any] = []

    async def keep(state: Any) -> None:
        told.append(state)

    context = Context(
        run_id="run-1",
        task="foobar",
        on_progress=lambda done, total: told.append((done, total)),
        on_checkpoint=keep,
        is_cancelled=lambda: True,
    )
    context.progress(3)
    context.progress(3, 4)
    await context.checkpoint("state")
    assert told == [(3, None), (3, 4), "state"]
    assert context.cancelled


def test_its_log_carries_the_run_and_the_callers_own_fields(caplog: pytest.LogCaptureFixture) -> None:
    context = Context(run_id="run-1", task="foobar", attempt=2, delivery_id="5-0")
    with caplog.at_level(logging.INFO, "datamesh.task.foobar"):
        context.log.info("page %d", 3, extra={"page": 3})
    record = caplog.records[0]
    assert record.name == "datamesh.task.foobar"
    facts = {name: vars(record)[name] for name in ("run_id", "task", "attempt", "delivery_id", "page")}
    assert facts == {"run_id": "run-1", "task": "foobar", "attempt": 2, "delivery_id": "5-0", "page": 3}
    assert context.log is context.log
