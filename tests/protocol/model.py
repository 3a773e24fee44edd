"""Model: what the scripts promise, in plain Python and without a server.

Where a frame stands in the window or the backlog it does not know; that is for the invariants.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from datamesh.model.modes import Mode
from datamesh.store.frames import Settlement, Status
from datamesh.store.keys import ShardKeys
from tests.protocol.look import Piece, Values, lineages_of
from tests.protocol.model_run import Run

JUNK = ("", "")
"""Id and origin of what stands for entries that cannot be read."""


class Dead(NamedTuple):
    """A frame that was buried."""

    run: str
    origin: str
    node: int
    values: Values
    attempt: int
    reason: bytes


@dataclass(eq=False)
class Entry:
    """A delivery that was taken once: who has it, and how far it has come."""

    run: Run
    piece: Piece
    holder: str | None
    kept: int = 0
    mark: bytes = b""


@dataclass
class Shard:
    """A shard: runs, members and what these have taken.

    Attributes:
        runs: By id, those that are not forgotten.
        past: All runs there ever were.
        listed: Run ids in the index of runs; they stay until they are swept.
        watched: Members that were removed lately, whose last read may still take something.
    """

    keys: ShardKeys
    runs: dict[str, Run] = field(default_factory=dict)
    past: dict[tuple[str, str], Run] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)
    expired: set[str] = field(default_factory=set)
    watched: set[str] = field(default_factory=set)
    entries: dict[tuple[str, str], Entry] = field(default_factory=dict)
    dead: Counter[Dead] = field(default_factory=Counter)
    news: Counter[str] = field(default_factory=Counter)
    junked: int = 0
    """Entries that could not be read and were buried."""

    def __post_init__(self) -> None:
        self.past[JUNK] = Run(*JUNK, "", "none")

    def add(self, run: Run) -> None:
        self.runs[run.id] = self.past[(run.id, run.origin)] = run
        self.listed.add(run.id)
        self.ended.discard(run.id)

    def note_end(self, run: Run) -> None:
        """A run that may have ended is listed so."""
        if not run.is_alive and self.runs.get(run.id) is run and run.id not in self.ended:
            self.ended.add(run.id)
            if run.state != "done":
                self.news[run.id] += 1

    def end_run(self, run: Run, state: str, failure: bytes = b"") -> None:
        run.end(state, failure)
        self.note_end(run)

    def remove(self, member: str) -> None:
        self.members.discard(member)
        self.expired.discard(member)

    # ------------------------------------------------------------------------------------------------ settling

    def settle(self, member: str, items: Sequence[Settlement]) -> list[Status]:
        """What a call must answer, and what it changes."""
        if member not in self.members:
            return [Status.FENCED] * len(items)
        alive = {id(run) for run in self.runs.values() if run.state == "open"}
        told, touched = [], []
        for item in items:
            run = self.runs.get(item.delivery.run_id)
            is_alive = run is not None and id(run) in alive and run.origin == item.delivery.origin
            status = self._admit(member, item, is_alive)
            told.append(status)
            if status is Status.OK and run is not None:
                self._apply(run, item)
                touched.append(run)
        for run in dict.fromkeys(touched):
            run.close_ready()
            self.note_end(run)
        return told

    def _admit(self, member: str, item: Settlement, is_alive: bool) -> Status:
        key = (item.delivery.work, item.delivery.entry_id)
        entry = self.entries.get(key)
        kept = entry.kept if entry else 0
        last = item.step - 1 if item.step else item.delivery.step
        if item.step:
            if not is_alive:
                return Status.GONE
            if kept >= item.step:
                return Status.ALREADY
            if kept != last:
                return Status.FENCED
            if entry is None or entry.holder != member:
                return Status.GONE
            entry.kept, entry.mark = item.step, item.mark
            return Status.OK
        if entry is None or entry.holder is None:
            return Status.ALREADY
        if item.delivery.run_id not in self.runs:
            return Status.UNKNOWN
        if is_alive and kept != last:
            return Status.FENCED
        del self.entries[key]
        self._forget(entry)
        return Status.OK if is_alive else Status.GONE

    @staticmethod
    def _forget(entry: Entry) -> None:
        assert entry.run.frames[entry.piece] > 0, f"{entry.piece} was settled more often than there is of it"
        entry.run.frames[entry.piece] -= 1

    def _apply(self, run: Run, item: Settlement) -> None:
        node = item.delivery.node
        run.fan_out = max(run.fan_out, item.fan_out)
        for stream, frame in item.outputs:
            run.publish(stream, lineages_of(frame))
        for again in item.retries:
            run.later[Piece(node, lineages_of(again.frame), again.attempt, again.mark)] += 1
            run.counts[f"r:{node}"] += 1
        for back in item.returned:
            run.frames[Piece(node, lineages_of(back.frame), back.attempt, back.mark)] += 1
        for grave in item.burials:
            self.dead[Dead(run.id, run.origin, node, lineages_of(grave.frame), grave.attempt, grave.reason)] += 1
        buried = sum(grave.frame.count for grave in item.burials)
        terminal = item.done + item.skipped + buried
        for letter, count in (("d", item.done), ("k", item.skipped), ("x", buried)):
            run.counts[f"{letter}:{node}"] += count
        if run.plan.modes[node] is Mode.EACH:
            run.tokens[node] -= terminal
        elif terminal:
            run.finished.add(node)
        if item.failure and not run.ending:
            run.ending, run.failure = "failed", item.failure
            run.counts[f"f:{node}"] += 1

    # ------------------------------------------------------------------------------------------------ taking

    def hand(self, key: tuple[str, str], run: Run, piece: Piece, member: str) -> Entry:
        """A member is given an entry."""
        entry = self.entries.get(key)
        if entry is None:
            entry = self.entries[key] = Entry(run, piece, member)
        assert (entry.run, entry.piece) == (run, piece)
        entry.holder = member
        return entry

    def held_by(self, member: str, works: Iterable[str]) -> dict[tuple[str, str], Entry]:
        served = set(works)
        return {key: e for key, e in self.entries.items() if e.holder == member and key[0] in served}

    def ownerless(self, works: Iterable[str]) -> dict[tuple[str, str], Entry]:
        """Entries in the hands of those who are no members."""
        served = set(works)
        return {
            key: e
            for key, e in self.entries.items()
            if e.holder is not None and e.holder not in self.members and key[0] in served
        }

    def lose_group(self, work: str) -> None:
        """A group is gone, and with it who holds what."""
        for (at, _), entry in self.entries.items():
            if at == work:
                entry.holder = None

    def discard(self, member: str, key: tuple[str, str], *, is_parked: bool) -> Status:
        """An entry that cannot be read is buried, or put off."""
        entry = self.entries.get(key)
        if member not in self.members:
            return Status.FENCED
        if entry is None or entry.holder != member:
            return Status.ALREADY
        del self.entries[key]
        self._forget(entry)
        if is_parked:
            entry.run.later[entry.piece] += 1
        else:
            self.junked += 1
        return Status.OK

    # ------------------------------------------------------------------------------------------------ runs

    def redrive(self, letter: Dead) -> str:
        """The values of a dead letter are addressed to their task again."""
        if self.dead[letter] <= 0:
            return "ALREADY"
        run, count = self.runs.get(letter.run), len(letter.values)
        if run is None or run.origin != letter.origin or run.state != "open" or letter.node in run.done:
            return "GONE"
        opened, most = run.counters()[f"o:{letter.node}"], run.quota.open_values
        if 0 < most < opened + count:
            return "FULL"
        self.dead[letter] -= 1
        run.counts[f"x:{letter.node}"] -= count
        run.tokens[letter.node] += count
        run.frames[Piece(letter.node, letter.values, 1, b"")] += 1
        return "OK"

    def push(self, run_id: str, stream: int, writer: str, number: int, frames: Sequence[int], close: bool) -> str:
        """What a call must answer, and what it changes; `frames` are numbers of values."""
        run = self.runs.get(run_id)
        if run is not None and run.writers.get((stream, writer), 0) >= number:
            return "ALREADY"
        if run is None or not run.is_alive:
            return "GONE"
        if run.state == "waiting":
            return "WAITING"
        if stream not in run.open_inputs:
            return "CLOSED"
        run.writers[(stream, writer)] = number
        for count in frames:
            at = run.counts[f"v:{stream}"]
            run.publish(stream, tuple((at + place,) for place in range(count)))
        if close:
            run.open_inputs.discard(stream)
        run.close_ready()
        self.note_end(run)
        return "OK"
