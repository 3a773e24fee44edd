"""Secrets: the values of `pydantic.SecretStr` and its like, found in what a type accepts, so that texts hide them.

Their own text hides them already. But code that asks for the plain value may put it into an exception or a log line.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import Secret, SecretBytes, SecretStr

from datamesh.codec.schemas import has_part_of
from datamesh.model.secret import known_secrets

_KINDS: Final = (SecretStr, SecretBytes, Secret)
_CONTAINERS: Final = (list, tuple, set, frozenset, deque)


def declares_secrets(schema: Any) -> bool:
    """Tell whether a core schema of pydantic has a secret type in it."""
    return has_part_of(schema, SecretStr, SecretBytes, Secret[Any])


def note_secrets(values: Iterable[Any]) -> None:
    """Remember every secret in checked values; runs no code of theirs."""
    waiting, seen = list(values), set[int]()
    while waiting:
        value = waiting.pop()
        if isinstance(value, _KINDS):
            known_secrets.note(value.get_secret_value())
        elif id(value) not in seen:
            seen.add(id(value))
            waiting += _parts(value)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, _CONTAINERS):
        return value
    own = getattr(value, "__dict__", None)
    if isinstance(own, dict):
        return own.values()
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name, None) for field in dataclasses.fields(value)]
    return ()
