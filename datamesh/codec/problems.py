"""Problems: what pydantic found wrong with a value, told without the value.

Messages of pydantic's own name what was expected; only a few repeat what was given, as may those of a user's validator.
Places are fields of the declared type, indexes, and the keys of mappings, which are values too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from datamesh.codec.schemas import parts_of_schema
from datamesh.model.redaction import redacted_text
from datamesh.model.secret import HIDDEN, plain_text

_KEY: Final = "[key]"
_SHORTEST: Final = 3
"""Characters of a text from which on it is looked for in a message."""


def problem_text(error: Mapping[str, Any], values: Sequence[Any], names: frozenset[str]) -> str:
    """Return one line about one of `ValidationError.errors()`.

    Args:
        error: With its context and its input.
        values: What was validated; the first part of the error's place is an index into it.
        names: Fields of the declared type, as `names_in` gives them.
    """
    place = ".".join(_places(error["loc"], values, names))
    given = "" if error["type"] == "missing" else f" (got {type(error['input']).__qualname__})"
    return redacted_text(f"{place}{': ' if place else ''}{_without_input(error)}{given}")


def names_in(schema: Any) -> frozenset[str]:
    """Return the names of all fields in a core schema of pydantic, and their aliases."""
    names: set[str] = set()
    for part in parts_of_schema(schema):
        if isinstance(part.get("fields"), dict):
            names.update(part["fields"])
        names.update(part[key] for key in ("name", "validation_alias", "alias") if isinstance(part.get(key), str))
    return frozenset(names)


def _places(place: Sequence[str | int], values: Sequence[Any], names: frozenset[str]) -> Iterator[str]:
    inside: Any = values
    for number, step in enumerate(place):
        is_key = isinstance(inside, Mapping) and step in inside
        if number:  # the first is the value's index, which is told apart
            yield _KEY if is_key and step not in names else str(step)
        inside = inside[step] if is_key else _entered(inside, step)


def _entered(inside: Any, step: str | int) -> Any:
    if isinstance(step, int) and isinstance(inside, (list, tuple)) and 0 <= step < len(inside):
        return inside[step]
    own = getattr(inside, "__dict__", None)
    # A step that leads nowhere is the name of one choice of a union.
    return own[step] if isinstance(own, dict) and step in own else inside


def _without_input(error: Mapping[str, Any]) -> str:
    message: str = error["msg"]
    for quoted in (error["input"], error.get("ctx", {}).get("tag")):
        text = plain_text(quoted)
        if len(text) >= _SHORTEST:
            message = message.replace(text, HIDDEN)
    return message
