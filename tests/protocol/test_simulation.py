"""Random flows through random crashes: every value comes out exactly once, every stream ends once, nothing is left."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.protocol.rig import Rig, on_both_servers
from tests.protocol.simulation import simulate

pytestmark = [pytest.mark.anyio, on_both_servers]

FLOWS = int(os.environ.get("DATAMESH_SIMULATIONS", "12"))
"""Flows for each part; set it to thousands for a long run, and DATAMESH_SEED to begin elsewhere."""
SEED = int(os.environ.get("DATAMESH_SEED", "0"))
PARTS = 2


@pytest.mark.timeout(60 + FLOWS)
@pytest.mark.parametrize("part", range(PARTS))
async def test_every_value_comes_out_once_whatever_happens_to_members(rig: Rig, part: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(SEED + part, SEED + PARTS * FLOWS, PARTS):
        rig.client.flushall()
        rig.works.clear()
        try:
            counts += await simulate(rig, seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    if FLOWS >= 12:
        assert counts["taken over"] > 20
        assert counts["fenced"] > 5
