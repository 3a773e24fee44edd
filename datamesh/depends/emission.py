"""Emission: from what a function yields or returns to the outputs that it is for."""

from __future__ import annotations

from typing import Any

from datamesh.errors import MismatchedIOError
from datamesh.model.task import Task
from datamesh.model.values import IOVal


class Emission:
    """Sort what the function of a task gives by output.

    Args:
        task: The declaration.
        emits: Whether the function gives values at all; if not, what it returns is dropped.
        none_is_value: Whether a returned None is a value.
    """

    __slots__ = ("_drops", "_none_is_value", "_outputs", "_single", "_task")

    def __init__(self, task: Task, *, emits: bool, none_is_value: bool) -> None:
        self._task = task.name
        self._outputs = task.outputs
        self._single = task.outputs[0] if len(task.outputs) == 1 else None
        self._drops = not emits and bool(task.outputs)
        self._none_is_value = none_is_value

    def output_of(self, given: Any) -> tuple[str, Any]:
        """Return (output, value) for one thing yielded: an `IOVal`, or a bare value if the task has one output.

        Raises:
            MismatchedIOError: The task has no such output, or not exactly one.
        """
        if isinstance(given, IOVal):
            if given.name in self._outputs:
                return given.name, given.value
            raise MismatchedIOError(task=self._task, output=given.name, outputs=self._outputs)
        if self._single is None:
            raise MismatchedIOError(task=self._task, output=None, outputs=self._outputs)
        return self._single, given

    def outputs_of(self, result: Any) -> list[tuple[str, Any]]:
        """Return a pair (output, value) for each value returned.

        A tuple or list of nothing but `IOVal`s is several values, any other one is a single value. An empty one is a
        value if the task has one output and its function does not promise `IOVal`s alone, else none.

        Raises:
            MismatchedIOError: As for `output_of`.
        """
        if self._drops or (result is None and not self._none_is_value):
            return []
        if isinstance(result, tuple | list) and self._is_several(result):
            return [self.output_of(item) for item in result]
        return [self.output_of(result)]

    def _is_several(self, result: tuple[Any, ...] | list[Any]) -> bool:
        if not result:
            # An annotation that promises `IOVal`s alone leaves no room for an empty list as a value.
            return self._single is None or not self._none_is_value
        return all(isinstance(item, IOVal) for item in result)
