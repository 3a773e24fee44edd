"""Logs: how a service writes its lines, for people or for machines.

A record is one line or, with a traceback, a few of which only the first begins at the margin: nothing that is logged
can pass for a record of its own, move a cursor or grow without bound. Secrets that this process has met are hidden.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from enum import StrEnum
from typing import Any, Final

from datamesh.model.redaction import printable, redacted_text

_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest came as `extra`."""

MAX_MESSAGE: Final = 8_192
MAX_EXCEPTION: Final = 16_384
MAX_EXTRA: Final = 2_048
MAX_NAME: Final = 256
MAX_EXTRAS: Final = 32
"""Characters of each part of a record, and how many things it may carry besides; the rest is cut."""

_SEARCHED: Final = 2**20
_CUT: Final = "[...]"
_INDENT: Final = "    "


class LogFormat(StrEnum):
    """One line for people, or one JSON object a line."""

    CONSOLE = "console"
    JSON = "json"


class LogLevel(StrEnum):
    """From which level on lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class ConsoleFormatter(logging.Formatter):
    """One line a record: time (local), level, logger, message; an exception follows in lines that are indented."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        name, message = _head(record.name, MAX_NAME), _message(record)
        level = printable(_head(record.levelname, MAX_NAME))
        first = f"{at} {level:7} {printable(name)}: {printable(message)}"
        lines = [f"{_INDENT}{printable(line)}" for line in _exception(self, record).split("\n") if line]
        return "\n".join((first, *lines))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, whatever the record carries as extra, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": _head(record.levelname.lower(), MAX_NAME),
            "logger": _head(record.name, MAX_NAME),
            "message": _message(record),
        }
        extras = {name: value for name, value in vars(record).items() if name not in _PLAIN and name not in line}
        for name in list(extras)[:MAX_EXTRAS]:
            line[_head(name, MAX_NAME)] = _extra(extras[name])
        if exception := _exception(self, record):
            line["exception"] = exception
        return _unmarked(json.dumps(line, ensure_ascii=False, allow_nan=False))


def write_logs(form: LogFormat, level: LogLevel) -> None:
    """Write the log of this process to standard error from now on, in place of what was set up before."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(JsonFormatter() if form is LogFormat.JSON else ConsoleFormatter())
    logging.basicConfig(level=level.value.upper(), handlers=[lines], force=True)


def _message(record: logging.LogRecord) -> str:
    try:
        return _head(record.getMessage(), MAX_MESSAGE)
    except Exception as broken:  # arguments that don't fit the text, or bring code of their own
        return f"(a message that cannot be shown: {type(broken).__name__})"


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    try:
        parts += [formatter.formatException(record.exc_info)] if record.exc_info and record.exc_info[0] else []
    except Exception as broken:  # notes, causes and groups may bring code of their own
        parts.append(f"(a traceback that cannot be shown: {type(broken).__name__})")
    parts += [record.stack_info] if record.stack_info else []
    clean = redacted_text("\n".join(parts)[-_SEARCHED:])
    return clean if len(clean) <= MAX_EXCEPTION else _CUT + clean[len(_CUT) - MAX_EXCEPTION :]


def _extra(value: Any) -> Any:
    """What stands for a value in JSON: itself where it is plain, short and no secret, else its text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        if not isinstance(value, str) and len(text) <= MAX_EXTRA and redacted_text(text) == text:
            return value
    except (ValueError, TypeError, RecursionError):
        return _text(value)
    return _head(value if isinstance(value, str) else text, MAX_EXTRA)


def _text(value: Any) -> str:
    try:
        return _head(str(value), MAX_EXTRA)
    except Exception:  # its own code
        return f"({type(value).__name__})"


def _head(text: str, most: int) -> str:
    clean = redacted_text(text[:_SEARCHED])
    return clean if len(clean) <= most else clean[: most - len(_CUT)] + _CUT


def _unmarked(line: str) -> str:
    """Escape as JSON does what it leaves as it is though a terminal, or who splits lines, does not."""
    if line.isprintable():
        return line
    return "".join(letter if printable(letter) == letter else f"\\u{ord(letter):04x}" for letter in line)
