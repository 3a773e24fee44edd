"""Child: the process in which suspect values run, one after another, so that none but this process dies of them.

It is started by `child_process.py` and speaks `child_wire.py`. A thread of its own listens and another one writes, so
that no function can keep the child from noticing that its service is gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import functools
import importlib
import logging
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

from datamesh.codec.failure import Failure
from datamesh.depends.binding import Binding
from datamesh.depends.callables import describe
from datamesh.depends.context import Context
from datamesh.depends.scopes import RunScope, ServiceScope
from datamesh.errors import ConfigurationError
from datamesh.execute.local import LocalExecutor
from datamesh.model.policies import RetryLater
from datamesh.model.registry import registry
from datamesh.supervise.calling import Calling
from datamesh.supervise.child_wire import Call, Opening, Word, packed, receive, send
from datamesh.supervise.served import Served
from datamesh.supervise.thread_feed import Pair

_ORPHANED: Final = 70
_PR_SET_PDEATHSIG: Final = 1
_TOLD_SECONDS: Final = 1.0
_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""What every record has; the rest came as `extra`."""


def main(descriptor: int, parent: int) -> None:
    """Run what the service asks for until it says that this is the end.

    Args:
        descriptor: Of the connection to the service.
        parent: Process id of the service.
    """
    os.set_inheritable(descriptor, False)
    _end_with(parent)
    _go_first()
    for number in (signal.SIGINT, signal.SIGTERM):
        # Both may be meant for a whole group of processes. The service drains then, and ends this one.
        signal.signal(number, lambda *_: None)
    with asyncio.Runner() as runner:
        line = _Line(descriptor, runner.get_loop())
        opening = Opening(**runner.run(line.heard.get()))
        sys.argv[:] = opening.arguments
        logging.basicConfig(handlers=[_Records(line)], level=opening.level, format="%(message)s")
        # Outside of the loop, like the import in the service was: a module may run one of its own.
        binding = _found(opening, line)
        if binding is not None:
            runner.run(_serve(binding, opening, line))


def _end_with(parent: int) -> None:
    """Have the kernel kill this process when the service is gone, where it can; `_Line` notices it everywhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(_ORPHANED)


def _go_first() -> None:
    """Where memory runs out, be the one that is killed."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def _found(opening: Opening, line: _Line) -> Binding | None:
    """Import the implementation and say that it is here; None: it is not, and the service was told why."""
    try:
        importlib.import_module(opening.module)
        found = registry.get(opening.ref)
        if found is None or describe(found.function) != opening.function:
            raise ConfigurationError(
                f"{opening.function} cannot run alone in a child process: "
                f"importing {opening.module} does not make it the implementation of task {opening.ref}"
            )
    except BaseException as error:
        line.tell(Word.ABSENT, Failure.of(error, task="", attempt=0).pack()).result()
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
        return None
    binding: Binding = found.compiled
    line.tell(Word.READY)
    return binding


async def _serve(binding: Binding, opening: Opening, line: _Line) -> None:
    scope = ServiceScope()
    invocations = _Invocations(binding, opening, line, scope)
    try:
        # A supervisor that the module attaches may start flows here, but has no tasks to serve.
        with registry.isolated(empty=True):
            while (call := await line.heard.get()) is not None:
                await invocations.run(Call(**call))
    finally:
        await scope.aclose()


class _Line:
    """The connection to the service.

    Attributes:
        heard: What the service has sent.
    """

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        self.heard: asyncio.Queue[Any] = asyncio.Queue()
        self._descriptor = descriptor
        self._loop = loop
        self._writer = ThreadPoolExecutor(1, "datamesh-child-writer")
        threading.Thread(target=self._listen, name="datamesh-child-listener", daemon=True).start()

    def tell(self, word: Word, *facts: Any) -> Future[None]:
        """Send a message, from any thread, in the order of the calls."""
        return self._writer.submit(send, self._descriptor, packed([word, *facts]))

    def _listen(self) -> None:
        while True:
            try:
                message = receive(self._descriptor)
            except (EOFError, OSError):
                os._exit(_ORPHANED)
            self._loop.call_soon_threadsafe(self.heard.put_nowait, message)


class _Invocations:
    """Invocations of one implementation."""

    def __init__(self, binding: Binding, opening: Opening, line: _Line, scope: ServiceScope) -> None:
        # The service keeps the time, because it can kill.
        options = replace(binding.options, timeout=None, first_output_timeout=None, executor=None, concurrency=None)
        begun = _announced(binding.function, lambda: line.tell(Word.BEGUN))
        self._served = Served.of(
            replace(binding, function=begun, options=options), executors={}, default=LocalExecutor(),
            max_value_bytes=opening.max_value_bytes,
        )  # fmt: skip
        self._opening = opening
        self._line = line
        self._service_scope = scope
        self._scope: tuple[str, RunScope] | None = None
        self._unsent: Exception | None = None

    async def run(self, call: Call) -> None:
        """Run one value and tell of it."""
        self._unsent = None
        try:
            await self._invoke(call)
        except RetryLater as wish:
            self._tell_of(call, wish, later=wish.seconds)
        except asyncio.CancelledError:
            self._tell_of(call, asyncio.CancelledError("the function was cancelled from within"))
        except (Exception, SystemExit) as error:
            self._tell_of(call, error)
        else:
            self._line.tell(Word.FINISHED)

    async def _invoke(self, call: Call) -> None:
        ((parameter, codec),) = self._served.inputs.items()
        inputs = {parameter: codec.values(call.payload, call.blobs)[0]}
        calling = Calling(self._served, await self._scope_of(call.run_id))
        if self._served.binding.form.is_generator:
            await calling.yielded(inputs, _context(call), self._accept)
        else:
            self._give(await calling.result(inputs, _context(call)))
        if self._unsent is not None:
            raise self._unsent

    async def _scope_of(self, run_id: str) -> RunScope:
        """The scope of a run; that of the run before is closed, because its values come together."""
        if self._scope is None or self._scope[0] != run_id:
            before, self._scope = self._scope, (run_id, RunScope(self._service_scope, run_id))
            if before is not None:
                await before[1].aclose()
        return self._scope[1]

    def _accept(self, pairs: list[Pair]) -> asyncio.Future[None]:
        """Send what a generator yielded. What cannot be sent fails the future: the generator may be in a thread."""
        try:
            if self._unsent is not None:
                raise self._unsent
            sent = self._give(pairs)
        except Exception as error:
            self._unsent = error
            sent = Future()
            sent.set_exception(error)
        room = asyncio.wrap_future(sent)
        room.add_done_callback(lambda done: done.cancelled() or done.exception())  # seen, if nobody waits
        return room

    def _give(self, pairs: list[Pair]) -> Future[None]:
        sent: Future[None] = Future()
        sent.set_result(None)
        for output, some in groupby(pairs, itemgetter(0)):
            for frame in self._served.outputs[output].frames([value for _, value in some]):
                blobs = {blob.digest: blob.body for blob in frame.blobs}
                sent = self._line.tell(Word.GIVEN, output, frame.payload, blobs)
        return sent

    def _tell_of(self, call: Call, error: BaseException, *, later: float | None = None) -> None:
        failure = Failure.of(
            error, task=call.task, attempt=call.attempt, run_id=call.run_id, service=self._opening.service
        )
        retry, delay = self._served.binding.options.retry, None
        if later is None and retry is not None and retry.allows(call.attempt, error):
            delay = int(1000 * retry.delay(call.attempt, random.random()))
        self._line.tell(Word.RAISED, failure.pack(), delay, later)


def _announced(function: Callable[..., Any], announce: Callable[[], object]) -> Callable[..., Any]:
    """The function, announced when it is called; what it returns, be it a coroutine or a generator, stays as it is."""

    @functools.wraps(function)
    def call(**arguments: Any) -> Any:
        announce()
        return function(**arguments)

    return call


def _context(call: Call) -> Context:
    told = 0.0

    def tell(done: float, total: float | None) -> None:
        nonlocal told
        if time.monotonic() - told >= _TOLD_SECONDS:
            told = time.monotonic()
            context.log.info("%g%s done", done, "" if total is None else f" of {total:g}")

    # No state is kept: nothing is told of an execution that a child died of, so a repetition begins anew.
    context = Context(
        run_id=call.run_id, task=call.task, attempt=call.attempt, delivery_id=call.delivery_id, on_progress=tell
    )
    return context


class _Records(logging.Handler):
    """Sends the log to that of the service."""

    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def emit(self, record: logging.LogRecord) -> None:
        try:
            extra = dict(_extra(record))
            self._line.tell(Word.LOGGED, record.name, record.levelno, self.format(record), extra)
        except Exception:
            self.handleError(record)


def _extra(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    for name, value in vars(record).items():
        if name not in _PLAIN:
            yield name, value if value is None or isinstance(value, str | bool | float) else str(value)
