"""World: a shard on a real server, its model beside it, and all that may happen to them.

Each act makes one call or breaks one thing, says what the model expects of it, and compares what the call answered.
What it has changed is compared by the invariants, after each act.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from datamesh.model.bound import BoundPlan
from datamesh.store.connect import endpoint_of
from datamesh.store.frames import Delivery
from datamesh.store.keys import Level, ShardKeys
from datamesh.store.locate import locate
from datamesh.store.plans import plan_fields
from datamesh.store.protocol import ShardProtocol
from tests.protocol.invariants import check
from tests.protocol.look import Eye, Look, StraightLink, finish, later_piece
from tests.protocol.model import Shard
from tests.protocol.model_run import Run
from tests.protocol.outcomes import Held
from tests.servers import Server

LEASE_MS = 600_000
MESH = "machine"
MOST_OPEN_RUNS, MOST_RUNS, MOST_MEMBERS = 3, 5, 5
Key = tuple[str, str]


@dataclass
class Replay:
    """A call that may be made once more, and what must come of it then."""

    words: str
    again: Callable[[], None]


@dataclass
class World:
    """A shard, what is known of it, and chance.

    Attributes:
        look: The shard after the last act.
        beliefs: By member, dead or alive: what it believes to hold.
        last: The last call, if it may be repeated.
        story: What has happened, for who must find out why something does not hold.
    """

    link: StraightLink
    protocol: ShardProtocol
    eye: Eye
    bounds: Sequence[BoundPlan]
    shard: Shard
    look: Look
    rnd: random.Random = field(default_factory=lambda: random.Random(0))
    beliefs: dict[str, dict[Key, Held]] = field(default_factory=dict)
    last: Replay | None = None
    story: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    names: int = 0

    @classmethod
    def on(cls, server: Server, bounds: Sequence[BoundPlan], link: StraightLink | None = None) -> World:
        """Begin on an empty server."""
        link = link or StraightLink(str(server.socket_path))
        link.send("FLUSHALL")
        keys = ShardKeys(MESH, 0)
        endpoint = endpoint_of(locate(server.url, None, MESH), None)
        protocol = ShardProtocol(keys, link, endpoint, patience=0.0)
        eye = Eye(link, keys)
        world = cls(link, protocol, eye, bounds, Shard(keys), eye.look())
        for bound in bounds:
            finish(protocol.write_plan(bound.digest, plan_fields(bound, keys)))
        return world

    def close(self) -> None:
        finish(self.link.close())

    # -------------------------------------------------------------------------------------------- what is there

    @property
    def keys(self) -> ShardKeys:
        return self.shard.keys

    def works_of(self, bound: BoundPlan) -> list[str]:
        return [self.keys.work(node.ref, level) for node in bound.plan.nodes for level in (Level.NORMAL, Level.HIGH)]

    @property
    def works(self) -> list[str]:
        """Work streams of all flows, which is what members serve."""
        return [work for bound in self.bounds for work in self.works_of(bound)]

    def name(self, letter: str) -> str:
        self.names += 1
        return f"{letter}{self.names}"

    def member(self) -> str | None:
        return self.rnd.choice(sorted(self.shard.members)) if self.shard.members else None

    def run(self, *states: str) -> Run | None:
        """Some run in one of these states; in any if none is given."""
        found = [run for run in self.shard.runs.values() if not states or run.state in states]
        return self.rnd.choice(found) if found else None

    def bound_of(self, delivery: Delivery) -> BoundPlan:
        return next(bound for bound in self.bounds if bound.digest == delivery.digest)

    # ------------------------------------------------------------------------------------------------ one act

    def tell(self, words: str, repeat: Callable[[], None] | None = None) -> None:
        """Note what is done now, and how it is repeated."""
        self.story.append(words)
        self.last = Replay(words, repeat) if repeat else None

    def act(self, name: str, act: Callable[[World], bool], seed: int) -> None:
        """Let one thing happen, if it can, and see that all is as it must be.

        Raises:
            AssertionError: It is not.
        """
        self.rnd = random.Random(seed)
        try:
            if act(self):
                self.counts[name] += 1
                self.see()
        except Exception as error:
            error.add_note("what has happened:\n  " + "\n  ".join(self.story[-200:]))
            raise

    def see(self) -> None:
        """Look, and compare."""
        self.look = self.eye.look()
        check(self.look, self.shard)

    def unchanged(self, call: Callable[[], object]) -> None:
        """Make a call that must change nothing."""
        before = self.eye.look().without_times()
        call()
        after = self.eye.look().without_times()
        changed = [(a, b) for a, b in zip_longest(before, after) if a != b]
        assert not changed, f"it has changed {changed[:3]}"

    # ----------------------------------------------------------------------------------------------- deliveries

    def receive(self, member: str, taken: Sequence[Delivery], *, is_lost: bool) -> None:
        """A member was given deliveries; the model agrees that they were there."""
        for delivery in taken:
            key = (delivery.work, delivery.entry_id)
            run_id, origin, piece = self.look.works[delivery.work[len(self.keys.prefix) :]].entries[delivery.entry_id]
            assert (run_id, origin) == (delivery.run_id, delivery.origin)
            entry = self.shard.hand(key, self.shard.past[(run_id, origin)], piece, member)
            assert entry.run.frames[piece] > 0, f"{piece} was given out, and is settled"
            if not is_lost and not delivery.problem:
                self.beliefs[member].setdefault(key, Held.of(delivery))

    def due_now(self) -> list[tuple[str, str, str]]:
        """Names of what is due, with their runs and origins."""
        found = []
        for name, score in self.look.scores.get("due", {}).items():
            if score <= self.server_ms():
                _, run, origin, _ = later_piece(self.look.hashes["later"][name])
                found.append((name, run, origin))
        return found

    def server_ms(self) -> int:
        seconds, micros = self.link.send("TIME")
        return int(seconds) * 1000 + int(micros) // 1000
