"""Schemas: what stands in a compiled type of pydantic, wherever it stands there."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from pydantic import TypeAdapter

_ASIDE: Final = frozenset({"metadata"})


def parts_of_schema(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a core schema that is a map, from the outside in."""
    if isinstance(schema, (list, tuple)):
        for part in schema:
            yield from parts_of_schema(part)
    elif isinstance(schema, dict):
        yield schema
        for key, part in schema.items():
            if key not in _ASIDE:
                yield from parts_of_schema(part)


def has_part_of(schema: Any, *kinds: Any) -> bool:
    """Tell whether one of `kinds`, types that are serialized in a way of their own, has a part in a core schema."""
    return any(function in _serializers_of(kind) for function in _serializers(schema) for kind in kinds)


@cache
def _serializers_of(kind: Any) -> tuple[Any, ...]:
    return tuple(_serializers(TypeAdapter(kind).core_schema))


def _serializers(schema: Any) -> Iterator[Any]:
    for part in parts_of_schema(schema):
        serialization = part.get("serialization")
        if isinstance(serialization, dict) and "function" in serialization:
            yield serialization["function"]
