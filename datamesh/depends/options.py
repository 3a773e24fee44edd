"""Options: how an implementation is to be run, as given to the decorator: `@foobar(retry=Retry(attempts=3))`."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from datamesh.errors import ConfigurationError
from datamesh.model.placement import Placement
from datamesh.model.policies import Backpressure, Batch, Retry

OnError = Literal["fail", "skip", "dead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """All options of an implementation; each may be left out.

    Attributes:
        retry: When a failed invocation is tried again; None never.
        timeout: Seconds that one execution may take.
        first_output_timeout: Seconds until a generator gives its first value.
        concurrency: Invocations at once per supervisor.
        backpressure: How many values may wait for the task before the generators that feed it are suspended.
        executor: An executor, or the name of one that the supervisor has; None means its default.
        batch: How values are grouped for one invocation.
        on_error: What a failure, after all attempts, does: "fail" ends the run, "skip" drops the value, "dead" keeps it
            as a dead letter and goes on.
        requires: Placement expression over the labels of supervisors; see `Placement`.
        cache: Reserved; this version remembers no results and refuses it.

    Raises:
        ConfigurationError: A value is of the wrong type or out of range.
    """

    retry: Retry | None = None
    timeout: float | None = None
    first_output_timeout: float | None = None
    concurrency: int | None = None
    backpressure: Backpressure | None = None
    executor: Any | str | None = None
    batch: Batch | None = None
    on_error: OnError = "fail"
    requires: str | None = None
    cache: Any | None = None

    def __post_init__(self) -> None:
        self._check("retry", _is_optional(self.retry, Retry), "a Retry, like `Retry(attempts=3)`")
        self._check("timeout", self.timeout is None or _is_duration(self.timeout), "seconds, more than 0")
        first = self.first_output_timeout
        self._check("first_output_timeout", first is None or _is_duration(first), "seconds, more than 0")
        self._check("backpressure", _is_optional(self.backpressure, Backpressure), "a Backpressure(high=...)")
        self._check("concurrency", self.concurrency is None or _is_count(self.concurrency), "a whole number, 1 or more")
        self._check("executor", self.executor != "", "an executor, or the name of one")
        self._check("batch", _is_optional(self.batch, Batch), "a Batch, like `Batch(max_size=32)`")
        self._check("on_error", self.on_error in get_args(OnError), f"one of {', '.join(get_args(OnError))}")
        self._check("requires", _is_optional(self.requires, str) and self.requires != "", "an expression, as text")
        if self.requires is not None:
            Placement.parse(self.requires)
        self._check("cache", self.cache is None, "nothing: this version has no cache of results yet")

    @classmethod
    def read(cls, given: Mapping[str, Any], *, task: str) -> Options:
        """Make options of what a decorator was given.

        Args:
            given: Options by name.
            task: Name of the task, for messages.

        Raises:
            ConfigurationError: There is no such option, or a value is wrong.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                alike = difflib.get_close_matches(name, known, n=1)
                hint = f"do you mean {alike[0]!r}? " if alike else ""
                raise ConfigurationError(f"task {task!r} has no option {name!r}: {hint}There are {', '.join(known)}")
        try:
            return cls(**given)
        except ConfigurationError as error:
            raise ConfigurationError(f"task {task!r}: {error}") from None

    def _check(self, name: str, is_right: bool, wanted: str) -> None:
        if not is_right:
            raise ConfigurationError(f"option {name}={getattr(self, name)!r}: give {wanted}")


def _is_optional(value: object, kind: type) -> bool:
    return value is None or isinstance(value, kind)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_duration(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0  # type: ignore[arg-type, operator]
