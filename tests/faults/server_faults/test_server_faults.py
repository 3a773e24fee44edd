"""Each scenario in its smallest form, so that it stays alive between two scoreboards."""

from __future__ import annotations

import pytest

from tests.faults.board import Budget, Run, Size
from tests.faults.server_faults.failover import failover
from tests.faults.server_faults.malformed import malformed
from tests.faults.server_faults.memory_full import memory_full
from tests.faults.server_faults.moving_cluster import moving_cluster
from tests.faults.server_faults.power_loss import power_loss
from tests.faults.server_faults.restarts import restarts
from tests.faults.server_faults.swizzle import swizzle

pytestmark = [pytest.mark.anyio, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(180)]

SCENARIOS = [restarts, power_loss, failover, moving_cluster, malformed, memory_full, swizzle]


@pytest.mark.parametrize("run", SCENARIOS, ids=lambda run: run.__name__)
async def test_a_scenario_in_its_smallest_form_stays_within_its_limits(run: Run) -> None:
    figures = await run(Budget(Size.TINY))
    missed = [str(figure) for figure in figures.all if not figure.is_met]
    assert not missed, [str(figure) for figure in figures.all]
