"""What is deployed: the compose file and the service that it builds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from services.documents.settings import Settings

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
    return found


def test_two_workers_share_one_redis_that_is_healthy_first(services: dict[str, Any]) -> None:
    worker = services["documents"]
    assert worker["deploy"]["replicas"] == 2
    assert worker["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert worker["environment"]["DATAMESH_URL"] == "redis://redis:6379"
    assert services["redis"]["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]


def test_who_asks_is_in_the_mesh_of_the_workers(services: dict[str, Any]) -> None:
    assert services["ask"]["environment"] == services["documents"]["environment"]
    assert services["ask"]["volumes"] == services["documents"]["volumes"]


def test_a_worker_has_more_time_to_stop_than_it_drains(services: dict[str, Any]) -> None:
    assert int(services["documents"]["stop_grace_period"].removesuffix("s")) > 25


def test_what_the_image_is_built_from_is_there(services: dict[str, Any]) -> None:
    dockerfile = ROOT / services["documents"]["build"]["dockerfile"]
    text = dockerfile.read_text("utf-8")
    for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        for name in line.split():
            assert (ROOT / name).exists(), f"{name} is copied and does not exist"
    assert "services.documents.main:supervisor" in text


def test_the_root_is_what_the_environment_says(tmp_path: Path) -> None:
    assert Settings.of({}).root == Path("/documents")
    assert Settings.of({"DOCUMENTS_ROOT": str(tmp_path / ".." / tmp_path.name)}).root == tmp_path
