"""IOVal: one value on its way into a named stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IOVal(Generic[T]):
    """Name the stream that a value goes into: `IOVal(name="bar", value=3)`.

    Attributes:
        name: Output of the task that yields it, or input of the flow that is started with it.
        value: Checked against the declared type before it is published.
    """

    name: str
    value: T
