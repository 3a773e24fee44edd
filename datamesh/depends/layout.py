"""Layout: a graph of dependencies laid out flat, one slot for each value.

Slots are numbered: 0 the context, then values that outlast the invocation, then one value for each step.
"""

from __future__ import annotations

from collections.abc import Hashable

from datamesh.depends.graph import Arguments, Node

Wants = tuple[tuple[str, int], ...]
"""Arguments by name, each with the slot that its value is in."""


class Layout:
    """Gives each node of a graph its slot, after those of what it needs.

    Attributes:
        wants: The function's arguments.
        wants_context: Whether slot 0 is used.
        lasting: Nodes that outlast the invocation and that it needs itself, in the order of their slots.
        steps: Nodes of scope "call", in the order of their slots, with their arguments.
    """

    def __init__(self, arguments: Arguments) -> None:
        self.lasting: list[Node] = []
        self.steps: list[tuple[Node, Wants]] = []
        self.wants_context = False
        self._slots: dict[Hashable, int] = {}
        self._seen: set[Node] = set()
        self._collect(arguments)
        self.wants = self._place(arguments)

    def _collect(self, arguments: Arguments) -> None:
        for _, node in arguments:
            if node is None:
                self.wants_context = True
            elif node not in self._seen:
                self._seen.add(node)
                self._collect_from(node)

    def _collect_from(self, node: Node) -> None:
        if node.scope == "call":
            self._collect(node.arguments)
        elif (node.scope, node.key) not in self._slots:
            self.lasting.append(node)
            self._slots[(node.scope, node.key)] = len(self.lasting)

    def _place(self, arguments: Arguments) -> Wants:
        return tuple((name, 0 if node is None else self._slot(node)) for name, node in arguments)

    def _slot(self, node: Node) -> int:
        place = (node.scope, node.key)
        if place in self._slots and node.use_cache:
            return self._slots[place]
        self.steps.append((node, self._place(node.arguments)))
        slot = len(self.lasting) + len(self.steps)
        if node.use_cache:
            self._slots[place] = slot
        return slot
