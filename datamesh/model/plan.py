"""Plan: a resolved flow. Immutable, and addressed by its digest, so that every process can cache it for ever.

It names tasks and streams and nothing of code or of how a task meets its input: that belongs to implementations.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from datamesh.errors import ConfigurationError, TamperedDataError
from datamesh.model.contracts import Types
from datamesh.model.graph import levels
from datamesh.model.names import check_name

_REF = re.compile(r"[A-Za-z0-9_.-]{1,64}@[1-9][0-9]*")
_DIGEST_CHARACTERS = 32

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A task at its place in a plan.

    Attributes:
        name: Of this place; the task's name, or `name-2` where a flow has the task a second time.
        ref: The task and version that is wanted, `name@version`.
        wait: Whether it starts only when its inputs are complete.
        inputs: Pairs (input of the task, stream that it reads).
        outputs: Pairs (output of the task, stream that it writes).
    """

    name: str
    ref: str
    wait: bool
    inputs: Pairs
    outputs: Pairs

    @property
    def title(self) -> str:
        """The name as pictures show it, with the task or version where the name does not tell: `embed-2 [embed]`."""
        task, _, version = self.ref.partition("@")
        shown = task if version == "1" else self.ref
        return shown if self.name == task else f"{self.name} [{shown}]"

    @property
    def reads(self) -> tuple[str, ...]:
        """The streams it reads, each once, also where two inputs read the same one."""
        return tuple(dict.fromkeys(stream for _, stream in self.inputs))

    @property
    def writes(self) -> tuple[str, ...]:
        """The streams it writes."""
        return tuple(stream for _, stream in self.outputs)


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """A stream of a plan: the nodes that write it (none for an input of the flow) and those that read it."""

    name: str
    producers: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a run needs to know of its flow. Make one with `Plan.of` or `Plan.from_wire`.

    Attributes:
        flow: Name of the flow.
        nodes: By their depth and name, so producers stand before their consumers and equal graphs have equal plans.
        streams: Inputs of the flow first.
        types: Declared annotations by stream. In this process only: not on the wire, not in the digest.
    """

    flow: str
    nodes: tuple[Node, ...]
    streams: tuple[StreamPlan, ...]
    types: Mapping[str, Any] = field(default=Types(), compare=False, repr=False)

    @classmethod
    def of(cls, flow: str, nodes: Iterable[Node], types: Mapping[str, Any] | None = None) -> Plan:
        """Order the nodes and derive the streams. Does not ask whether the graph is one that can run."""
        nodes = tuple(nodes)
        level = levels(_followers(nodes))
        ordered = tuple(sorted(nodes, key=lambda node: (level.get(node.name, len(nodes)), node.name)))
        return cls(flow, ordered, _streams(ordered), Types(types))

    @classmethod
    def from_wire(cls, wire: bytes) -> Plan:
        """Read a plan that `to_wire` wrote, in this process or another.

        Raises:
            TamperedDataError: The bytes are no plan, not in canonical form, or of a graph that no flow resolves to.
        """
        try:
            found = json.loads(wire)
            plan = cls.of(check_name("flow", found["flow"]), [_node(entry) for entry in found["nodes"]])
            plan._check()
        except (KeyError, TypeError, ValueError, RecursionError, ConfigurationError) as error:
            raise TamperedDataError(where="plan", problem=f"cannot be read: {error!r}") from error
        if plan.to_wire() != wire:
            raise TamperedDataError(where="plan", problem="is not in the form in which plans are written")
        return plan

    def to_wire(self) -> bytes:
        """Return the canonical JSON that the digest is of: equal plans have equal bytes."""
        return self._wire

    @cached_property
    def digest(self) -> str:
        """The plan's address: 32 hexadecimal characters of the SHA-256 of its wire form."""
        return hashlib.sha256(self._wire).hexdigest()[:_DIGEST_CHARACTERS]

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Streams that tasks read and none writes: the values that a start must bring."""
        return tuple(stream.name for stream in self.streams if not stream.producers)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Streams that a task writes and none reads: the results of a run."""
        return tuple(stream.name for stream in self.streams if not stream.consumers)

    def node(self, name: str) -> Node:
        """Return the node of this name.

        Raises:
            KeyError: The plan has none.
        """
        return self._nodes[name]

    def stream(self, name: str) -> StreamPlan:
        """Return the stream of this name.

        Raises:
            KeyError: The plan has none.
        """
        return self._streams[name]

    def depth(self, node: str) -> int:
        """Return how many tasks lie at most between a node and the start: 0 for one that reads inputs of the flow only.

        Raises:
            KeyError: The plan has no node of this name.
        """
        return self._levels[node]

    @cached_property
    def _wire(self) -> bytes:
        entries = [
            {"name": node.name, "ref": node.ref, "wait": node.wait, "inputs": node.inputs, "outputs": node.outputs}
            for node in self.nodes
        ]
        written = {"flow": self.flow, "nodes": entries}
        return json.dumps(written, sort_keys=True, separators=(",", ":")).encode()

    @cached_property
    def _nodes(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _streams(self) -> dict[str, StreamPlan]:
        return {stream.name: stream for stream in self.streams}

    @cached_property
    def _levels(self) -> dict[str, int]:
        return levels(_followers(self.nodes))

    def _check(self) -> None:
        """Refuse what no flow resolves to; only bytes from elsewhere can be so."""
        if not self.nodes or len(self._nodes) != len(self.nodes):
            raise ValueError("a plan has one or more nodes, each under its own name")
        if any(len(stream.producers) > 1 for stream in self.streams):
            raise ValueError("a stream has two producers")
        if len(self._levels) != len(self.nodes):
            raise ValueError("the tasks feed each other in a circle")


def _followers(nodes: Iterable[Node]) -> dict[str, list[str]]:
    """Each node with those that read what it writes: the edges of the graph."""
    nodes = tuple(nodes)
    readers: dict[str, list[str]] = {}
    for node in nodes:
        for stream in node.reads:
            readers.setdefault(stream, []).append(node.name)
    return {
        node.name: list(dict.fromkeys(reader for stream in node.writes for reader in readers.get(stream, ())))
        for node in nodes
    }


def _streams(nodes: tuple[Node, ...]) -> tuple[StreamPlan, ...]:
    producers: dict[str, list[str]] = {}
    consumers: dict[str, list[str]] = {}
    for node in nodes:
        for stream in node.writes:
            producers.setdefault(stream, []).append(node.name)
        for stream in node.reads:
            consumers.setdefault(stream, []).append(node.name)
    inputs = [name for name in consumers if name not in producers]
    return tuple(
        StreamPlan(name, tuple(producers.get(name, ())), tuple(consumers.get(name, ())))
        for name in (*inputs, *producers)
    )


def _node(entry: dict[str, Any]) -> Node:
    if not isinstance(entry["wait"], bool):
        raise ValueError(f"`wait` is {entry['wait']!r}")
    if not isinstance(entry["ref"], str) or not _REF.fullmatch(entry["ref"]):
        raise ValueError(f"`ref` is {entry['ref']!r}")
    name = check_name("task", entry["name"])
    return Node(name, entry["ref"], entry["wait"], _pairs(entry["inputs"]), _pairs(entry["outputs"]))


def _pairs(found: list[list[str]]) -> Pairs:
    pairs = tuple((check_name("input or output", name), check_name("stream", stream)) for name, stream in found)
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a task has an input or output twice")
    return pairs
