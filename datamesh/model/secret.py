"""Secret: the mark of a value that no log and no error may show, and the secrets that this process has met."""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from pydantic import GetCoreSchemaHandler, ValidatorFunctionWrapHandler, WrapValidator

HIDDEN: Final = "***"
"""Stands in a text for what is not shown."""

_SHORTEST: Final = 4
_SHORTEST_LINE: Final = 8
_LATEST: Final = 1000
_MOST_PARTS: Final = 10_000
_WIDEST: Final = 2**512
"""Python refuses to write much larger numbers, which takes long."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Mark a value as secret: `Annotated[str, Secret()]`, for an input, an output, or a field of a model.

    The function gets the plain value. Logs, failures and the reasons of dead letters show `***` in its place, also
    where an exception or a log call quotes it. The value itself travels and stands in Redis in clear, as all values do.

    It covers texts, bytes and numbers of at least 4 characters, alone and in containers. `pydantic.SecretStr` and
    its like are covered without a mark.
    """

    def __get_pydantic_core_schema__(self, source: Any, schema_of: GetCoreSchemaHandler) -> Any:
        return _NOTING.__get_pydantic_core_schema__(source, schema_of)


class KnownSecrets:
    """The latest secrets that went through a process, so that its texts can be cleaned of them. Safe in any thread.

    Args:
        latest: How many are remembered; one that comes again counts as new.
    """

    def __init__(self, latest: int = _LATEST) -> None:
        self._latest = latest
        self._forms: dict[str, tuple[str, ...]] = {}
        self._longest_first: tuple[str, ...] | None = ()
        self._lock = threading.Lock()

    def note(self, value: object) -> None:
        """Remember a secret; of a container, all that is in it."""
        for text in _texts(value):
            if len(text) >= _SHORTEST:
                self._remember(text)

    def _remember(self, text: str) -> None:
        with self._lock:
            forms = self._forms.pop(text, None)
            self._forms[text] = forms or tuple(_forms(text))
            if forms is None:
                self._longest_first = None
                if len(self._forms) > self._latest:
                    del self._forms[next(iter(self._forms))]

    def hidden_in(self, text: str) -> str:
        """Return `text` with `***` for each secret in it."""
        for form in self._ordered():
            if form in text:
                text = text.replace(form, HIDDEN)
        return text

    def _ordered(self) -> tuple[str, ...]:
        # The longest first: one secret may be a part of another.
        ordered = self._longest_first
        if ordered is None:
            with self._lock:
                forms = {form for some in self._forms.values() for form in some}
                ordered = self._longest_first = tuple(sorted(forms, key=lambda form: (-len(form), form)))
        return ordered


known_secrets: Final = KnownSecrets()
"""Those of this process: whoever writes its texts cannot know which values made them."""


def _noted(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    known_secrets.note(value)  # before it is refused, too
    checked = validate(value)
    if checked is not value:
        known_secrets.note(checked)
    return checked


_NOTING: Final = WrapValidator(_noted)


def plain_text(value: object) -> str:
    """Return how a text, bytes or a number look in other texts; empty for anything else."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode(errors="backslashreplace")
    return repr(value) if type(value) is float or (type(value) is int and abs(value) < _WIDEST) else ""


def _texts(value: object) -> Iterator[str]:
    """The same of all that is in a container; level by level, since it may be deep, and not for ever."""
    waiting = deque([value])
    for _ in range(_MOST_PARTS):
        if not waiting:
            return
        part = waiting.popleft()
        if isinstance(part, Mapping):
            waiting.extend(part.values())
        elif isinstance(part, (list, tuple, set, frozenset)):
            waiting.extend(part)
        else:
            yield plain_text(part)


def _forms(text: str) -> Iterator[str]:
    """How a text may look in another: as it is, as Python and JSON quote it, in a URL, and line by line."""
    yield text
    yield repr(text)[1:-1]
    yield ascii(text)[1:-1]
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield quote(text, safe="", errors="backslashreplace")
    lines = text.splitlines()
    if len(lines) > 1:
        yield from (line.strip() for line in lines if len(line.strip()) >= _SHORTEST_LINE)
