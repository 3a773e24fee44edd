"""Mode: how a task meets its input. Form: how its function is written."""

from __future__ import annotations

from enum import StrEnum


class Mode(StrEnum):
    """How many values one invocation gets."""

    STREAM = "stream"
    """The whole stream: one invocation a run."""
    EACH = "each"
    """One value: invocations run in parallel over all services."""
    BATCH = "batch"
    """Several values, gathered across runs."""
    FOLD = "fold"
    """One value and the state that the invocation before returned."""


class Form(StrEnum):
    """How a function is written, and so where it runs: asynchronous forms on the event loop, the others in threads."""

    ASYNC_GENERATOR = "async generator"
    COROUTINE = "async function"
    GENERATOR = "generator"
    FUNCTION = "function"

    @property
    def is_async(self) -> bool:
        return self in (Form.ASYNC_GENERATOR, Form.COROUTINE)

    @property
    def is_generator(self) -> bool:
        return self in (Form.ASYNC_GENERATOR, Form.GENERATOR)
