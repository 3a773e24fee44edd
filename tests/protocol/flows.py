"""Random flows whose outputs are known from their inputs.

What a task gives is computed from the value alone. A value is the list of steps of its lineage: `[3, 0]` is the first
value that came of the fourth input.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgpack

from datamesh.codec.frame import encode_lineages
from datamesh.model.modes import Mode
from datamesh.model.task import Task
from datamesh.store.frames import PLAIN, Frame

Value = list[int]
WHOLE_VALUES = 3
"""How many values a task of whole streams gives to each output."""
_FIRST_OF_WHOLE = 1000


def frame_of(values: Sequence[Value]) -> Frame:
    """A frame whose lineages are its values."""
    return Frame(len(values), PLAIN, encode_lineages([tuple(v) for v in values]), msgpack.packb(list(values)))


def split(rnd: random.Random, values: Sequence[Value], most: int = 4) -> list[Frame]:
    """Frames of random sizes."""
    parts, at = [], 0
    while at < len(values):
        size = rnd.randint(1, most)
        parts.append(frame_of(values[at : at + size]))
        at += size
    return parts


@dataclass(frozen=True)
class Flow:
    """A random flow.

    Attributes:
        tasks: A producer stands before its consumers.
        modes: By name; a task that waits is not among them.
    """

    tasks: tuple[Task, ...]
    modes: dict[str, Mode]

    @classmethod
    def draw(cls, rnd: random.Random) -> Flow:
        streams, tasks, modes = ["in"], [], {}
        for number in range(rnd.randint(1, 6)):
            kind = rnd.choices(("each", "wait", "stream"), (6, 2, 2))[0]
            reads = rnd.sample(streams, 1 if kind == "each" else min(len(streams), rnd.randint(1, 2)))
            writes = [f"s{number}-{place}" for place in range(rnd.randint(1, 2))]
            if kind == "stream":
                modes[f"t{number}"] = Mode.STREAM
            tasks.append(Task(f"t{number}", reads, writes, wait=kind == "wait"))
            streams += writes
        if "in" not in {name for task in tasks for name in task.inputs}:
            tasks.append(Task("first", "in", "s-first"))
        return cls(tuple(tasks), modes)

    def expected(self, inputs: Iterable[Value]) -> dict[str, list[Value]]:
        """Values of each stream of a run."""
        found: dict[str, list[Value]] = {"in": list(inputs)}
        for task in self.tasks:
            for output in task.outputs:
                if self.is_whole(task.name):
                    found[output] = given_by_whole(output)
                else:
                    found[output] = [result for value in found[task.inputs[0]] for result in given(output, value)]
        return found

    def is_whole(self, name: str) -> bool:
        """Whether one delivery stands for all of a task's streams."""
        (task,) = (task for task in self.tasks if task.name == name)
        return task.wait or name in self.modes


def given(output: str, value: Value) -> list[Value]:
    """What a task gives for one value to one output: 0 to 3 values; a single one keeps its lineage."""
    count = zlib.crc32(repr((output, value)).encode()) % 4
    return [value] if count == 1 else [[*value, place] for place in range(count)]


def given_by_whole(output: str) -> list[Value]:
    """What a task of whole streams gives to one output."""
    return [[_FIRST_OF_WHOLE + zlib.crc32(output.encode()) % 100, place] for place in range(WHOLE_VALUES)]
