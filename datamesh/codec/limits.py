"""Limits: how large, how deep and how numerous a value may be, for what is written and for what is read alike."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

INLINE_LIMIT_BYTES: Final = 65_536
"""The values block of a frame is no longer than this; a value that does not fit travels as a blob."""

MAX_FRAME_VALUES: Final = 256
"""A frame carries 1 to this many values."""

MAX_VALUE_BYTES: Final = 512 * 2**20
"""A single value is no longer than this, packed, unless `max_value_bytes` says otherwise."""

_CONTAINERS: Final = (list, dict, tuple, set, frozenset, deque)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one packed object; what is refused on reading is refused on writing too.

    Attributes:
        max_bytes: Most bytes, packed.
        max_depth: Most containers inside each other. None leaves it at the parser's own bound of 1024: enough for
            objects that are then checked against a type that is not recursive, because the check looks no deeper.
        max_nodes: Most objects in all, counting containers, their elements, keys and values. An object takes a byte
            on the wire and up to 72 bytes in memory, so this is what bounds the memory that few bytes can claim.
    """

    max_bytes: int = MAX_VALUE_BYTES
    max_depth: int | None = 64
    max_nodes: int = 1_000_000

    @classmethod
    def for_values(cls, max_value_bytes: int) -> Limits:
        """Return bounds in proportion: 1 part for each 32 bytes that a value may have, and at least a million."""
        return cls(max_bytes=max_value_bytes, max_nodes=max(1_000_000, max_value_bytes // 32))


DEFAULT_LIMITS: Final = Limits()


def shape_problem(value: Any, limits: Limits) -> str | None:
    """Tell why `value` is too deep or has too many parts, or None.

    Goes level by level, and over the elements of a level without Python code of its own: it costs some 20 ns per
    element, never recurses, and ends on an object that contains itself.
    """
    containers, kinds = _containers([value])
    nodes, depth = 1, 0
    while containers:
        depth += 1
        if limits.max_depth is not None and depth > limits.max_depth:
            return f"it has more than {limits.max_depth} containers inside each other"
        children = _children(containers, kinds)
        nodes += len(children)
        if nodes > limits.max_nodes:
            return f"it has more than {limits.max_nodes} parts"
        containers, kinds = _containers(children)
    return None


def _containers(values: list[Any]) -> tuple[list[Any], list[type]]:
    kinds = [kind for kind in set(map(type, values)) if issubclass(kind, _CONTAINERS)]
    return ([value for value in values if type(value) in kinds] if kinds else []), kinds


def _children(containers: list[Any], kinds: Iterable[type]) -> list[Any]:
    children = list(chain.from_iterable(containers))  # of a dict, its keys
    for kind in kinds:
        if issubclass(kind, dict):
            children.extend(chain.from_iterable(node.values() for node in containers if type(node) is kind))
    return children
