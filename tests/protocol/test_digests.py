"""A script that fails or refuses leaves the server as it was, and so does a call that is repeated."""

from __future__ import annotations

import pytest

from datamesh.store.script import SCRIPTS
from tests.protocol.digests import TRUSTING, run
from tests.protocol.rig import on_both_servers
from tests.servers import Server

CASES = 12
"""Wrong calls of each script; `python -m tests.protocol.digests` makes more."""


@pytest.mark.timeout(120)
@pytest.mark.leaves_runs
@on_both_servers
def test_what_fails_or_is_refused_changes_nothing(server: Server) -> None:
    found = run(CASES, 1, server=server)
    assert found["violations"] == {}
    assert set(found["unchecked"]) <= TRUSTING
    assert {name for name, count in found["cases"].items() if count >= CASES} == set(SCRIPTS)
