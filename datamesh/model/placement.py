"""Placement: which services may run a task, by an expression over their labels.

    gpu >= 1 and not os = windows
    zone in (eu, us) and python >= 3.12

Words are `and`, `or`, `not`, `in`; comparisons are `=`, `!=`, `<`, `<=`, `>`, `>=`. Values are bare words, numbers,
versions, or quoted. Two values that both look like versions (`3.9`, `3.12`) are compared number by number, others as
text. A label that a service lacks makes a comparison false; a label alone asks whether it is there and not empty.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datamesh.errors import ConfigurationError

Labels = Mapping[str, str]
Test = Callable[[Labels], bool]

_TOKEN = re.compile(r"""\s*(?:(<=|>=|!=|==|=|<|>|\(|\)|,)|("[^"]*"|'[^']*')|([A-Za-z0-9_.+:/-]+))""")
_VERSION = re.compile(r"\d+(?:\.\d+)*")
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge,
}  # fmt: skip
_WORDS = frozenset({"and", "or", "not", "in"})


@dataclass(frozen=True, slots=True)
class Placement:
    """A condition on labels, parsed.

    Attributes:
        text: As it was written.
        test: Whether labels meet it.
    """

    text: str
    test: Test

    @classmethod
    def parse(cls, text: str) -> Placement:
        """Read an expression.

        Raises:
            ConfigurationError: It cannot be read; says where.
        """
        return cls(text, _Parser(text).parse())

    def admits(self, labels: Labels) -> bool:
        """Whether a service with these labels may run the task."""
        return self.test(labels)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split(text)
        self._at = 0

    def parse(self) -> Test:
        test = self._either()
        if self._at < len(self._tokens):
            raise self._wrong(f"{self._tokens[self._at]!r} is not expected")
        return test

    def _split(self, text: str) -> Sequence[str]:
        tokens, at = [], 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._wrong(f"{text[at:].strip()[:10]!r} cannot be read")
            tokens.append(match[0].strip())
            at = match.end()
        return tokens

    def _either(self) -> Test:
        tests = [self._both()]
        while self._skip("or"):
            tests.append(self._both())
        return tests[0] if len(tests) == 1 else lambda labels: any(test(labels) for test in tests)

    def _both(self) -> Test:
        tests = [self._not()]
        while self._skip("and"):
            tests.append(self._not())
        return tests[0] if len(tests) == 1 else lambda labels: all(test(labels) for test in tests)

    def _not(self) -> Test:
        if self._skip("not"):
            test = self._not()
            return lambda labels: not test(labels)
        if self._skip("("):
            test = self._either()
            self._expect(")")
            return test
        return self._comparison()

    def _comparison(self) -> Test:
        label = self._value("the name of a label")
        if self._skip("in"):
            self._expect("(")
            values = [self._value("a value")]
            while self._skip(","):
                values.append(self._value("a value"))
            self._expect(")")
            return lambda labels: label in labels and any(_compare("=", labels[label], value) for value in values)
        if self._at < len(self._tokens) and self._tokens[self._at] in _OPERATORS:
            sign = self._tokens[self._at]
            self._at += 1
            value = self._value("a value")
            return lambda labels: label in labels and _compare(sign, labels[label], value)
        return lambda labels: bool(labels.get(label))

    def _value(self, wanted: str) -> str:
        token = self._tokens[self._at] if self._at < len(self._tokens) else ""
        if not token or token in _WORDS or token in _OPERATORS or token in "(),":
            raise self._wrong(f"{wanted} is missing" + (f" before {token!r}" if token else " at the end"))
        self._at += 1
        return token[1:-1] if token[0] in "\"'" else token

    def _skip(self, token: str) -> bool:
        found = self._at < len(self._tokens) and self._tokens[self._at] == token
        self._at += found
        return found

    def _expect(self, token: str) -> None:
        if not self._skip(token):
            raise self._wrong(f"{token!r} is missing")

    def _wrong(self, problem: str) -> ConfigurationError:
        return ConfigurationError(
            f"requires={self._text!r} cannot be read: {problem}; write it like `gpu >= 1 and zone in (eu, us)`"
        )


def _compare(sign: str, found: str, wanted: str) -> bool:
    if _VERSION.fullmatch(found) and _VERSION.fullmatch(wanted):
        a, b = ([int(part) for part in text.split(".")] for text in (found, wanted))
        width = max(len(a), len(b))
        return _OPERATORS[sign](a + [0] * (width - len(a)), b + [0] * (width - len(b)))
    return _OPERATORS[sign](found, wanted)
