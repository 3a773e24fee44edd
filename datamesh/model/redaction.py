"""Redaction: texts for logs and errors, without secrets and without what could pass for something else.

Everything here is linear in the length of the text, whatever stands in it.
"""

from __future__ import annotations

import re
from typing import Final

from datamesh.model.secret import HIDDEN, known_secrets

_RUN: Final = re.compile(r"[^\s'\"<>]+")
_URL_PARAMETER: Final = re.compile(
    r"(?i)([?&][\w.-]{0,32}(?:password|passwd|secret|token|api_?key)[\w.-]{0,32}=)[^&#\s'\"]+"
)
_PYDANTIC_INPUT: Final = re.compile(r"input_value=.{0,512}, input_type=")

# Control characters move a terminal's cursor, direction marks and line separators make text read as what it is not,
# and lone surrogates are no text at all.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def redacted_text(text: str) -> str:
    """Return `text` without the passwords of URLs, inputs that pydantic quotes, and secrets that this process has met.

    It hides too much rather than too little: of a URL all that stands before its last `@`, but for the user's name.
    """
    if "://" in text:
        text = _RUN.sub(_without_password, text)
    if "=" in text:
        text = _URL_PARAMETER.sub(rf"\1{HIDDEN}", text)
        text = _PYDANTIC_INPUT.sub(f"input_value={HIDDEN}, input_type=", text)
    return known_secrets.hidden_in(text)


def printable(text: str, *, keep: str = "") -> str:
    """Return `text` with every character that a reader would not see, or be misled by, as an escape like `\\n`.

    Args:
        text: Any text.
        keep: Such characters that stay as they are.
    """
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _without_password(run: re.Match[str]) -> str:
    # Up to the last "@" anywhere: a password with "/", "?" or "@" in it does not parse, and is one all the same.
    scheme, separator, rest = run[0].partition("://")
    credentials, at, address = rest.rpartition("@")
    if not at:
        return run[0]
    user, colon, _ = credentials.partition(":")
    # A lone word before "@" is hidden too: to a client it is a user's name, to many a reader a password.
    return f"{scheme}{separator}{user if colon else ''}{colon}{HIDDEN}@{address}"
