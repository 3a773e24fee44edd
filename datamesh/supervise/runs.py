"""Runs: what the mesh has on record, newest first."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping
from dataclasses import dataclass

from datamesh.errors import TamperedDataError
from datamesh.model.run import RunState
from datamesh.store.store import ShardStore
from datamesh.supervise.session import Session
from datamesh.supervise.status import plan_of_request
from datamesh.supervise.supervisor import Supervisor

_GONE = "?"
"""Flow of a run whose plan is no longer in the store."""


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line about a run.

    Attributes:
        id: Of the run.
        flow: Name of its flow.
        state: Where it stands.
        started: Seconds since the epoch, by the server's clock.
        ended: The same; None while it goes on.
        open: Values that its tasks have not settled yet.
        done: Values that they have.
    """

    id: str
    flow: str
    state: RunState
    started: float
    ended: float | None
    open: int
    done: int


async def list_runs(supervisor: Supervisor, *, limit: int = 50) -> list[RunSummary]:
    """List the runs of the mesh that go on or are still kept, the newest first.

    Args:
        supervisor: Of the mesh.
        limit: Most runs to list.

    Raises:
        StoreUnavailableError: Redis cannot be reached.
    """
    session = await supervisor.session()
    found = await asyncio.gather(*(_newest(shard, limit) for shard in session.store.shards))
    newest = heapq.nlargest(limit, (row for rows in found for row in rows))
    summaries = await asyncio.gather(*(_summary(session, run_id, started) for started, run_id in newest))
    return [summary for summary in summaries if summary is not None]


async def _newest(shard: ShardStore, limit: int) -> list[tuple[float, str]]:
    rows = await shard.protocol.command("ZREVRANGE", shard.keys.runs, 0, limit - 1, "WITHSCORES")
    return [(float(score), run_id.decode()) for run_id, score in zip(rows[::2], rows[1::2], strict=True)]


async def _summary(session: Session, run_id: str, started_ms: float) -> RunSummary | None:
    shard = session.shard_of(run_id)
    row = await shard.protocol.command("HGETALL", shard.keys.run(run_id))
    fields = {name.decode(): value for name, value in zip(row[::2], row[1::2], strict=True)}
    if "state" not in fields:
        return None  # It has expired since; the index of runs is swept every now and then.
    return RunSummary(
        run_id, await _flow(session, shard, fields), RunState(fields["state"].decode()), started_ms / 1000,
        int(fields["ended"]) / 1000 if "ended" in fields else None, _total(fields, "o:"), _total(fields, "d:"),
    )  # fmt: skip


async def _flow(session: Session, shard: ShardStore, fields: Mapping[str, bytes]) -> str:
    if "plan" not in fields:
        return plan_of_request(fields["request"]).flow
    try:
        return (await session.members[shard.index].plans.find(fields["plan"].decode())).plan.flow
    except TamperedDataError:
        return _GONE


def _total(fields: Mapping[str, bytes], prefix: str) -> int:
    return sum(int(value) for name, value in fields.items() if name.startswith(prefix))
