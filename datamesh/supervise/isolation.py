"""Isolation: a suspect value runs alone, in a child process that may die of it in place of the service."""

from __future__ import annotations

import asyncio
import logging
import random
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from datamesh.codec.failure import Failure
from datamesh.codec.limits import MAX_VALUE_BYTES
from datamesh.depends.binding import Binding
from datamesh.depends.callables import describe
from datamesh.errors import ConfigurationError
from datamesh.model.modes import Mode
from datamesh.model.registry import registry
from datamesh.supervise.child_process import ChildProcess
from datamesh.supervise.child_wire import Call, Opening, Word
from datamesh.supervise.served import Served
from datamesh.supervise.thread_feed import Accept, Pair

_START_SECONDS: Final = 120.0
"""Within which a child must have imported the module; some import half the world."""
_END_SECONDS: Final = 5.0
"""That a child may take to clean up what its functions depended on."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The function came to its end.

    Attributes:
        pairs: Output and value for everything that it gave and that was not passed on before.
    """

    pairs: list[Pair]


@dataclass(frozen=True, slots=True)
class Raised:
    """The function failed, and the child lives.

    Attributes:
        failure: A packed `Failure`.
        retry_ms: Milliseconds until the next attempt; None if the task's `Retry` allows none.
        later: Seconds until the next execution, if it raised `RetryLater`, which is no failure.
    """

    failure: bytes
    retry_ms: int | None = None
    later: float | None = None


@dataclass(frozen=True, slots=True)
class NotRun(Raised):
    """There is no child to run the value in, for no fault of the value; `failure` tells why."""


@dataclass(frozen=True, slots=True)
class Died:
    """The child died while it ran the value.

    Attributes:
        returncode: Its exit status, or the number of the signal that killed it, below 0.
    """

    returncode: int


Isolated = Finished | Raised | Died


def is_isolable(binding: Binding) -> bool:
    """Tell whether a fresh process may find the function of `binding` again.

    Its module must be importable by its name, so it is not the program itself, and what it registers must be a function
    of the module, not one that was made by another. That importing the module registers it too is seen in the child.
    """
    function = binding.function
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    found = registry.get(binding.ref)
    return (
        binding.mode is Mode.EACH
        and bool(sys.executable)
        and "<" not in name
        and module != "__main__"
        and getattr(sys.modules.get(module or ""), "__spec__", None) is not None
        and found is not None
        and found.function is function
    )


class Isolation:
    """Runs values of one task in a child, one after another.

    The child is started for the first of them and kept for those that follow; after one that it died of there is a new
    one. It imports the module of the function as the service did, resolves dependencies afresh, and ends with the
    service. It serves nothing. What a task gives to `context.checkpoint` is not kept: a repetition begins anew.

    Args:
        served: The implementation; `is_isolable`.
        max_value_bytes: Largest value that may be sent.
        service: Name of the service, for failures.
    """

    def __init__(self, served: Served, *, max_value_bytes: int = MAX_VALUE_BYTES, service: str = "") -> None:
        self._served = served
        self._binding = served.binding
        self._service = service
        self._max_value_bytes = max_value_bytes
        self._child: ChildProcess | None = None
        self._turn = asyncio.Lock()

    async def run(
        self, payload: bytes, *, run_id: str, task: str, attempt: int, delivery_id: str, blobs: Mapping[str, bytes],
        accept: Accept | None = None,
    ) -> Isolated:  # fmt: skip
        """Run one value; whatever becomes of it, this process lives. A cancellation kills the child at once.

        Args:
            payload: A values block with this value alone.
            run_id: Of the run.
            task: Name of the task in the flow.
            attempt: Number of this execution, from 1.
            delivery_id: Entry of the work stream that brought the value.
            blobs: What a reference in `payload` stands for, by digest.
            accept: Takes what a generator yields as it comes, so that there may be more of it than fits in memory.

        Raises:
            DatameshError: What the child gave cannot be read, or `accept` refused it. The child is killed.
        """
        async with self._turn:
            try:
                return await self._run(Call(payload, dict(blobs), run_id, task, attempt, delivery_id), accept)
            except BaseException:
                await self._kill()
                raise

    async def aclose(self) -> None:
        """End the child, if there is one; it may take 5 seconds to clean up. A later `run` starts another."""
        async with self._turn:
            child, self._child = self._child, None
            if child is not None:
                await child.end(_END_SECONDS)

    # -------------------------------------------------------------------------------------------- the child

    async def _run(self, call: Call, accept: Accept | None) -> Isolated:
        try:
            child = await self._ready()
        except _Absent as absent:
            await self._kill()
            failure = replace(absent.failure, task=call.task, attempt=call.attempt, run_id=call.run_id)
            return NotRun(failure.pack())
        answer = _Answer(self._served, call, accept)
        try:
            async with asyncio.timeout(None) as limit:
                return await answer.of(child, limit)
        except TimeoutError:
            if not limit.expired():
                raise
        await self._kill()
        return self._timed_out(call, answer)

    async def _ready(self) -> ChildProcess:
        """The child, started if there is none."""
        if self._child is not None and self._child.is_alive:
            return self._child
        await self._kill()
        try:
            self._child = await ChildProcess.start()
            async with asyncio.timeout(_START_SECONDS):
                await self._child.send(self._opening())
                await self._meet(self._child)
        except TimeoutError:
            raise self._absent(f"it took over {_START_SECONDS:g} s") from None
        except OSError as error:
            raise self._absent(f"no process can be started ({error})") from error
        return self._child

    async def _meet(self, child: ChildProcess) -> None:
        while True:
            match await child.hear():
                case [Word.READY]:
                    return
                case [Word.ABSENT, failure]:
                    raise _Absent(replace(Failure.unpack(failure), service=self._service))
                case [Word.LOGGED, *record]:
                    _log(*record)
                case None:
                    raise self._absent(f"it ended with {await child.ended()}")

    def _opening(self) -> Opening:
        function = self._binding.function
        return Opening(
            function.__module__, describe(function), self._binding.ref, sys.argv, self._max_value_bytes, self._service,
            logging.getLogger().getEffectiveLevel(),
        )  # fmt: skip

    async def _kill(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.kill()

    # ------------------------------------------------------------------------------------------- what to tell

    def _absent(self, problem: str) -> _Absent:
        error = ConfigurationError(
            f"{self._binding.describe()} cannot run alone in a child process, which has to import "
            f"{self._binding.function.__module__}: {problem}"
        )
        return _Absent(Failure.of(error, task="", attempt=0, service=self._service))

    def _timed_out(self, call: Call, answer: _Answer) -> Raised:
        error = TimeoutError(f"{answer.lateness}: the child process in which it ran alone was killed")
        failure = Failure.of(error, task=call.task, attempt=call.attempt, run_id=call.run_id, service=self._service)
        retry = self._binding.options.retry
        is_repeated = retry is not None and retry.allows(call.attempt, error)
        delay = int(1000 * retry.delay(call.attempt, random.random())) if retry and is_repeated else None
        return Raised(failure.pack(), delay)


class _Answer:
    """What a child says about one value."""

    def __init__(self, served: Served, call: Call, accept: Accept | None) -> None:
        self._served = served
        self._options = served.binding.options
        self._call = call
        self._accept = accept if served.binding.form.is_generator else None
        self._pairs: list[Pair] = []
        self._begun = 0.0
        self._has_given = False

    async def of(self, child: ChildProcess, limit: asyncio.Timeout) -> Isolated:
        await child.send(self._call)
        while True:
            match await child.hear():
                case [Word.BEGUN]:
                    self._begun = asyncio.get_running_loop().time()
                    limit.reschedule(self._until)
                case [Word.GIVEN, output, payload, blobs]:
                    self._has_given = True
                    limit.reschedule(self._until)
                    await self._take(output, payload, blobs)
                case [Word.FINISHED]:
                    return Finished(self._pairs)
                case [Word.RAISED, failure, retry_ms, later]:
                    return Raised(failure, retry_ms, later)
                case [Word.LOGGED, *record]:
                    _log(*record)
                case None:
                    return Died(await child.ended())

    @property
    def lateness(self) -> str:
        """Which limit of time the function did not keep."""
        first = self._options.first_output_timeout
        if self._awaits_first and first is not None and first <= (self._options.timeout or first):
            return f"no first output after {first:g} s"
        return f"no end after {self._options.timeout:g} s"

    @property
    def _awaits_first(self) -> bool:
        return self._served.binding.form.is_generator and not self._has_given

    @property
    def _until(self) -> float | None:
        """When its time is over, by the clock of the loop."""
        limits = [self._options.timeout, self._options.first_output_timeout if self._awaits_first else None]
        return min((self._begun + limit for limit in limits if limit is not None), default=None)

    async def _take(self, output: str, payload: bytes, blobs: Mapping[str, bytes]) -> None:
        pairs: list[Pair] = [(output, value) for value in self._served.outputs[output].values(payload, blobs)]
        if self._accept is None:
            self._pairs += pairs
            return
        room = self._accept(pairs)
        if room is not None:
            await room


class _Absent(Exception):
    """A child that cannot run the function."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _log(logger: str, level: int, text: str, extra: Mapping[str, Any]) -> None:
    logging.getLogger(logger).log(level, "%s", text, extra=dict(extra))
