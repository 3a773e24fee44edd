"""Policies: what a task's author promises about repeating and grouping its invocations.

They are plain values, checked when they are made; who counts attempts and keeps time reads them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from datamesh.errors import ConfigurationError


def _check_whole(policy: str, field: str, value: object, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigurationError(f"{policy}({field}={value!r}): give a whole number, {least} or more")


def _check_number(policy: str, field: str, value: float, *, least: float, most: float = math.inf) -> None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not least <= value <= most:
        limits = f"{least:g} or more" if most == math.inf else f"{least:g} to {most:g}"
        raise ConfigurationError(f"{policy}({field}={value!r}): give a number, {limits}")


def _check_errors(policy: str, field: str, value: object) -> None:
    if not isinstance(value, tuple) or not all(
        isinstance(item, type) and issubclass(item, Exception) for item in value
    ):
        raise ConfigurationError(f"{policy}({field}={value!r}): give a tuple of exception classes, like (OSError,)")


@dataclass(frozen=True, slots=True)
class Retry:
    """Say when a failed invocation is tried again, and how long it waits before.

    Attributes:
        attempts: Executions in all, the first one included; 1 never repeats.
        backoff: Seconds before the second execution.
        factor: What each further wait is longer by, at least 1.
        max_backoff: Longest wait in seconds.
        jitter: Share of a wait, 0 to 1, that chance may take off, so that what failed together returns apart.
        on: Exceptions that are tried again.
        not_on: Exceptions among those of `on` that are not.
        deaths: Processes that may die while they run a value, counted apart from attempts, before it is given up. After
            the second it runs alone, in a child process where the function can. A function over whole streams lives
            through many deaths that others cause: it is given up after ten times as many without any progress.

    Raises:
        ConfigurationError: A field is out of its range.
    """

    attempts: int = 1
    backoff: float = 0.1
    factor: float = 2.0
    max_backoff: float = 60.0
    jitter: float = 0.1
    on: tuple[type[Exception], ...] = (Exception,)
    not_on: tuple[type[Exception], ...] = ()
    deaths: int = 3

    def __post_init__(self) -> None:
        _check_whole("Retry", "attempts", self.attempts, least=1)
        _check_whole("Retry", "deaths", self.deaths, least=1)
        _check_number("Retry", "backoff", self.backoff, least=0.0)
        _check_number("Retry", "factor", self.factor, least=1.0)
        _check_number("Retry", "max_backoff", self.max_backoff, least=0.0)
        _check_number("Retry", "jitter", self.jitter, least=0.0, most=1.0)
        _check_errors("Retry", "on", self.on)
        _check_errors("Retry", "not_on", self.not_on)

    def allows(self, attempt: int, error: BaseException) -> bool:
        """Tell whether another execution follows after execution number `attempt` (from 1) raised `error`."""
        return attempt < self.attempts and isinstance(error, self.on) and not isinstance(error, self.not_on)

    def delay(self, attempt: int, chance: float = 0.0) -> float:
        """Seconds to wait after execution number `attempt` failed.

        Args:
            attempt: Number of the execution that failed, from 1.
            chance: A random number, 0 to 1, drawn by the caller; 0 gives the wait without jitter.
        """
        try:
            wait = min(self.max_backoff, self.backoff * self.factor ** (attempt - 1))
        except OverflowError:
            wait = self.max_backoff if self.backoff else 0.0
        return wait * (1.0 - self.jitter * chance)


class RetryLater(Exception):
    """Raise it in a task to have the invocation repeated later; it is no failure, so no attempt is charged.

    Args:
        seconds: Until the next execution, 0 or more, by the server's clock.

    Raises:
        ConfigurationError: `seconds` is no such number.
    """

    def __init__(self, seconds: float) -> None:
        _check_number("RetryLater", "seconds", seconds, least=0.0)
        self.seconds = seconds
        super().__init__(f"again in {seconds:g} s")


@dataclass(frozen=True, slots=True)
class Backpressure:
    """Say how many values may wait for a task before those that feed it have to.

    Only generators and open inputs wait. `start_flow` never does, nor does a task that returns: their values are kept.

    Attributes:
        high: Values of a run that are open at the task; above, generators that feed it are suspended and give up their
            slot.
        low: Values open at which they go on; half of `high` if left out.

    Raises:
        ConfigurationError: A field is out of its range.
    """

    high: int = 10_000
    low: int | None = None

    def __post_init__(self) -> None:
        _check_whole("Backpressure", "high", self.high, least=1)
        if self.low is not None:
            _check_whole("Backpressure", "low", self.low, least=0)
            _check_number("Backpressure", "low", self.low, least=0, most=self.high - 1)

    @property
    def resume(self) -> int:
        """Values open at which producers go on."""
        return self.high // 2 if self.low is None else self.low


@dataclass(frozen=True, slots=True)
class Quota:
    """Say how much one run may have; beyond it the run fails with `QuotaExceededError`. 0 is no limit.

    Attributes:
        bytes: Published in all, by all of its tasks and inputs, as they travel.
        open_values: Not yet settled, at any one task.
        fan_out: Values that one invocation may give, to all outputs together.

    Raises:
        ConfigurationError: A field is no whole number.
    """

    bytes: int = 4 * 2**30
    open_values: int = 0
    fan_out: int = 0

    def __post_init__(self) -> None:
        for field in ("bytes", "open_values", "fan_out"):
            _check_whole("Quota", field, getattr(self, field), least=0)

    @property
    def text(self) -> str:
        """The limits as the scripts read them."""
        return f"{self.bytes} {self.open_values} {self.fan_out}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Say how values are grouped for one invocation.

    Attributes:
        max_size: Most values in a batch.
        max_wait: Seconds the oldest value of a batch may wait for others; 0 never waits.

    Raises:
        ConfigurationError: A field is out of its range.
    """

    max_size: int = 32
    max_wait: float = 0.01

    def __post_init__(self) -> None:
        _check_whole("Batch", "max_size", self.max_size, least=1)
        _check_number("Batch", "max_wait", self.max_wait, least=0.0)
