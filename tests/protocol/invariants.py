"""Invariants: what must hold of a shard at every moment, and how it must compare with the model."""

from __future__ import annotations

import math
from collections import Counter, defaultdict

from datamesh.model.modes import Mode
from datamesh.store.frames import Frame
from tests.protocol.look import Look, Piece, Work, later_piece, lineages_of
from tests.protocol.model import Dead, Shard
from tests.protocol.model_run import Run

VALUES_A_PLACE = 32
"""Values of a frame that take one place of the window."""


def check(look: Look, shard: Shard) -> None:
    """Compare what stands on the server with the model.

    Raises:
        AssertionError: They differ, or an invariant does not hold.
    """
    frames = _frames(look)
    for run in shard.past.values():
        if shard.runs.get(run.id) is run:
            _check_run(look, run, frames[(run.id, run.origin)])
        _check_left(run, frames[(run.id, run.origin)])
    _check_owners(look, shard)
    _check_marks(look, shard)
    _check_later(look, shard)
    _check_members(look, shard)
    _check_indexes(look, shard)
    _check_keys(look, shard)


def _frames(look: Look) -> dict[tuple[str, str], Counter[Piece]]:
    """Frames in work streams, by run."""
    found: dict[tuple[str, str], Counter[Piece]] = defaultdict(Counter)
    for work in look.works.values():
        for run, origin, piece in work.entries.values():
            found[(run, origin)][piece] += 1
    return found


def _check_run(look: Look, run: Run, streamed: Counter[Piece]) -> None:
    fields = look.hashes.get(f"run:{run.id}")
    assert fields is not None, f"run {run.id} is gone"
    state = fields["state"].decode()
    assert state == run.state, f"run {run.id} is {state}, and must be {run.state}"
    if run.bound is not None:
        _check_counters(run, {name: value for name, value in fields.items() if name[1:2] == ":" or name == "left"})
    if run.state == "open":
        _check_window(look, run, streamed, fields)
    for stream in range(len(run.bound.plan.streams)) if run.bound else sorted(run.taps):
        _check_stream(look, run, stream)
    if run.listened:
        told = look.entries.get(f"run:{run.id}:events", [])
        facts = Counter((fact["kind"].decode(), fact["subject"].decode()) for fact in told)
        kinds = {kind for kind, _ in run.facts} | {"closed", "done"}
        assert Counter({f: n for f, n in facts.items() if f[0] in kinds}) == run.facts, (run.id, facts, run.facts)


def _check_counters(run: Run, fields: dict[str, bytes]) -> None:
    expected = run.counters()
    found = {name: int(value) for name, value in fields.items() if name[0] not in "pqyb"}
    for name in expected.keys() | found.keys():
        a, b = found.get(name, 0), expected.get(name, 0)
        assert a == b, f"run {run.id}: {name} is {a}, and must be {b}"


def _check_window(look: Look, run: Run, streamed: Counter[Piece], fields: dict[str, bytes]) -> None:
    """An open run has all its frames, and of none that waits nobody would ever hear."""
    waiting: Counter[Piece] = Counter()
    for node in range(len(run.plan.modes)):
        backlog = look.backlogs.get(f"run:{run.id}:b:{node}", [])
        waiting.update(backlog)
        mine = [piece for piece, n in streamed.items() for _ in range(n) if piece.node == node]
        queued, counted = sum(map(_weight, mine)), int(fields.get(f"q:{node}", 0))
        assert queued == counted, f"run {run.id}: q:{node} is {counted}, and must be {queued}"
        assert queued or not backlog, (
            f"run {run.id}: {len(backlog)} frames wait for task {node}, and nothing moves them"
        )
    assert streamed + waiting == +run.frames, (
        f"run {run.id}: lost {+run.frames - streamed - waiting}, doubled {streamed + waiting - run.frames}"
    )
    _check_pressure(run, fields)
    for node, mode in enumerate(run.plan.modes):
        if mode is Mode.EACH:
            values = sum(len(p.values) * n for p, n in (run.frames + run.later).items() if p.node == node)
            assert values >= run.tokens[node], f"run {run.id}: task {node} waits for values that are nowhere"


def _check_pressure(run: Run, fields: dict[str, bytes]) -> None:
    """Tasks that are noted as full have values, so that somebody will note that they are not any more."""
    full = [node for node in range(len(run.plan.modes)) if int(fields.get(f"y:{node}", 0))]
    counted = int(fields.get("full", 0))
    assert counted == len(full), f"run {run.id}: full is {counted}, and must be {len(full)}"
    stuck = [node for node in full if not run.tokens[node]]
    assert not stuck, f"run {run.id}: tasks {stuck} are full of nothing, and who feeds them waits"


def _weight(piece: Piece) -> int:
    return max(1, math.ceil(len(piece.values) / VALUES_A_PLACE))


def _check_left(run: Run, streamed: Counter[Piece]) -> None:
    """What is left of a run that is over is part of what it had."""
    if run.state != "open":
        assert not streamed - run.frames, f"run {run.id}: {streamed - run.frames} came from nowhere"


def _check_stream(look: Look, run: Run, stream: int) -> None:
    tail = look.tails.get(f"run:{run.id}:s:{stream}")
    if stream not in run.taps:
        assert tail is None, f"run {run.id}: stream {stream} is kept for nobody"
        return
    values, end, ends, failure = tail or ([], "", 0, b"")
    name = f"run {run.id}, stream {stream}"
    assert values == run.published.get(stream, []), f"{name}: {values}, and must be {run.published.get(stream)}"
    assert end == run.ends.get(stream, ""), f"{name} ended {end!r}, and must have {run.ends.get(stream, '')!r}"
    assert ends == (1 if end else 0), f"{name} has {ends} ends"
    if end not in ("", "done"):
        same = failure.startswith(run.failure) if run.failure.startswith(b"quota") else failure == run.failure
        assert same, f"{name} ended for {failure!r}, and must have for {run.failure!r}"


def _check_owners(look: Look, shard: Shard) -> None:
    """Who holds what; what is held exists, and its holder is a member or known as one that was."""
    orphans = look.scores.get("orphans", {})
    held = {}
    for name, work in look.works.items():
        key = shard.keys.prefix + name
        for entry_id, holder in work.pending.items():
            assert entry_id in work.entries, f"{holder} holds {entry_id} of {name}, which does not exist"
            known = holder in shard.members or holder in orphans or f"{holder} {key}" in orphans
            assert known, f"{entry_id} of {name} belongs to {holder}, whom nobody looks for"
            held[(key, entry_id)] = holder
        _check_unread(name, key, work, shard)
    expected = {key: entry.holder for key, entry in shard.entries.items() if entry.holder is not None}
    assert held == expected, f"held: {held}, and must be {expected}"


def _check_unread(name: str, key: str, work: Work, shard: Shard) -> None:
    """What nobody holds will be read."""
    if work.read_to is not None:
        lost = work.entries.keys() - set(work.unread()) - work.pending.keys()
        assert not lost, f"{lost} of {name} were given out, and nobody holds them"


def _check_marks(look: Look, shard: Shard) -> None:
    marks = look.hashes.get("marks", {})
    expected = {f"{work} {at}": e.kept for (work, at), e in shard.entries.items() if e.kept}
    found = {name: int(text.split(b" ")[0]) for name, text in marks.items()}
    assert found == expected, f"marks {found}, and must be {expected}"
    for (work, at), entry in shard.entries.items():
        assert not entry.kept or marks[f"{work} {at}"].partition(b" ")[2] == entry.mark


def _check_later(look: Look, shard: Shard) -> None:
    """What is due has a time and a content; retries are those of the model, and so are deadlines."""
    later, due = look.hashes.get("later", {}), look.scores.get("due", {})
    assert later.keys() == due.keys(), f"due but not kept, or kept but not due: {later.keys() ^ due.keys()}"
    found: dict[tuple[str, str], Counter[Piece]] = defaultdict(Counter)
    deadlines = set()
    for text in later.values():
        kind, run, origin, piece = later_piece(text)
        if piece is not None:
            found[(run, origin)][piece] += 1
        elif kind == "deadline":
            deadlines.add((run, origin))
    expected = {(run.id, run.origin): +run.later for run in shard.past.values() if +run.later}
    assert dict(found) == expected, f"retries {found}, and must be {expected}"
    wanted = {(run.id, run.origin) for run in shard.runs.values() if run.has_deadline and run.is_alive}
    assert deadlines == wanted, f"deadlines {deadlines}, and must be {wanted}"


def _check_members(look: Look, shard: Shard) -> None:
    members = look.scores.get("members", {}).keys()
    assert members == shard.members, f"members {members}, and must be {shard.members}"
    services = look.hashes.get("services", {}).keys()
    assert services == shard.members, f"services {services}, and must be {shard.members}"


def _check_indexes(look: Look, shard: Shard) -> None:
    """What is found without knowing a run id."""
    waiting = {run.id for run in shard.runs.values() if run.state == "waiting"}
    news = Counter(n["run"].decode() for n in look.entries.get("news", []) if n["kind"] == b"ended")
    letters = look.entries.get("dead", [])
    dead = Counter(dead_of(letter) for letter in letters if "m" in letter)
    for name, found, expected in (
        ("runs", set(look.scores.get("runs", {})), shard.listed),
        ("ended", set(look.scores.get("ended", {})), shard.ended),
        ("waiting", set(look.hashes.get("waiting", {})), waiting),
        ("news", news, shard.news),
        ("dead", dead, +shard.dead),
        ("dead, of those that could not be read,", sum("m" not in letter for letter in letters), shard.junked),
    ):
        assert found == expected, f"{name} has {found}, and must have {expected}"


def dead_of(fields: dict[str, bytes]) -> Dead:
    """A letter as the model knows it."""
    node, count, attempt, flags = fields["m"].decode().split(" ")
    frame = Frame(int(count), flags, fields["l"], fields["v"])
    return Dead(fields["r"].decode(), fields["o"].decode(), int(node), lineages_of(frame), int(attempt), fields["x"])


def _check_keys(look: Look, shard: Shard) -> None:
    """Keys of a run that is over expire, those of one that goes on do not, and none stands without a run."""
    for name, ttl in look.expiry.items():
        kind, _, rest = name.partition(":")
        run_id, _, part = rest.partition(":")
        if kind != "run" or part.startswith("t:"):
            continue
        run = shard.runs.get(run_id)
        if run is None:
            assert (part, ttl > 0) == ("blobs", True), f"{name} belongs to no run"
        elif run.is_alive:
            assert ttl == -1, f"{name} would expire, and its run goes on"
        else:
            assert ttl > 0, f"{name} would stay, and its run is over"
