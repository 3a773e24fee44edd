"""Repeating: whether an invocation that ended with an error is executed again, and when."""

from __future__ import annotations

import random

from datamesh.errors import ServiceLostError
from datamesh.model.policies import Retry, RetryLater


class RaisedElsewhere(Exception):
    """Stands for what a function raised in a process of its own, which decided about its repetition.

    Args:
        failure: Packed, as that process saw it.
        retry_ms: Milliseconds until the next execution; None if there is none.
        is_charged: Whether that one is another attempt.
    """

    def __init__(self, failure: bytes, retry_ms: int | None, *, is_charged: bool = True) -> None:
        self.failure = failure
        self.retry_ms = retry_ms
        self.is_charged = is_charged
        super().__init__("raised in another process")


def retry_ms(error: BaseException, retry: Retry | None, attempt: int) -> int | None:
    """Milliseconds until the next execution after execution number `attempt` ended so; None if there is none."""
    match error:
        case RaisedElsewhere():
            return error.retry_ms
        case RetryLater():
            return int(1000 * error.seconds)
        case ServiceLostError():
            return None
    if retry is None or not retry.allows(attempt, error):
        return None
    return int(1000 * retry.delay(attempt, random.random()))


def is_charged(error: BaseException) -> bool:
    """Whether another execution after this error is another attempt."""
    return error.is_charged if isinstance(error, RaisedElsewhere) else not isinstance(error, RetryLater)
