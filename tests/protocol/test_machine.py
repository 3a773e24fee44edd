"""The scripts do what the model says, whatever is called in which order, and whatever goes wrong in between."""

from __future__ import annotations

import os

import pytest

from tests.protocol.machine import run
from tests.protocol.rig import on_both_servers
from tests.servers import Server

STEPS = int(os.environ.get("DATAMESH_STEPS", "1500"))
"""Set it to a million for a long run, and DATAMESH_SEED to begin elsewhere."""
SEED = int(os.environ.get("DATAMESH_SEED", "1"))


@pytest.mark.timeout(90 + STEPS // 20)
@pytest.mark.leaves_runs
@on_both_servers
def test_the_scripts_agree_with_the_model_after_each_step(server: Server) -> None:
    found = run(STEPS, SEED, server=server)
    assert not found["failure"], found["failure"]
    assert found["steps"] >= STEPS
    assert found["acts"]["settled OK"] > STEPS // 50
