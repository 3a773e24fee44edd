"""BoundPlan: a plan together with what implementations add to it.

A plan knows names and wires. How a task meets its input (its mode) belongs to the implementation that services
announced, and which streams are kept for readers belongs to the start. Runs that agree in all of this share one bound
plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from datamesh.errors import TamperedDataError
from datamesh.model.modes import Mode
from datamesh.model.plan import Plan

_WAIT = "wait"


@dataclass(frozen=True)
class BoundPlan:
    """How values travel in a run.

    Attributes:
        plan: The resolved flow.
        modes: How each node meets its input, in the order of the plan's nodes.
        taps: Indexes of the streams that are kept whole, for readers and for tasks that take whole streams.
    """

    plan: Plan
    modes: tuple[Mode, ...]
    taps: frozenset[int]

    @classmethod
    def of(cls, plan: Plan, modes: Mapping[str, Mode], *, tapped: Collection[str]) -> BoundPlan:
        """Bind a plan.

        Args:
            plan: The resolved flow.
            modes: Mode by task ref; every task of the plan has one.
            tapped: Names of streams that somebody outside the flow reads.
        """
        bound = tuple(modes[node.ref] for node in plan.nodes)
        whole = {
            stream for node, mode in zip(plan.nodes, bound, strict=True) if mode is Mode.STREAM for stream in node.reads
        }
        return cls(plan, bound, frozenset(i for i, s in enumerate(plan.streams) if s.name in whole or s.name in tapped))

    @classmethod
    def from_wire(cls, wire: bytes) -> BoundPlan:
        """Read what `to_wire` wrote.

        Raises:
            TamperedDataError: The bytes are no bound plan.
        """
        try:
            found = json.loads(wire)
            bound = cls(
                Plan.from_wire(found["plan"].encode()),
                tuple(Mode(mode) for mode in found["modes"]),
                frozenset(int(index) for index in found["taps"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
            raise TamperedDataError(where="bound plan", problem=f"cannot be read: {error!r}") from error
        if len(bound.modes) != len(bound.plan.nodes):
            raise TamperedDataError(where="bound plan", problem="has not one mode for each node")
        return bound

    @cached_property
    def wire(self) -> bytes:
        """Canonical JSON; equal bound plans have equal bytes."""
        found = {"plan": self.plan.to_wire().decode(), "modes": self.modes, "taps": sorted(self.taps)}
        return json.dumps(found, sort_keys=True, separators=(",", ":")).encode()

    @cached_property
    def digest(self) -> str:
        """22 hexadecimal characters of the SHA-256 of the wire form."""
        return hashlib.sha256(self.wire).hexdigest()[:22]

    @cached_property
    def stream_index(self) -> dict[str, int]:
        return {stream.name: index for index, stream in enumerate(self.plan.streams)}

    @cached_property
    def node_index(self) -> dict[str, int]:
        return {node.name: index for index, node in enumerate(self.plan.nodes)}

    @cached_property
    def outputs(self) -> tuple[dict[str, int], ...]:
        """For each node: index of the stream that each output of its task goes to."""
        return tuple({name: self.stream_index[stream] for name, stream in node.outputs} for node in self.plan.nodes)

    @cached_property
    def routes(self) -> tuple[str, ...]:
        """For each stream, for the scripts: whether it is tapped, then each consumer's index and how it is fed."""
        return tuple(
            " ".join(
                (
                    str(int(index in self.taps)),
                    *(f"{self.node_index[name]} {self._feed(name)}" for name in stream.consumers),
                )
            )
            for index, stream in enumerate(self.plan.streams)
        )

    @cached_property
    def start_fields(self) -> dict[str, int]:
        """Counters that a run starts with, all inputs still open."""
        fields = {"left": len(self.plan.nodes)}
        for index, (node, mode) in enumerate(zip(self.plan.nodes, self.modes, strict=True)):
            fields[f"o:{index}"] = 1
            if mode is Mode.STREAM and node.wait:
                fields[f"i:{index}"] = len(node.reads)
        for index, stream in enumerate(self.plan.streams):
            fields[f"c:{index}"] = max(1, len(stream.producers))
        return fields

    @cached_property
    def starters(self) -> tuple[int, ...]:
        """Nodes that are delivered with the start: those that take whole streams and do not wait."""
        return tuple(
            index
            for index, (node, mode) in enumerate(zip(self.plan.nodes, self.modes, strict=True))
            if mode is Mode.STREAM and not (node.wait and node.reads)
        )

    def waits(self, index: int) -> bool:
        """Whether a node is delivered when its inputs are complete."""
        return self.modes[index] is Mode.STREAM and self.plan.nodes[index].wait

    def _feed(self, name: str) -> str:
        index = self.node_index[name]
        return _WAIT if self.waits(index) else self.modes[index].value
