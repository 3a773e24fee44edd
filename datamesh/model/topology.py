"""Topology: a flow drawn as text, one row a task, one lane a stream.

    diamond: 4 tasks, docs ─▶ index

    ○     docs
    ●     split          docs ─▶ chunk
    ├─●   embed          chunk ─▶ vector
    ● │   tag            chunk ─▶ label
    ●─╯   join (waits)   vector, label ─▶ index
    ○     index

A lane runs down from the row of its producer to that of its last consumer; a row's line joins what the task reads
(lanes from above) and opens what it writes beyond the first (lanes to below).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from datamesh.model.plan import Node, Plan

_GAP = "   "


@dataclass(frozen=True, slots=True)
class Topology:
    """The drawing of a plan: `print` it."""

    plan: Plan

    def __str__(self) -> str:
        drawing = _Drawing(self.plan)
        for node in self.plan.nodes:
            drawing.add(node)
        ends = _arrow(self.plan.inputs, self.plan.outputs)
        count = len(self.plan.nodes)
        title = f"{self.plan.flow}: {count} task{'s' if count != 1 else ''}, {ends}"
        return "\n".join([title, "", *drawing.lines()])


class _Drawing:
    """Rows so far, and which stream is in which lane below them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lanes: list[str | None] = []
        self._unread = {stream.name: len(stream.consumers) for stream in plan.streams}
        self._rows: list[tuple[str, str, str]] = []

    def add(self, node: Node) -> None:
        for stream in node.reads:
            if stream not in self._lanes:
                self._terminal(self._open(stream), stream)
        self._task(node)
        for stream in node.writes:
            if not self._unread[stream]:
                lane = self._lanes.index(stream)
                self._terminal(lane, stream)
                self._lanes[lane] = None

    def lines(self) -> list[str]:
        graph_width = max(len(graph) for graph, _, _ in self._rows)
        label_width = max(len(label) for _, label, _ in self._rows)
        return [
            f"{graph:{graph_width}}{_GAP}{label:{label_width}}{_GAP}{detail}".rstrip()
            for graph, label, detail in self._rows
        ]

    def _task(self, node: Node) -> None:
        read = {self._lanes.index(stream) for stream in node.reads}
        for stream in node.reads:
            self._unread[stream] -= 1
        ending = {self._lanes.index(stream) for stream in node.reads if not self._unread[stream]}
        own = min(ending) if ending else self._open(node.writes[0] if node.writes else None)
        opened = {self._open(stream) for stream in node.writes[1:]}
        self._rows.append((self._joined(own, read, ending, opened), _label(node), _arrow(node.reads, node.writes)))
        for lane in ending:
            self._lanes[lane] = None
        self._lanes[own] = node.writes[0] if node.writes else None

    def _terminal(self, lane: int, stream: str) -> None:
        self._rows.append((self._joined(lane, set(), set(), set(), mark="○"), stream, ""))

    def _open(self, stream: str | None) -> int:
        """Take the first lane that is free; a new one if none is."""
        lane = self._lanes.index(None) if None in self._lanes else len(self._lanes)
        self._lanes[lane : lane + 1] = [stream]
        return lane

    def _joined(self, own: int, read: set[int], ending: set[int], opened: set[int], mark: str = "●") -> str:
        """One row: `own` lane's mark, lines from the lanes it reads and to those it opens, the others passing by."""
        ends = {own, *read, *opened}
        left, right = min(ends), max(ends)
        drawn = []
        for lane, stream in enumerate(self._lanes):
            if lane == own:
                symbol = mark
            elif lane in opened:
                symbol = "╭" if lane == left else "╮" if lane == right else "┬"
            elif lane in ending:
                symbol = "╰" if lane == left else "╯" if lane == right else "┴"
            elif lane in read:
                symbol = "├" if lane == left else "┤" if lane == right else "┼"
            else:
                symbol = "│" if stream is not None else "─" if left < lane < right else " "
            drawn += [symbol, "─" if left <= lane < right else " "]
        return "".join(drawn).rstrip()


def _label(node: Node) -> str:
    return f"{node.title}{' (waits)' if node.wait else ''}"


def _arrow(sources: Iterable[str], targets: Iterable[str]) -> str:
    return f"{', '.join(sources)} ─▶ {', '.join(targets)}".strip()
