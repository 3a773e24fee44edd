"""The watchdog: says what blocks an event loop, once for each blockage."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest

from datamesh.supervise.watchdog import Watchdog

pytestmark = pytest.mark.anyio


@pytest.fixture
async def watchdog() -> AsyncIterator[Watchdog]:
    dog = Watchdog()
    dog.start()
    yield dog
    dog.stop()


async def hold_everybody_up(seconds: float) -> None:
    time.sleep(seconds)  # noqa: ASYNC251


async def test_a_blockage_is_reported_once_with_the_stack_that_blocks(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    await hold_everybody_up(1.9)
    async with asyncio.timeout(2):
        while "runs again" not in caplog.text:
            await asyncio.sleep(0.01)
    began, ended = (record.getMessage() for record in caplog.records if record.name == "datamesh.watchdog")
    assert "the event loop has been blocked for 1." in began
    assert "in hold_everybody_up" in began
    assert "time.sleep(seconds)" in began
    assert "the event loop runs again; it was blocked for 1." in ended


async def test_every_blockage_is_reported(watchdog: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        await hold_everybody_up(1.5)
        await asyncio.sleep(0.1)
    assert caplog.text.count("has been blocked") == 2


async def test_a_short_one_is_nobodys_business(watchdog: Watchdog, caplog: pytest.LogCaptureFixture) -> None:
    await hold_everybody_up(0.6)
    await asyncio.sleep(0.5)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_the_lag_can_be_asked_from_another_thread(watchdog: Watchdog) -> None:
    def later() -> float:
        time.sleep(1.2)
        return watchdog.lag

    asked = asyncio.get_running_loop().run_in_executor(None, later)
    await asyncio.sleep(0.05)
    await hold_everybody_up(1.5)
    assert 0.8 <= await asked <= 1.3
    await asyncio.sleep(0.05)
    assert watchdog.lag < 0.2


def test_it_ends_with_the_event_loop() -> None:
    async def watched() -> Watchdog:
        dog = Watchdog()
        dog.start()
        return dog

    dog = asyncio.run(watched())
    assert dog._thread is not None
    dog._thread.join(3.0)
    assert not dog._thread.is_alive()
