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
    logging.getLogger("datamesh").setLevel(logging.WARNING)
    yield attached
    await attached.drain()
    Supervisor.detach()
