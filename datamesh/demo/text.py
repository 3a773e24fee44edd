"""Text: from bytes to passages to words. Pure functions."""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_LEAST, _MOST = 300, 1500
"""Characters of a passage: paragraphs below the first are joined, above the second divided."""
_WORD = re.compile(r"[^\W_]+", re.ASCII)
_ANY_WORD = re.compile(r"[^\W_]+")
_LEAST_LETTERS = 2
_ENDINGS = ("ing", "ed", "es", "e", "s")
_LEAST_STEM = 4
_SAMPLE_BYTES = 8192


def decoded(content: bytes) -> str | None:
    """Return the text of a file, or None if it is none.

    It is UTF-8, or UTF-16 or UTF-32 with a byte order mark; else Latin-1, unless there is a NUL or many control
    characters.
    """
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            try:
                return content.decode(encoding)
            except UnicodeDecodeError:
                return None
    sample = content[:_SAMPLE_BYTES]
    if b"\0" in sample:
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        controls = sum(byte < 32 and byte not in b"\t\n\f\r\x1b" for byte in sample)
        return None if controls * 100 > len(sample) else content.decode("latin-1")


def passages(text: str) -> Iterator[tuple[int, str]]:
    """Cut a text at its empty lines into passages, each with the number of its first line.

    Short paragraphs are joined, up to some 300 characters; long ones are divided at a line, and a line within itself,
    at some 1500.
    """
    begin, lines, size = 0, list[str](), 0
    for number, line, is_gap in _lines(text):
        is_full = size + len(line) > _MOST or (is_gap and size >= _LEAST) or (bool(lines) and number == begin)
        if lines and is_full:
            yield begin, "\n".join(lines)
            lines, size = [], 0
        if not lines:
            begin = number
        lines += [""] * (number - begin - len(lines))
        lines.append(line)
        size += len(line) + 1
    if lines:
        yield begin, "\n".join(lines)


def _lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """Lines that are not empty, with their numbers and whether there was a gap before; long ones in several pieces."""
    last = 0
    for number, full in enumerate(text.split("\n"), 1):
        line = full.rstrip()
        for start in range(0, len(line), _MOST):
            yield number, line[start : start + _MOST], number > last + 1
            last = number


def words(text: str) -> list[str]:
    """Return the words of a text: two letters or digits and more, in lower case and without common endings."""
    found = (_WORD if text.isascii() else _ANY_WORD).findall(text.lower())
    return [_stem(word) for word in found if len(word) >= _LEAST_LETTERS]


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    """So that "suppresses" finds "suppress", and "parsing" finds "parse". Where it is wrong it is so both times."""
    for ending in _ENDINGS:
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= _LEAST_STEM:
            return word.removesuffix(ending)
    return word


def counted(text: str) -> dict[str, int]:
    """Return how often each word stands in a text."""
    return dict(Counter(words(text)))
