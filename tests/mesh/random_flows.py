"""Random flows, and what they give when they are evaluated here, without a mesh.

Every node computes outputs from single values alone, so the outputs of a flow are the same multiset in whatever order
and in whatever service its nodes run.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from datamesh import IO, Flow, IOVal, Task
from datamesh.model.task import RenamedTask

MODES = ("each", "stream", "wait")
FORMS = ("async generator", "coroutine", "generator", "function")
PRIME = 1_000_003
MOST_VALUES = 600
MOST_NODES = 8
_PARAMETERS = "abc"
_serial = itertools.count()

Given = list[tuple[str, int]]
"""Output and value."""


@dataclass(frozen=True)
class Node:
    """One task: how it meets its input, how it is written, what it reads and writes."""

    index: int
    mode: str
    form: str
    reads: tuple[str, ...]
    outputs: int
    fan_out: int
    salt: int

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(f"s{self.index}-{place}" for place in range(self.outputs))

    def given(self, value: int) -> Given:
        """What the node gives for one value."""
        count = (value + self.salt) % (self.fan_out + 1)
        if self.mode == "each" and "generator" not in self.form:
            count = max(1, count)
        return [(f"x{k % self.outputs}", (value * 31 + self.salt + k) % PRIME) for k in range(count)]

    def task(self, prefix: str) -> RenamedTask:
        """Declare and implement it."""
        inputs, outputs = _PARAMETERS[: len(self.reads)], [f"x{place}" for place in range(self.outputs)]
        declared = Task(name=f"{prefix}-{self.index}", inputs=list(inputs), outputs=outputs, wait=self.mode == "wait")
        implement = _each if self.mode == "each" else _WHOLE[len(self.reads)]
        declared(implement(self)[self.form])
        return declared.rename(
            inputs=dict(zip(inputs, self.reads, strict=True)), outputs=dict(zip(outputs, self.writes, strict=True))
        )


@dataclass(frozen=True)
class Case:
    """A flow and its inputs."""

    nodes: tuple[Node, ...]
    values: dict[str, list[int]]
    all_outputs: bool = False
    concurrency: int = 1
    shares: tuple[int, ...] = ()
    """For each node: 1 for the first service, 2 for the second, 3 for both."""
    prefix: str = field(default_factory=lambda: f"n{next(_serial)}-{os.getpid()}", repr=False)

    @property
    def inputs(self) -> list[IOVal[int]]:
        """The values of the inputs that somebody reads."""
        used = {name for node in self.nodes for name in node.reads}
        return [IOVal(name=name, value=value) for name, some in self.values.items() if name in used for value in some]

    @property
    def read_back(self) -> list[str]:
        """Streams that the run gives to its readers."""
        used = {name for node in self.nodes for name in node.reads}
        written = [name for node in self.nodes for name in node.writes]
        if self.all_outputs:
            return [*written, *(name for name in self.values if name in used)]
        return [name for name in written if name not in used]

    def expected(self) -> dict[str, Counter[int]]:
        """Evaluate it here: by stream, how often each value comes."""
        streams: dict[str, list[int]] = {name: list(some) for name, some in self.values.items()}
        for node in self.nodes:
            streams |= {name: [] for name in node.writes}
            for value in (value for name in node.reads for value in streams[name]):
                for output, result in node.given(value):
                    streams[node.writes[int(output[1:])]].append(result)
        return {name: Counter(values) for name, values in streams.items()}

    @property
    def total(self) -> int:
        """Values in all of its streams."""
        return sum(counts.total() for counts in self.expected().values())

    def build(self) -> tuple[Flow, list[RenamedTask]]:
        """Declare and implement its tasks, and wire them."""
        tasks = [node.task(self.prefix) for node in self.nodes]
        return Flow.from_tasks(*tasks, name=self.prefix).resolve(), tasks


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a flow of bounded size."""
    names = ["in0", "in1"][: draw(st.integers(1, 2))]
    values = {name: draw(st.lists(st.integers(0, 999), min_size=1, max_size=6)) for name in names}
    streams = list(names)
    nodes: list[Node] = []
    wanted = draw(st.integers(1, MOST_NODES))
    while len(nodes) < wanted:
        node = _node(draw, len(nodes), streams)
        if nodes and Case((*nodes, node), values).total > MOST_VALUES:
            break
        nodes.append(node)
        streams += node.writes
    shares = draw(st.lists(st.integers(1, 3), min_size=len(nodes), max_size=len(nodes)))
    return Case(tuple(nodes), values, draw(st.booleans()), draw(st.sampled_from((1, 2, 50))), tuple(shares))


def _node(draw: st.DrawFn, index: int, streams: list[str]) -> Node:
    mode = draw(st.sampled_from(MODES))
    most = 1 if mode == "each" else min(len(_PARAMETERS), len(streams))
    reads = draw(st.lists(st.sampled_from(streams), min_size=1, max_size=most, unique=True))
    return Node(
        index, mode, draw(st.sampled_from(FORMS)), tuple(reads), outputs=draw(st.integers(1, 2)),
        fan_out=draw(st.integers(0, 5)), salt=draw(st.integers(0, 9)),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------ implementations

Forms = dict[str, Callable[..., Any]]


def _vals(given: Given) -> list[IOVal[int]]:
    return [IOVal(name=name, value=value) for name, value in given]


def _each(node: Node) -> Forms:
    async def async_generator(a: int) -> AsyncIterator[IOVal[int]]:
        for item in _vals(node.given(a)):
            yield item

    async def coroutine(a: int) -> list[IOVal[int]]:
        return _vals(node.given(a))

    def generator(a: int) -> Iterator[IOVal[int]]:
        yield from _vals(node.given(a))

    def function(a: int) -> list[IOVal[int]]:
        return _vals(node.given(a))

    return dict(zip(FORMS, (async_generator, coroutine, generator, function), strict=True))


async def _read(node: Node, ios: Sequence[IO[int]]) -> AsyncIterator[IOVal[int]]:
    for io in ios:
        async for value in io:
            for item in _vals(node.given(value)):
                yield item


def _read_in_thread(node: Node, ios: Sequence[Any]) -> Iterator[IOVal[int]]:
    for io in ios:
        for value in io:
            yield from _vals(node.given(value))


def _one(node: Node) -> Forms:
    async def async_generator(a: IO[int]) -> AsyncIterator[IOVal[int]]:
        async for item in _read(node, (a,)):
            yield item

    async def coroutine(a: IO[int]) -> list[IOVal[int]]:
        return [item async for item in _read(node, (a,))]

    def generator(a: IO[int]) -> Iterator[IOVal[int]]:
        yield from _read_in_thread(node, (a,))

    def function(a: IO[int]) -> list[IOVal[int]]:
        return list(_read_in_thread(node, (a,)))

    return dict(zip(FORMS, (async_generator, coroutine, generator, function), strict=True))


def _two(node: Node) -> Forms:
    async def async_generator(a: IO[int], b: IO[int]) -> AsyncIterator[IOVal[int]]:
        async for item in _read(node, (a, b)):
            yield item

    async def coroutine(a: IO[int], b: IO[int]) -> list[IOVal[int]]:
        return [item async for item in _read(node, (a, b))]

    def generator(a: IO[int], b: IO[int]) -> Iterator[IOVal[int]]:
        yield from _read_in_thread(node, (a, b))

    def function(a: IO[int], b: IO[int]) -> list[IOVal[int]]:
        return list(_read_in_thread(node, (a, b)))

    return dict(zip(FORMS, (async_generator, coroutine, generator, function), strict=True))


def _three(node: Node) -> Forms:
    async def async_generator(a: IO[int], b: IO[int], c: IO[int]) -> AsyncIterator[IOVal[int]]:
        async for item in _read(node, (a, b, c)):
            yield item

    async def coroutine(a: IO[int], b: IO[int], c: IO[int]) -> list[IOVal[int]]:
        return [item async for item in _read(node, (a, b, c))]

    def generator(a: IO[int], b: IO[int], c: IO[int]) -> Iterator[IOVal[int]]:
        yield from _read_in_thread(node, (a, b, c))

    def function(a: IO[int], b: IO[int], c: IO[int]) -> list[IOVal[int]]:
        return list(_read_in_thread(node, (a, b, c)))

    return dict(zip(FORMS, (async_generator, coroutine, generator, function), strict=True))


_WHOLE: dict[int, Callable[[Node], Forms]] = {1: _one, 2: _two, 3: _three}
