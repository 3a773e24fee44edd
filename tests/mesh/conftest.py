"""What tests of whole meshes share."""

from collections.abc import Iterator

import pytest

from datamesh.model.registry import registry
from tests.mesh.places import Place


@pytest.fixture
def place(redis_url: str, mesh: str) -> Place:
    """A mesh that nobody else uses."""
    return Place(redis_url, mesh)


@pytest.fixture(autouse=True)
def _own_registrations() -> Iterator[None]:
    with registry.isolated():
        yield
