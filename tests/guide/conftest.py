"""The guide is read by people: what makes it run quietly stands here."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from datamesh import Supervisor
from datamesh.model.registry import registry


@pytest.fixture(autouse=True)
def _own_registrations() -> Iterator[None]:
    with registry.isolated():
        yield


@pytest.fixture
async def supervisor(redis_url: str, mesh: str) -> AsyncIterator[Supervisor]:
    """Attached, with a Redis of the test's own; it begins to work with the first flow."""
    attached = Supervisor.attach(url=redis_url, mesh=mesh)
    log = logging.getLogger("datamesh")
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield attached
        await attached.drain()
    finally:
        # Tests of other places that look at the log run in the same process.
        log.setLevel(level)
        Supervisor.detach()
