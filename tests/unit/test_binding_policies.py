"""Retry and Batch: plain values, checked when they are made."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamesh.errors import ConfigurationError
from datamesh.model.policies import Batch, Retry


def test_delays_grow_to_the_limit() -> None:
    retry = Retry(attempts=9, backoff=0.5, factor=3.0, max_backoff=10.0)
    assert [retry.delay(attempt) for attempt in range(1, 6)] == [0.5, 1.5, 4.5, 10.0, 10.0]


def test_chance_takes_off_at_most_the_jitter() -> None:
    retry = Retry(backoff=10.0, jitter=0.25)
    assert retry.delay(1, 0.0) == 10.0
    assert retry.delay(1, 0.5) == 8.75
    assert retry.delay(1, 1.0) == 7.5


@given(
    attempt=st.integers(1, 100_000),
    chance=st.floats(0, 1),
    backoff=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    limit=st.floats(0, 1e6),
)
def test_a_delay_never_leaves_its_limits(
    attempt: int, chance: float, backoff: float, factor: float, limit: float
) -> None:
    delay = Retry(backoff=backoff, factor=factor, max_backoff=limit, jitter=1.0).delay(attempt, chance)
    assert 0 <= delay <= limit


def test_only_what_is_named_is_tried_again_and_only_so_often() -> None:
    retry = Retry(attempts=3, on=(OSError,), not_on=(FileNotFoundError,))
    assert retry.allows(1, OSError())
    assert retry.allows(2, TimeoutError())
    assert not retry.allows(3, OSError())
    assert not retry.allows(1, FileNotFoundError())
    assert not retry.allows(1, ValueError())
    assert not Retry().allows(1, OSError())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attempts": 0}, r"Retry\(attempts=0\): give a whole number, 1 or more"),
        ({"attempts": 2.0}, "whole number"),
        ({"attempts": True}, "whole number"),
        ({"backoff": -1}, r"Retry\(backoff=-1\): give a number, 0 or more"),
        ({"backoff": float("inf")}, "backoff=inf"),
        ({"backoff": "1"}, "backoff='1'"),
        ({"factor": 0.5}, "1 or more"),
        ({"max_backoff": float("nan")}, "max_backoff=nan"),
        ({"jitter": 1.5}, "give a number, 0 to 1"),
        ({"on": OSError}, r"give a tuple of exception classes, like \(OSError,\)"),
        ({"on": ("OSError",)}, "tuple of exception classes"),
        ({"not_on": (KeyboardInterrupt,)}, "tuple of exception classes"),
    ],
)
def test_a_retry_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Retry(**fields)


@pytest.mark.parametrize("fields", [{"max_size": 0}, {"max_size": 1.5}, {"max_wait": -0.1}, {"max_wait": None}])
def test_a_batch_that_makes_no_sense_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"Batch\("):
        Batch(**fields)


def test_policies_are_values() -> None:
    assert Retry(attempts=3) == Retry(attempts=3)
    assert hash(Batch()) == hash(Batch(max_size=32, max_wait=0.01))
