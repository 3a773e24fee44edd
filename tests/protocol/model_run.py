"""ModelRun: one run as it must be, from its frames and from what is done.

It knows of frames where the scripts know of counters, and derives the counters from them: a stream is closed when what
writes it is done, a task is done when its input is closed and nothing of it is open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from datamesh.model.bound import BoundPlan
from datamesh.model.modes import Mode
from datamesh.model.policies import Quota
from tests.protocol.look import Lineage, Piece, Values

ALIVE = ("open", "waiting")


@dataclass(eq=False)
class Run:
    """One run, from its start to its end and beyond: what is left of it may still be met.

    Attributes:
        open_inputs: Streams that may still be pushed to.
        tokens: Values addressed to each task and not terminal.
        frames: All frames in its work streams and backlogs, taken or not.
        later: Frames that wait for their next attempt.
        published: What readers of each stream have got, in order.
        ends: Streams that have ended, and how.
        given: Tasks over whole streams that were delivered.
        finished: Those of them whose delivery is settled.
        facts: What was told to listeners, if there are any.
    """

    id: str
    origin: str
    level: str
    state: str
    bound: BoundPlan | None = None
    taps: frozenset[int] = frozenset()
    has_deadline: bool = False
    quota: Quota = field(default_factory=lambda: Quota(bytes=0))
    listened: bool = False
    failure: bytes = b""
    ending: str = ""
    fan_out: int = 0
    open_inputs: set[int] = field(default_factory=set)
    tokens: Counter[int] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    frames: Counter[Piece] = field(default_factory=Counter)
    later: Counter[Piece] = field(default_factory=Counter)
    published: dict[int, list[Lineage]] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    given: set[int] = field(default_factory=set)
    finished: set[int] = field(default_factory=set)
    done: set[int] = field(default_factory=set)
    writers: dict[tuple[int, str], int] = field(default_factory=dict)
    facts: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def is_alive(self) -> bool:
        return self.state in ALIVE

    @property
    def plan(self) -> BoundPlan:
        assert self.bound is not None
        return self.bound

    def begin(self, bound: BoundPlan, taps: frozenset[int], complete: Iterable[int]) -> None:
        """Open it with a plan; inputs that are not complete stay open."""
        self.state, self.bound, self.taps = "open", bound, taps
        inputs = {bound.stream_index[name] for name in bound.plan.inputs}
        self.open_inputs = inputs - set(complete)

    # ------------------------------------------------------------------------------------------- how values move

    def feeds(self, stream: int) -> list[int]:
        """Tasks that take the values of a stream one by one."""
        bound = self.plan
        nodes = [bound.node_index[name] for name in bound.plan.streams[stream].consumers]
        return [node for node in nodes if bound.modes[node] is Mode.EACH]

    def reads(self, node: int) -> list[int]:
        return [self.plan.stream_index[name] for name in self.plan.plan.nodes[node].reads]

    def writer_of(self, stream: int) -> int | None:
        """The task that writes a stream; None: it is an input of the flow."""
        for node, outputs in enumerate(self.plan.outputs):
            if stream in outputs.values():
                return node
        return None

    def publish(self, stream: int, values: Values) -> None:
        self.counts[f"v:{stream}"] += len(values)
        self.published.setdefault(stream, []).extend(values)
        for node in self.feeds(stream):
            self.tokens[node] += len(values)
            self.frames[Piece(node, values, 1, b"")] += 1

    def close_ready(self) -> None:
        """Close what is complete, deliver what has waited for it, and end the run when nothing is left."""
        self._enforce()
        bound, before = self.plan, None
        while before != (len(self.done), len(self.given)):
            before = (len(self.done), len(self.given))
            for stream in range(len(bound.plan.streams)):
                if stream not in self.ends and self._is_closed(stream):
                    self._end_stream(stream, "done")
            for node, mode in enumerate(bound.modes):
                if mode is Mode.STREAM and node not in self.given and self._may_begin(node):
                    self.given.add(node)
                    self.frames[Piece(node, (), 1, b"")] += 1
                if node not in self.done and self._is_done(node):
                    self.done.add(node)
                    self.tell("done", str(node))
        if self.ending or len(self.done) == len(bound.modes):
            self.end(self.ending or "done", self.failure)

    def _enforce(self) -> None:
        """A run that has more than it may fails."""
        for node, mode in enumerate(self.plan.modes):
            most, found = self.quota.open_values, self.tokens[node] + self._unread(node)
            if mode is Mode.EACH and 0 < most < found and not self.ending:
                self.ending, self.failure = "failed", b"quota open_values"
        if 0 < self.quota.fan_out < self.fan_out and not self.ending:
            self.ending, self.failure = "failed", b"quota fan_out"

    def _unread(self, node: int) -> int:
        return sum(stream not in self.ends for stream in self.reads(node))

    def _is_closed(self, stream: int) -> bool:
        writer = self.writer_of(stream)
        return stream not in self.open_inputs if writer is None else writer in self.done

    def _may_begin(self, node: int) -> bool:
        return not self.plan.waits(node) or all(stream in self.ends for stream in self.reads(node))

    def _is_done(self, node: int) -> bool:
        if self.plan.modes[node] is Mode.STREAM:
            return node in self.finished
        return not self.tokens[node] and all(stream in self.ends for stream in self.reads(node))

    def _end_stream(self, stream: int, how: str) -> None:
        self.ends[stream] = how
        if how == "done" and self.is_alive:
            self.tell("closed", str(stream))

    def end(self, state: str, failure: bytes = b"") -> None:
        """The run is over; streams that were open end with the reason."""
        self.state, self.failure = state, failure
        streams = range(len(self.plan.plan.streams)) if self.bound else sorted(self.taps)
        for stream in streams:
            if stream not in self.ends:
                self.ends[stream] = state
        self.tell(state, self.id)

    def tell(self, kind: str, subject: str) -> None:
        if self.listened:
            self.facts[(kind, subject)] += 1

    # ------------------------------------------------------------------------------------------- what it comes to

    def counters(self) -> dict[str, int]:
        """The counters of an open run or one that was, as they must stand in its hash."""
        bound, found = self.plan, dict(self.counts)
        for node, (spec, mode) in enumerate(zip(bound.plan.nodes, bound.modes, strict=True)):
            unread = sum(not self._is_closed(stream) for stream in self.reads(node))
            if mode is Mode.STREAM:
                found[f"o:{node}"] = int(node not in self.finished)
                if spec.wait:
                    found[f"i:{node}"] = unread
            else:
                found[f"o:{node}"] = self.tokens[node] + unread
        for stream in range(len(bound.plan.streams)):
            found[f"c:{stream}"] = int(not self._is_closed(stream))
        found["left"] = len(bound.modes) - len(self.done)
        return found
