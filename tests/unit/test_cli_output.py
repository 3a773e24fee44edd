"""What the command line prints: tables, JSON, logs."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from typing import Any

import msgpack
import pytest

from datamesh.cli.letters import letter_row, plain, print_letter, print_letters
from datamesh.cli.tables import print_runs, print_status, span_text
from datamesh.model.run import RunState, RunStatus, StreamStatus, TaskStatus
from datamesh.observe.logs import JsonFormatter
from datamesh.supervise.letter import DeadLetter
from datamesh.supervise.runs import RunSummary


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.00 s"),
        (0.416, "0.42 s"),
        (31.4, "31 s"),
        (90, "1.5 min"),
        (1500, "25 min"),
        (9000, "2.5 h"),
        (2e6, "23 d"),
    ],
)
def test_a_span_is_told_in_its_largest_unit(seconds: float, text: str) -> None:
    assert span_text(seconds) == text


def test_a_run_is_one_line_and_its_id_is_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long = "a" * 64
    print_runs([RunSummary(long, "shop", RunState.DONE, 100.0, 101.5, 0, 12345)], now=160.0)
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "flow", "state", "age", "took", "open", "done"]
    assert line.split() == [long, "shop", "done", "1", "min", "1.50", "s", "0", "12,345"]


def test_a_status_tells_counts_missing_tasks_and_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    task = TaskStatus("split", 3, 7, failed=1, skipped=2, dead=4, retrying=5, queued=6, backlog=8, cancelled=9)
    task = dataclasses.replace(task, full=True, high=10_000, low=5_000)
    streams = {"passage": StreamStatus("passage", 1234, False), "path": StreamStatus("path", 2, True)}
    status = RunStatus("r1", "docs", RunState.OPEN, ("split@1",), {"split": task}, streams, 10.0, None, "it broke [x]")
    print_status(status, now=12.0)
    text = capsys.readouterr().out
    assert "run r1 of docs is open" in text
    assert "started 2.00 s ago" in text
    assert "waits for a service that implements split@1" in text
    assert "it broke [x]" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["split", "3", "7", "1", "2", "4", "9", "5", "6", "8", "10,000", "5,000", "full"] in rows
    assert ["passage", "1,234", "open"] in rows
    assert ["path", "2", "closed"] in rows


def letter(*values: Any, **facts: Any) -> DeadLetter:
    known = DeadLetter(
        id="0/1763640000000-0", run_id="r1", flow="shop", task="pay", attempt=2, time=1_763_640_000.0,
        values=len(values), lineages=tuple((place,) for place in range(len(values))),
        error="task 'pay' failed at attempt 2: ValueError: it owes [x]", error_type="ValueError",
        remote_traceback="Traceback (most recent call last):\n  here\nValueError: it owes [x]\n", service="till",
        size_bytes=1234, payload=msgpack.packb(list(values)),
    )  # fmt: skip
    return dataclasses.replace(known, **facts)


def test_a_dead_letter_is_one_line_and_its_ids_are_never_cut(capsys: pytest.CaptureFixture[str]) -> None:
    long, name = "0/1763640000000-18446744073709551615", "a" * 64
    print_letters(
        [letter(1, id=long, run_id=name, task=name, error="task 'x' failed: " + 200 * "x")], now=1_763_640_090
    )
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["id", "age", "run", "task", "attempt", "values", "error"]
    assert line.split()[:7] == [long, "1.5", "min", name, name, "2", "1"]
    assert line.rstrip().endswith("xxx…")


def test_a_dead_letter_is_shown_with_its_reason_and_values(capsys: pytest.CaptureFixture[str]) -> None:
    print_letter(letter({"order": 7, "text": 500 * "t"}, [1, 2]))
    text = capsys.readouterr().out
    assert "dead letter 0/1763640000000-0 of 2025-11-20 12:00:00Z" in text
    assert "run r1 of shop, task pay, attempt 2" in text
    assert "last tried by till" in text
    assert "ValueError: it owes [x]\n\nvalue 0 of 2, lineage (0,):\n" in text
    assert "'order': 7" in text
    assert "value 1 of 2, lineage (1,):\n    [1, 2]\n" in text
    assert 500 * "t" not in text


def test_of_many_or_long_values_the_first_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    print_letter(letter(*range(8)))
    assert capsys.readouterr().out.endswith("and 3 more\n")
    print_letter(letter({f"key {n}": 30 * [n * "long"] for n in range(30)}))
    assert "more lines]" in capsys.readouterr().out


def test_a_dead_letter_without_values_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_letter(letter(run_id="", service="", remote_traceback="", error="it cannot be read \x1b[31m[x]"))
    text = capsys.readouterr().out
    assert "it is not known of which run" in text
    assert "no values" in text
    print_letter(letter(1, payload=b"\xc1"))
    assert "its values cannot be shown: " in capsys.readouterr().out


def test_a_dead_letter_as_json() -> None:
    row = letter_row(letter(1))
    assert row["lineages"] == ((0,),)
    assert not {"content", "payload", "remote_traceback"} & row.keys()
    whole = json.loads(json.dumps(letter_row(letter({"n": 1}, b"\x00"), whole=True)))
    assert (whole["content"], whole["content_problem"]) == ([{"n": 1}, "b'\\x00'"], "")
    assert whole["remote_traceback"].startswith("Traceback")
    broken = letter_row(letter(1, payload=b"\xc1"), whole=True)
    assert broken["content"] is None
    assert broken["content_problem"]


def test_what_json_cannot_have_stands_as_text() -> None:
    assert plain({1: (2, None), "s": float("nan")}) == {"1": [2, None], "s": "nan"}
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    assert json.dumps(plain(deep))


def formatted(message: str, **fields: Any) -> dict[str, Any]:
    record = logging.makeLogRecord(
        {"name": "shop", "levelname": "INFO", "msg": message, "created": 1.25, "msecs": 250.0}
    )
    vars(record).update(fields)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_log_line_is_one_object_with_what_was_passed_as_extra() -> None:
    assert formatted("two\nlines", run_id="r1", odd={1}) == {
        "time": "1970-01-01T00:00:01.250Z",
        "level": "info",
        "logger": "shop",
        "message": "two\nlines",
        "run_id": "r1",
        "odd": "{1}",
    }


def test_a_log_line_carries_its_exception() -> None:
    try:
        raise ValueError("wrong")
    except ValueError:
        assert "ValueError: wrong" in formatted("it failed", exc_info=sys.exc_info())["exception"]
