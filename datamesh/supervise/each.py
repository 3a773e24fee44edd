"""EachRun: a frame of values, one invocation for each of them.

The delivery's own task runs one value after another, so that a function that never waits costs no task of its own. When
an invocation waits, another task goes on with the next value, as far as slots are free. A frame that takes long gives
back the values that were not begun, in frames that take about as long as one turn should, and sends what is finished
early.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from datamesh.errors import DatameshError, InvalidValueError
from datamesh.model.modes import Form
from datamesh.store.streams import fetch_blobs
from datamesh.supervise.alone import Alone
from datamesh.supervise.delivery_run import DeliveryRun, uncancel
from datamesh.supervise.progress import Given, placed
from datamesh.supervise.thread_feed import Pair

_TURN = 0.02
"""Seconds that a frame should take, and that values may wait behind others of their frame."""
_BREATH = 0.005
"""Seconds after which a function that never waits lets the event loop do something else."""


class EachRun(DeliveryRun):
    """Runs the values of one frame."""

    _values: list[Any]

    async def work(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending = deque(self.progress.left)
        self._begun = time.perf_counter()
        self._finished = 0
        self._spent = 0.0
        self._running: dict[int, float] = {}
        self._is_spawning = self._is_late = False
        self._outcomes: deque[tuple[int, list[Given] | BaseException]] = deque()
        self._returned: deque[tuple[int, Any]] = deque()
        self._main = asyncio.current_task()
        binding = self.served.binding
        self._is_bare = self._calling.is_plain and self.progress.takes_bare
        self._function = binding.function if self._is_bare and binding.form is Form.COROUTINE else None
        await self._decode()
        self._timer = asyncio.get_running_loop().call_later(_TURN, self._overdue)
        try:
            if self.progress.suspicion.runs_alone:
                await self._run_alone()
            elif binding.form is Form.FUNCTION and self._calling.takes_frames:
                await self._get_ready()
                await self._in_thread()
            else:
                await self._runner()
            while self._tasks:
                await asyncio.wait(self._tasks)
        except asyncio.CancelledError:
            await self._stop_tasks()
            if not self.is_stopped:
                raise
            if self.is_released:
                self.progress.release()
            uncancel()
        finally:
            self._timer.cancel()

    async def _decode(self) -> None:
        """Turn the frame into values; one that does not fit its type has failed, the others go on."""
        (self._parameter, codec), *_ = self.served.inputs.items()
        frame = self.delivery.frame
        blobs: Mapping[str, bytes] = {}
        self._values = []
        try:
            blobs = await self.sending.patiently(lambda: fetch_blobs(self._protocol, self.delivery.run_id, frame))
            self._values = codec.values(frame.values, blobs)
        except InvalidValueError:
            self._values = codec.value_list_or_errors(frame.values, blobs)
            for index in list(self._pending):
                if isinstance(self._values[index], InvalidValueError):
                    self._pending.remove(index)
                    self.progress.fail(index, self._values[index])
        except DatameshError as error:
            for index in self._pending:
                self.progress.fail(index, error)
            self._pending.clear()

    # ----------------------------------------------------------------------------------------- on the loop

    async def _runner(self) -> None:
        # The hot path, once for each value: a function that needs nothing but its value is called from here.
        function, parameter, values, running = self._function, self._parameter, self._values, self._running
        finished = self.progress.bare
        breath = began = time.perf_counter()
        while self._pending:
            index = self._pending.popleft()
            if not self._is_spawning:
                self._is_spawning = True
                asyncio.get_running_loop().call_soon(self._spawn)
            running[index] = began
            try:
                if function is None:
                    await self._invoke(index)
                else:
                    finished[index] = await function(**{parameter: values[index]})
            except BaseException as error:
                self._fell(index, error)
            now = time.perf_counter()
            self._ran(index, now - began)
            if self._is_late:
                self.sending.send_early()
            if now - breath > _BREATH:
                await asyncio.sleep(0)
                now = breath = time.perf_counter()
                if now - self._begun > _TURN:
                    self._overdue()
            began = now

    def _spawn(self) -> None:
        """Called when the loop is free, so the task that goes through the frame waits for something."""
        self._is_spawning = False
        if not self._pending or self.is_stopped:
            return
        own = self.served.slots
        if own is not None and not own.try_acquire():
            return
        if not self.slots.try_acquire():
            if own is not None:
                own.release()
            return
        task = asyncio.create_task(self._runner(), name="datamesh-invocation")
        self._tasks.add(task)
        task.add_done_callback(self._spawned_done)

    def _spawned_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.slots.release()
        if self.served.slots is not None:
            self.served.slots.release()

    async def _invoke(self, index: int) -> None:
        if self.served.binding.form.is_generator:
            await self._generate(index)
        else:
            self.progress.finish(index, placed(await self._result(index), whole=False))

    def _fell(self, index: int, error: BaseException) -> None:
        """The function raised; it is the function's own affair unless somebody stops us, or the program."""
        if isinstance(error, asyncio.CancelledError):
            if self.is_stopped or _is_being_cancelled():
                raise error
            error = asyncio.CancelledError("the function was cancelled from within")
        elif not isinstance(error, (Exception, SystemExit)):
            raise error
        self.progress.fail(index, error)

    async def _result(self, index: int) -> list[Pair]:
        binding, inputs, context = self.served.binding, {self._parameter: self._values[index]}, self.context(index)
        if binding.form is Form.COROUTINE:
            given = self._calling.arguments_now(context)
            if given is not None:
                return binding.outputs_of(await binding.function(**inputs, **given))
        return await self._calling.result(inputs, context)

    async def _generate(self, index: int) -> None:
        emitter = self.progress.emitter(index)
        await self._calling.yielded(
            {self._parameter: self._values[index]},
            self.context(index),
            lambda pairs: self.sending.accept(emitter, pairs),
        )
        self.progress.finish_generator(index)

    async def _run_alone(self) -> None:
        """Too many have died of this delivery: one value after another, so that it is known of which."""
        await Alone(
            self.delivery, self.served, self.progress, self.sending, self._protocol, isolations=self._isolations,
            slots=self.slots, task=self._name, service=self._service, pending=self._pending,
            invoke=self._invoke, fell=self._fell,
        ).run()  # fmt: skip

    # ----------------------------------------------------------------------------------------- in a thread

    async def _get_ready(self) -> None:
        """Run values one by one until everything that outlasts an invocation is built."""
        while self._pending and not self._calling.is_ready:
            index = self._pending.popleft()
            try:
                await self._invoke(index)
            except BaseException as error:
                self._fell(index, error)

    async def _in_thread(self) -> None:
        """Hand over the frame, not each value: crossing into a thread costs as much as a hundred small calls."""
        try:
            await self.served.executor.run(self._work_in_thread)
        except asyncio.CancelledError:
            self._pending.clear()
            raise
        finally:
            self._collect()

    def _work_in_thread(self) -> None:
        binding, parameter, values = self.served.binding, self._parameter, self._values
        function = binding.function
        while (index := self._next()) is not None:
            began = self._running[index] = time.perf_counter()
            try:
                if self._is_bare:
                    self._returned.append((index, function(**{parameter: values[index]})))
                else:
                    given = self._calling.arguments_now(self.context(index)) or {}
                    result = function(**{parameter: values[index]}, **given)
                    self._outcomes.append((index, placed(binding.outputs_of(result), whole=False)))
            except (Exception, SystemExit) as error:
                self._outcomes.append((index, error))
            self._ran(index, time.perf_counter() - began)

    def _ran(self, index: int, seconds: float) -> None:
        del self._running[index]
        self._spent += seconds
        self._finished += 1

    def _next(self) -> int | None:
        """The next value; the loop may take what is left away at any moment."""
        try:
            return self._pending.popleft()
        except IndexError:
            return None

    def _collect(self) -> None:
        """Tell of what a thread has finished."""
        while self._returned:
            index, value = self._returned.popleft()
            self.progress.bare[index] = value
        while self._outcomes:
            index, outcome = self._outcomes.popleft()
            if isinstance(outcome, BaseException):
                self.progress.fail(index, outcome)
            else:
                self.progress.finish(index, outcome)

    # ---------------------------------------------------------------------------------------- slow frames

    def _overdue(self) -> None:
        """The frame has had its turn: give back what was not begun, and send what is finished."""
        if self._is_late:
            return
        longest = self._longest()
        # What waits side by side takes no longer together than alone.
        cost = (self._spent / self._finished if self._finished else longest) / (1 + len(self._tasks))
        if longest <= _TURN and len(self._pending) * cost <= _TURN:
            # It is not slow: it waited for its turn. To break it up would make a busy service busier.
            self._timer.cancel()
            self._timer = asyncio.get_running_loop().call_later(_TURN, self._overdue)
            return
        self._is_late = True
        waiting = list(iter(self._next, None))
        if waiting:
            self.progress.give_back(waiting, max(1, min(256, int(_TURN / max(cost, 1e-9)))))
        self._again()

    def _longest(self) -> float:
        """Seconds that the oldest invocation under way has taken so far."""
        now = time.perf_counter()
        return now - min(list(self._running.values()), default=now)

    def _again(self) -> None:
        self._collect()
        self.sending.send_early()
        self._timer = asyncio.get_running_loop().call_later(_TURN, self._again)

    # --------------------------------------------------------------------------------------------- stopping

    def interrupt(self) -> None:
        if self._main is not None:
            self._pending.clear()
        super().interrupt()

    async def _stop_tasks(self) -> None:
        self._pending.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
