"""Outcomes: what a member may say of a delivery that it holds, drawn by chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgpack

from datamesh.model.bound import BoundPlan
from datamesh.store.frames import Burial, Delivery, Frame, Requeue, Settlement
from tests.protocol.flows import frame_of, split
from tests.protocol.look import Values, lineages_of

MOST_OUTPUTS = 2
"""Values that one value gives to one output."""
HOUR_MS = 3_600_000


@dataclass
class Held:
    """A delivery as its owner sees it: places of the values that are left, or the one of a task over whole streams."""

    delivery: Delivery
    left: list[int]

    @classmethod
    def of(cls, delivery: Delivery) -> Held:
        every = list(range(delivery.frame.count or 1))
        marked = delivery.step and delivery.mark
        return cls(delivery, list(msgpack.unpackb(delivery.mark)) if marked else every)

    @property
    def is_whole(self) -> bool:
        return not self.delivery.frame.count


class Outcomes:
    """Draws settlements of one delivery after another."""

    def __init__(self, rnd: random.Random) -> None:
        self.rnd = rnd

    def draw(self, bound: BoundPlan, held: Held) -> Settlement:
        """Say what becomes of a delivery; its owner believes so at once.

        An advance finishes some of what is left, an end all of it, in one of the ways that there are.
        """
        step = held.delivery.step + 1 if self.rnd.random() < 0.3 else 0
        out = Settlement(replace(held.delivery), step=step)
        if held.is_whole:
            self._whole(bound, out)
        else:
            self._values(bound, held, out)
        if not step and self.rnd.random() < 0.04:
            out.failure = b"failed on purpose"
        return out

    def _whole(self, bound: BoundPlan, out: Settlement) -> None:
        """Of a task over whole streams: it gives more, ends, is tried again or goes back."""
        mark, delivery = msgpack.packb([0]), out.delivery
        kind = "more" if out.step else self.rnd.choices(("done", "retry", "back", "skip"), (7, 2, 1, 1))[0]
        out.mark = mark if out.step else b""
        if kind in ("more", "done"):
            values = tuple((1000 + delivery.step, place) for place in range(self.rnd.randint(0, 3)))
            self._give(bound, out, values)
        if kind == "retry":
            out.retries.append(Requeue(delivery.frame, delivery.attempt + 1, b"mark", self._delay()))
        if kind == "back":
            out.returned.append(Requeue(delivery.frame, delivery.attempt))
        out.done, out.skipped = int(kind == "done"), int(kind == "skip")

    def _values(self, bound: BoundPlan, held: Held, out: Settlement) -> None:
        """Of a frame: each value that is left goes its own way."""
        values, delivery = lineages_of(held.delivery.frame), out.delivery
        ways: dict[str, list[tuple[int, ...]]] = {w: [] for w in ("done", "skip", "retry", "back", "bury", "keep")}
        weights = (12, 1, 2, 2, 1, 6 if out.step else 0)
        is_simple = self.rnd.random() < 0.5
        for place in held.left:
            way = "done" if is_simple and not out.step else self.rnd.choices(tuple(ways), weights)[0]
            ways[way].append(values[place])
        kept = [place for place in held.left if values[place] in ways["keep"]]
        results = self._results(ways["done"])
        self._give(bound, out, results)
        out.fan_out = self.rnd.choice((0, 1, 2)) if results else 0
        if self.rnd.random() < 0.02:
            out.fan_out = MOST_OUTPUTS + 1
        out.done, out.skipped = len(ways["done"]), len(ways["skip"])
        out.mark = msgpack.packb(kept) if out.step else b""
        mark = self.rnd.choice((b"", b"mark"))
        delay = self._delay()
        out.retries += [Requeue(f, delivery.attempt + 1, mark, delay) for f in self._frames(ways["retry"])]
        out.returned += [Requeue(f, delivery.attempt, mark) for f in self._frames(ways["back"])]
        out.burials += [Burial(f, delivery.attempt, b"bad value") for f in self._frames(ways["bury"])]

    def _results(self, values: Sequence[tuple[int, ...]]) -> Values:
        found: list[tuple[int, ...]] = []
        for value in values:
            count = self.rnd.choice((1, 1, 0, MOST_OUTPUTS))
            found += [value] if count == 1 else [(*value, place) for place in range(count)]
        return tuple(found)

    def _give(self, bound: BoundPlan, out: Settlement, values: Values) -> None:
        for stream in bound.outputs[out.delivery.node].values():
            out.outputs += [(stream, part) for part in self._frames(values)]

    def _frames(self, values: Sequence[tuple[int, ...]]) -> list[Frame]:
        if self.rnd.random() < 0.5 and values:
            return [frame_of([list(value) for value in values])]
        return split(self.rnd, [list(value) for value in values])

    def _delay(self) -> int:
        return self.rnd.choice((0, HOUR_MS))
