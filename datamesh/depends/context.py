"""Context: what a function may know of the invocation it runs in, and say about it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from typing import Any

Progress = Callable[[float, float | None], None]
Checkpoint = Callable[[Any], Awaitable[None]]


class Context:
    """Ask for it with a parameter annotated `Context`, of any name; dependencies of scope "call" may ask too.

    In a unit test, `Context(run_id="test", task="foobar")` is enough: what it is told goes nowhere.

    Attributes:
        run_id: Id of the run.
        task: Name of the task.
        attempt: Number of this execution of the invocation, from 1.
        delivery_id: The entry of the work stream that brought the value; for logs, and another one after a retry.
        state: What an earlier execution gave to its last `checkpoint`; None if there was none.
    """

    __slots__ = (
        "_is_cancelled",
        "_log",
        "_on_checkpoint",
        "_on_progress",
        "attempt",
        "delivery_id",
        "run_id",
        "state",
        "task",
    )

    def __init__(
        self,
        *,
        run_id: str,
        task: str,
        attempt: int = 1,
        delivery_id: str = "",
        on_progress: Progress | None = None,
        on_checkpoint: Checkpoint | None = None,
        is_cancelled: Callable[[], bool] | None = None,
        state: Any = None,
    ) -> None:
        self.run_id = run_id
        self.task = task
        self.attempt = attempt
        self.delivery_id = delivery_id
        self.state = state
        self._on_progress = on_progress
        self._on_checkpoint = on_checkpoint
        self._is_cancelled = is_cancelled
        self._log: RunLog | None = None

    @property
    def log(self) -> RunLog:
        """Logger `datamesh.task.<task>` whose records carry `run_id`, `task`, `attempt` and `delivery_id`."""
        if self._log is None:
            facts = {name: getattr(self, name) for name in ("run_id", "task", "attempt", "delivery_id")}
            self._log = RunLog(logging.getLogger(f"datamesh.task.{self.task}"), facts)
        return self._log

    @property
    def cancelled(self) -> bool:
        """Whether the run was cancelled. Code in a thread cannot be interrupted: it looks here and returns."""
        return self._is_cancelled is not None and self._is_cancelled()

    def progress(self, done: float, total: float | None = None) -> None:
        """Tell how far the invocation is: a line in its log, at most one a second. Cheap, from any thread.

        Args:
            done: What is finished, in a unit of your choice.
            total: All there is, in the same unit, if it is known.
        """
        if self._on_progress is not None:
            self._on_progress(done, total)

    def checkpoint(self, state: Any) -> Awaitable[None]:
        """Keep `state`, so that a repetition after a crash or an error starts from here instead of from the beginning.

        What a generator has yielded before is published with it, once, and is not to be yielded again: the next
        execution finds the state in `context.state` and goes on behind it. Await it in asynchronous code; in
        synchronous code the call itself returns when the state is kept.

        Args:
            state: What is needed to go on, of at most 64 KiB: texts, numbers, bytes, lists, mappings, None.

        Raises:
            UnserializableValueError: The state has no form on the wire.
            PayloadTooLargeError: It is too large.
        """
        return Kept() if self._on_checkpoint is None else self._on_checkpoint(state)

    def __repr__(self) -> str:
        return f"Context(run_id={self.run_id!r}, task={self.task!r}, attempt={self.attempt})"


class RunLog(logging.LoggerAdapter[logging.Logger]):
    """Adds the facts of the invocation to each record, and keeps the caller's own `extra`."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **(kwargs.get("extra") or {})}
        return msg, kwargs


class Kept:
    """A checkpoint that is kept already, or that nobody keeps: there is nothing to wait for."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()
