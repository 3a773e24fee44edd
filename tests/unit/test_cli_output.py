"""What the command line prints: tables, JSON, logs."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from datamesh.cli.tables import print_runs, print_status, span_text
from datamesh.model.run import RunState, RunStatus, StreamStatus, TaskStatus
from datamesh.observe.logs import JsonFormatter
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
    task = TaskStatus("split", 3, 7, failed=1, skipped=2, dead=4, retrying=5, queued=6, backlog=8)
    streams = {"passage": StreamStatus("passage", 1234, False), "path": StreamStatus("path", 2, True)}
    status = RunStatus("r1", "docs", RunState.OPEN, ("split@1",), {"split": task}, streams, 10.0, None, "it broke [x]")
    print_status(status, now=12.0)
    text = capsys.readouterr().out
    assert "run r1 of docs is open" in text
    assert "started 2.00 s ago" in text
    assert "waits for a service that implements split@1" in text
    assert "it broke [x]" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["split", "3", "7", "1", "2", "4", "5", "6", "8"] in rows
    assert ["passage", "1,234", "open"] in rows
    assert ["path", "2", "closed"] in rows


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
