"""Executor: where functions run that must not run on the event loop."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

R = TypeVar("R")


class Executor(ABC):
    """The interface to write another executor.

    Asynchronous functions always run on the event loop of their supervisor. What an executor decides is where
    synchronous ones do, and so how many of them at once.
    """

    @abstractmethod
    async def run(self, call: Callable[[], R]) -> R:
        """Run `call` off the event loop and return what it returns.

        A cancelled caller goes on at once; the call itself runs to its end and its place is free only then.

        Raises:
            BaseException: What `call` raised.
        """

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Tell, from within a call, that it waits for something outside and so needs no place of its own meanwhile."""
        yield

    async def aclose(self) -> None:
        """Give up what the executor holds; calls that run are left to their end."""
