"""Acts of runs: they start, are written to, wait, end early, run out of time, and are forgotten."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from datamesh.model.bound import BoundPlan
from datamesh.model.modes import Mode
from datamesh.model.policies import Quota
from datamesh.store.frames import Frame
from datamesh.store.keys import Level
from datamesh.store.protocol import Submission
from tests.protocol.flows import frame_of, split
from tests.protocol.look import finish, later_piece
from tests.protocol.model_run import Run
from tests.protocol.outcomes import HOUR_MS
from tests.protocol.world import MOST_OPEN_RUNS, MOST_RUNS, World

Staged = tuple[str, int, str, int, int]


def submit(world: World) -> bool:
    """A run starts: its inputs complete or open, in the call or brought in before."""
    shard = world.shard
    if sum(run.is_alive for run in shard.runs.values()) >= MOST_OPEN_RUNS or len(shard.runs) >= MOST_RUNS:
        return False
    run = Run(_free_id(world), f"o{world.name('')}", _level(world), "new")
    _start(world, run, world.rnd.choice(world.bounds))
    return True


def _free_id(world: World) -> str:
    """An id that nobody uses now; often one of a run of which something is left, to see that it stays apart."""
    free = [f"R{k}" for k in range(MOST_RUNS) if f"R{k}" not in world.shard.runs]
    haunted = [run.id for run in world.shard.past.values() if run.id in free and (+run.later or +run.frames)]
    return world.rnd.choice(haunted if haunted and world.rnd.random() < 0.7 else free)


def start_waiting(world: World) -> bool:
    """The tasks of a run that waits were announced."""
    run = world.run("waiting")
    if run is None:
        return False
    fitting = [bound for bound in world.bounds if run.taps <= set(range(len(bound.plan.streams)))]
    _start(world, run, world.rnd.choice(fitting))
    return True


def _start(world: World, run: Run, bound: BoundPlan) -> None:
    inputs = {bound.stream_index[name]: _values(world) for name in bound.plan.inputs}
    complete = [stream for stream in inputs if world.rnd.random() < 0.7]
    staged = _stage(world, run, bound, inputs) if world.rnd.random() < 0.2 else None
    frames = [] if staged is not None else [(s, f) for s, some in inputs.items() for f in some]
    has_deadline = world.rnd.random() < 0.3
    run.quota = Quota(bytes=0, open_values=world.rnd.choice((0, 0, 0, 12)), fan_out=world.rnd.choice((0, 0, 2)))
    fields = dict(bound.start_fields)
    if staged is not None:
        fields |= {f"v:{s}": _count(some) for s, some in inputs.items() if s not in bound.taps}
    submission = Submission(
        run.id, bound.digest, run.origin, HOUR_MS, run.level, HOUR_MS if has_deadline else 0,
        fields, staged or [], frames, complete, bound.starters, run.quota.text,
    )  # fmt: skip

    def call() -> None:
        told = finish(world.protocol.submit(submission))
        assert told == ("OK", run.state, bound.digest), f"{told}, and must be {run.state}"

    world.tell(
        f"{run.id} {run.origin} starts with {bound.plan.nodes[0].name}, {submission.level!r} {complete} complete", call
    )
    was_waiting = run.state == "waiting"
    run.has_deadline |= has_deadline
    run.begin(bound, bound.taps, complete)
    for stream, some in inputs.items():
        _publish(run, stream, some)
    run.close_ready()
    call()
    if not was_waiting:
        world.shard.add(run)
    world.shard.note_end(run)


def _publish(run: Run, stream: int, frames: Sequence[Frame]) -> None:
    at = 0
    for frame in frames:
        run.publish(stream, tuple((at + place,) for place in range(frame.count)))
        at += frame.count


def _values(world: World) -> list[Frame]:
    count = world.rnd.choice((0, 1, 2, 5, 8, 40))
    return split(world.rnd, [[place] for place in range(count)], most=40 if count == 40 else 3)


def _count(frames: Sequence[Frame]) -> int:
    return sum(frame.count for frame in frames)


def _level(world: World) -> str:
    return world.rnd.choice((Level.NORMAL, Level.NORMAL, Level.HIGH)).value


def _stage(world: World, run: Run, bound: BoundPlan, inputs: dict[int, list[Frame]]) -> list[Staged]:
    """Bring inputs in, for their readers and for each task."""
    token, staged = secrets.token_hex(4), []
    for stream, some in inputs.items():
        consumers = [bound.node_index[name] for name in bound.plan.streams[stream].consumers]
        places = [("b", node) for node in consumers if bound.modes[node] is Mode.EACH]
        for kind, place in ([("s", stream)] if stream in bound.taps else []) + places:
            key = finish(world.protocol.stage(run.id, token, kind, place, 1, some))
            if world.rnd.random() < 0.2:
                finish(world.protocol.stage(run.id, token, kind, place, 1, some))
            staged.append((kind, place, key, _count(some), len(some)))
    return staged


def submit_again(world: World) -> bool:
    """Somebody starts a run whose id is taken, or on a plan that nobody wrote."""
    run = world.run("open", "done", "failed", "cancelled", "timeout")
    if run is None:
        return False
    is_unknown = world.rnd.random() < 0.3
    run_id, digest = ("R-new", "no-plan") if is_unknown else (run.id, run.bound.digest if run.bound else "")
    submission = Submission(run_id, digest, "another", HOUR_MS, "", 0, {"left": 1}, [], [], [], [])
    world.tell(f"{run_id} starts again")
    status, state, found = finish(world.protocol.submit(submission))
    expected = ("NOPLAN", "", "") if is_unknown else ("EXISTS", run.state, digest)
    assert (status, state, found) == expected
    return True


def wait(world: World) -> bool:
    """A run is recorded that waits for its tasks."""
    shard = world.shard
    free = [f"R{k}" for k in range(MOST_RUNS) if f"R{k}" not in shard.runs]
    if sum(run.is_alive for run in shard.runs.values()) >= MOST_OPEN_RUNS or not free:
        return False
    run = Run(world.rnd.choice(free), f"o{world.name('')}", _level(world), "waiting")
    run.taps, run.has_deadline = frozenset({1}), world.rnd.random() < 0.3
    token = secrets.token_hex(4)
    staged = [finish(world.protocol.stage(run.id, token, "b", 0, 1, [frame_of([[0]])]))]

    def call() -> None:
        told = finish(
            world.protocol.wait(
                run.id,
                origin=run.origin,
                retention_ms=HOUR_MS,
                request=b"request",
                taps="1",
                level=run.level,
                staged=staged,
                deadline_ms=HOUR_MS if run.has_deadline else 0,
            )
        )
        assert told == ("OK", run.state), told

    world.tell(f"{run.id} {run.origin} waits", call)
    call()
    shard.add(run)
    return True


def push(world: World) -> bool:
    """A writer adds to an input, or closes it; also where it may not."""
    runs = [run for run in world.shard.runs.values() if run.bound is not None or run.state == "waiting"]
    if not runs:
        return False
    opened = [run for run in runs if run.open_inputs and run.state == "open"]
    run = world.rnd.choice(opened or runs)
    inputs = [run.plan.stream_index[name] for name in run.plan.plan.inputs] if run.bound else [0]
    stream = world.rnd.choice(sorted(run.open_inputs) or inputs)
    writer = world.rnd.choice("ab")
    number = run.writers.get((stream, writer), 0) + world.rnd.choice((1, 1, 1, 0))
    frames, close = _values(world)[:4], world.rnd.random() < 0.4
    numbers = [frame.count for frame in frames]

    raw = _raw(world, run, stream, frames)

    def call() -> None:
        expected = world.shard.push(run.id, stream, writer, number, numbers, close)
        told, *_ = finish(world.protocol.push(run.id, stream, writer=writer, number=number, frames=raw, close=close))
        assert told == expected, f"{told}, and must be {expected}"

    world.tell(f"{writer}{number} writes {numbers} to {stream} of {run.id}{', closes' if close else ''}", call)
    call()
    return True


def _raw(world: World, run: Run, stream: int, frames: Sequence[Frame]) -> list[Frame]:
    """Frames whose values are the lineages that they will get."""
    at, found = run.counts[f"v:{stream}"], []
    for frame in frames:
        found.append(frame_of([[at + place] for place in range(frame.count)]))
        at += frame.count
    return found


def end(world: World) -> bool:
    """A run is cancelled or fails, perhaps after it has ended."""
    run = world.run()
    if run is None:
        return False
    state, failure = world.rnd.choice((("cancelled", b""), ("failed", b"why")))

    def call() -> None:
        told = finish(world.protocol.end(run.id, state=state, failure=failure))
        assert told == run.state, f"{told}, and must be {run.state}"

    world.tell(f"{run.id} is {state}", call)
    if run.is_alive:
        world.shard.end_run(run, state, failure)
    call()
    return True


def pass_time(world: World) -> bool:
    """Some of what is scheduled becomes due."""
    names = sorted(world.look.scores.get("due", {}))
    if not names:
        return False
    some = world.rnd.sample(names, world.rnd.randint(1, len(names)))
    world.tell(f"{some} are due")
    for name in some:
        world.link.send("ZADD", world.keys.due, "XX", 1, name)
    return True


def promote(world: World) -> bool:
    """What is due is delivered; runs whose time is over end."""
    shard = world.shard
    due = [later_piece(world.look.hashes["later"][name]) for name, _, _ in world.due_now()]
    world.tell(f"promotes {len(due)}")
    count, _ = finish(world.protocol.promote())
    assert count == len(due), f"{count} were promoted, {len(due)} were due"
    late = []
    for kind, run_id, origin, piece in due:
        run, owner = shard.runs.get(run_id), shard.past[(run_id, origin)]
        if piece is not None:
            owner.later[piece] -= 1
        if kind == "parked" and piece is not None:
            owner.frames[piece] += 1
        if run is not owner or not run.is_alive:
            continue
        if piece is not None and run.state == "open":
            run.frames[piece] += 1
            run.counts[f"r:{piece.node}"] -= 1
        elif kind == "deadline":
            late.append(run)
    for run in dict.fromkeys(late):
        shard.end_run(run, "timeout")
    return bool(due)


def forget(world: World) -> bool:
    """The retention of a run is over: its keys expire, and the indexes are swept, now or later."""
    over = [run for run in world.shard.runs.values() if not run.is_alive]
    if not over:
        return False
    run = world.rnd.choice(over)
    world.tell(f"{run.id} {run.origin} expires")
    prefix = f"run:{run.id}"
    for name in world.look.expiry:
        if name == prefix or name.startswith(prefix + ":"):
            world.link.send("DEL", world.keys.prefix + name)
    world.link.send("ZADD", world.keys.ended, "XX", 1, run.id)
    del world.shard.runs[run.id]
    return True


def sweep(world: World) -> bool:
    shard = world.shard
    over = {run_id for run_id in shard.ended if run_id not in shard.runs}
    world.tell("sweeps")
    assert finish(world.protocol.sweep()) == len(over)
    shard.ended -= over
    shard.listed -= over
    return bool(over)


def listen(world: World) -> bool:
    """Somebody wants to hear facts of a run."""
    run = world.run()
    if run is None:
        return False

    def call() -> None:
        assert finish(world.protocol.listen(run.id)) == run.state

    world.tell(f"somebody listens to {run.id}", call)
    call()
    run.listened |= run.is_alive
    return True


def keep_blob(world: World) -> bool:
    """A large value is kept beside a run, if that is not over."""
    run = world.run()
    if run is None:
        return False

    def call() -> None:
        assert finish(world.protocol.put_blobs(run.id, {"digest": b"body"})) == run.is_alive

    world.tell(f"a large value of {run.id}", call)
    call()
    return True
