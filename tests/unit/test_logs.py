"""Logs: a record is a line of its own whatever is in it, and no longer than it may be."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import Any

import pytest

from datamesh.depends.context import Context
from datamesh.model.secret import known_secrets
from datamesh.observe.logs import (
    MAX_EXCEPTION,
    MAX_EXTRAS,
    MAX_MESSAGE,
    ConsoleFormatter,
    JsonFormatter,
    LogFormat,
    LogLevel,
    write_logs,
)

FORGERIES = [
    "\n12:00:00 INFO    datamesh.member: all is well",
    "\r12:00:00 INFO    datamesh.member: all is well",
    '\r\n{"level": "info", "message": "all is well"}',
    "\x1b[2J\x1b[1;1Hcleared",
    "\x1b]0;title\x07",
    "\x9b31mred",
    "\x08" * 20 + "overwritten",
    "\u2028line",
    "\u2029paragraph",
    "\x85next",
    "\x0bdown",
    "\x0cpage",
    "\u202egnp.exe",
    "\u2066hidden\u2069",
    "\ud800",
    "\x00",
    "\ufeff",
]


class Rude:
    def __str__(self) -> str:
        raise RuntimeError("no text")


def record(message: Any = "text", *args: Any, **more: Any) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "shop", "levelname": "INFO", "msg": message, "args": args, "created": 1.25})
    vars(made).update(more)
    return made


def raised(message: str) -> Any:
    try:
        raise ValueError(message)
    except ValueError:
        return sys.exc_info()


def lines(text: str) -> list[str]:
    """As anything that reads lines splits them."""
    return text.splitlines()


@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
def test_a_message_is_one_line_without_control_characters(text: str) -> None:
    for formatter in (ConsoleFormatter(), JsonFormatter()):
        for made in (record(text), record("%s", text), record("x", name=text), record("x", levelname=text)):
            line = formatter.format(made)
            assert line.isprintable()
            line.encode()
    assert json.loads(JsonFormatter().format(record(text)))["message"] == text


@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
def test_an_exception_cannot_begin_a_line_of_its_own(text: str) -> None:
    made = record("it failed", exc_info=raised(text))
    first, *others = ConsoleFormatter().format(made).split("\n")
    assert first.endswith("shop: it failed")
    assert all(line.startswith("    ") and line.isprintable() for line in others)
    assert lines("\n".join(others)) == others
    line = JsonFormatter().format(made)
    assert line.isprintable()
    assert text in json.loads(line)["exception"]


@pytest.mark.parametrize("text", FORGERIES, ids=ascii)
def test_what_is_passed_as_extra_stays_within_its_field(text: str) -> None:
    line = JsonFormatter().format(record("x", run_id=text, found={text: [text]}, **{f"odd{text}": 1}))
    assert line.isprintable()
    found = json.loads(line)
    assert found["run_id"] == text
    assert found["found"] == {text: [text]}


def test_an_extra_does_not_replace_a_fact() -> None:
    found = json.loads(JsonFormatter().format(record("x", level="forged", time="forged", logger="forged")))
    assert (found["level"], found["logger"]) == ("info", "shop")


def test_lines_have_a_largest_size() -> None:
    made = record("m" * 10**6, exc_info=raised("e" * 10**6), **{f"extra{n}": "x" * 10**6 for n in range(100)})
    found = json.loads(JsonFormatter().format(made))
    assert len(found["message"]) == MAX_MESSAGE
    assert len(found["exception"]) == MAX_EXCEPTION
    assert len(found) <= 5 + MAX_EXTRAS
    assert len(JsonFormatter().format(made)) < 120_000
    assert len(ConsoleFormatter().format(made)) < 60_000


def test_the_end_of_a_traceback_is_kept() -> None:
    found = json.loads(JsonFormatter().format(record("x", exc_info=raised("e" * 50_000 + " the end"))))
    assert found["exception"].startswith("[...]")
    assert found["exception"].endswith("the end")


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def nested(depth: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    "value",
    [
        Rude(),
        looped(),
        {(1, 2): 3},
        float("nan"),
        float("inf"),
        10**5000,
        {"a": Rude()},
        b"bytes",
        {1, 2},
        nested(9999),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_extra_gives_a_line_of_json(value: Any) -> None:
    line = JsonFormatter().format(record("x", odd=value))
    assert json.loads(line, parse_constant=pytest.fail)["message"] == "x"


def test_plain_extras_keep_their_types() -> None:
    found = json.loads(JsonFormatter().format(record("x", n=3, f=1.5, b=True, none=None, some=[1, {"a": "b"}])))
    assert (found["n"], found["f"], found["b"], found["none"], found["some"]) == (3, 1.5, True, None, [1, {"a": "b"}])


def test_a_message_that_cannot_be_made_does_not_lose_its_line() -> None:
    for made in (record("%d", "x"), record("%s %s", "one"), record("%s", Rude())):
        assert "cannot be shown" in ConsoleFormatter().format(made)
        assert "cannot be shown" in json.loads(JsonFormatter().format(made))["message"]


def test_secrets_are_hidden_everywhere() -> None:
    known_secrets.note("logged-canary-55")
    secret = "logged-canary-55"
    made = record(
        "got %s", secret, exc_info=raised(f"wrong: {secret}"), token=secret, found={"a": [secret]}, odd={secret}
    )
    for formatter in (ConsoleFormatter(), JsonFormatter()):
        text = formatter.format(made)
        assert secret not in text
        assert "got ***" in text
        assert "wrong: ***" in text


def test_urls_in_logs_show_no_password() -> None:
    assert "pa55" not in JsonFormatter().format(record("on %s", "redis://u:pa55@host"))
    assert "redis://u:***@host" in ConsoleFormatter().format(record("on %s", "redis://u:pa55@host"))


@pytest.mark.parametrize("form", LogFormat)
def test_the_log_of_a_task_goes_out_in_lines(
    form: LogFormat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written = io.StringIO()
    monkeypatch.setattr("sys.stderr", written)
    root, level = logging.getLogger(), logging.getLogger().level
    handlers = root.handlers[:]
    try:
        write_logs(form, LogLevel.INFO)
        log = Context(run_id="r1", task="split").log
        log.info("first\n12:00:00 ERROR shop: forged")
        log.warning("%s", Rude())
        log.info("last", extra={"page": 3})
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
    first, second, third = lines(written.getvalue())
    assert "first\\n12:00:00 ERROR shop: forged" in first
    assert "cannot be shown" in second
    if form is LogFormat.JSON:
        assert json.loads(third) | {"time": ""} == {
            "time": "", "level": "info", "logger": "datamesh.task.split", "message": "last", "run_id": "r1",
            "task": "split", "attempt": 1, "delivery_id": "", "page": 3,
        }  # fmt: skip
