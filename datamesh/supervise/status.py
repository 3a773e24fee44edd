"""Status: what the store knows of a run, for people."""

from __future__ import annotations

import json
from collections.abc import Mapping

from datamesh.errors import UnknownRunError
from datamesh.model.plan import Plan
from datamesh.model.policies import Backpressure
from datamesh.model.run import RunState, RunStatus, StreamStatus, TaskStatus
from datamesh.store.store import ShardStore
from datamesh.store.streams import run_error


async def run_status(shard: ShardStore, run_id: str, plan: Plan) -> RunStatus:
    """Read the status of a run.

    Raises:
        UnknownRunError: There is none of this id.
    """
    found = await shard.protocol.command("HGETALL", shard.keys.run(run_id))
    fields = {name.decode(): value for name, value in zip(found[::2], found[1::2], strict=True)}
    if "state" not in fields:
        raise UnknownRunError(run_id=run_id)
    state = RunState(fields["state"].decode())
    backlog = [await shard.protocol.command("LLEN", shard.keys.backlog(run_id, i)) for i in range(len(plan.nodes))]
    marks = await _pressure(shard, plan)
    tasks = {
        node.name: _task_status(node.name, i, fields, state, backlog[i], marks[i]) for i, node in enumerate(plan.nodes)
    }
    streams = {
        stream.name: StreamStatus(stream.name, _number(fields, f"v:{i}"), _number(fields, f"c:{i}", 1) <= 0)
        for i, stream in enumerate(plan.streams)
    }
    missing: tuple[str, ...] = ()
    if not state.is_final:
        live = await live_refs(shard)
        missing = tuple(
            dict.fromkeys(
                node.ref
                for node in plan.nodes
                if node.ref not in live and (state is RunState.WAITING or tasks[node.name].open)
            )
        )
    return RunStatus(
        run_id, plan.flow, state, missing, tasks, streams, _number(fields, "started") / 1000,
        _number(fields, "ended") / 1000 if "ended" in fields else None,
        _error(run_id, state, fields.get("failure", b"")), _number(fields, "bytes"),
    )  # fmt: skip


async def live_refs(shard: ShardStore) -> set[str]:
    """Refs of the tasks that members of this shard implement now."""
    prefix = shard.keys.work("")
    texts = await shard.protocol.command("HVALS", shard.keys.services)
    works = [work for text in texts for work in text.decode().partition("\n")[2].split()]
    return {work.removeprefix(prefix).partition(":")[0] for work in works}


def plan_of_request(request: bytes) -> Plan:
    """The plan of a run that waits."""
    return Plan.from_wire(json.loads(request)["plan"].encode())


async def _pressure(shard: ShardStore, plan: Plan) -> list[tuple[int, int]]:
    """High and low mark of each task."""
    works = [shard.keys.work(node.ref) for node in plan.nodes]
    found = await shard.protocol.command("HMGET", shard.keys.pressure, *works)
    default = Backpressure()
    return [
        (default.high, default.resume) if text is None else (int(text.split()[0]), int(text.split()[1]))
        for text in found
    ]


def _task_status(
    name: str, index: int, fields: Mapping[str, bytes], state: RunState, backlog: int, marks: tuple[int, int]
) -> TaskStatus:  # fmt: skip
    def number(kind: str) -> int:
        return _number(fields, f"{kind}:{index}")

    left = number("o")
    return TaskStatus(
        name, 0 if state.is_final else left, number("d"), failed=number("f"), skipped=number("k"), dead=number("x"),
        retrying=0 if state.is_final else number("r"), queued=number("q"), backlog=backlog,
        cancelled=max(0, left - number("f")) if state.is_final else 0, full=number("y") > 0,
        high=marks[0], low=marks[1],
    )  # fmt: skip


def _number(fields: Mapping[str, bytes], name: str, default: int = 0) -> int:
    return int(fields.get(name, default))


def _error(run_id: str, state: RunState, failure: bytes) -> str:
    if not state.is_final:
        return ""
    if state is RunState.FAILED and not failure:
        return ""
    error = run_error(run_id, state.value, failure)
    return "" if error is None else str(error)
