"""Load: runs that are started one after another while servers fail, and what came of each of them.

What was acknowledged has to come out: a run whose start returned, and a value whose write returned. Where no answer
came the start is repeated under the same id, and a write counts as unknown: it may be there once, or not at all. In the
end all is read again by somebody who has seen nothing before.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, fields
from types import TracebackType
from typing import Any, Self

from datamesh import DatameshError, FlowRun, IOVal, StoreError, Supervisor
from tests.faults.board import Figures
from tests.faults.server_faults.stages import PARTS, stages

LEASE = 1.0
_PAUSE = 0.05
_AT_ONCE = 20


@dataclass
class Order:
    """One run: what was asked for, and what came."""

    id: str
    numbers: list[int]
    is_open: bool
    acknowledged: float | None = None
    """When its start returned, by the clock of the load."""
    written: dict[int, float] = field(default_factory=dict)
    """Of an open run: numbers whose write returned, and when."""
    is_complete: bool = False
    is_read: bool = False
    """To its end, while the servers failed."""
    seen: list[list[int]] = field(default_factory=list)
    """As they arrived."""
    found: list[list[int]] = field(default_factory=list)
    """As they were read in the end."""
    totals: list[int] = field(default_factory=list)
    error: str = ""

    def required(self, until: float = math.inf) -> Counter[int]:
        """Parts that must come out, of what was acknowledged until a moment."""
        if not self.is_open:
            return _parts(self.numbers)
        return _parts([number for number, at in self.written.items() if at <= until])

    @property
    def allowed(self) -> Counter[int]:
        """Parts that may."""
        return _parts(self.numbers)


class Load:
    """Starts runs as long as the block lasts; each starter reads its run to the end before the next.

    Args:
        source: What makes a supervisor find its Redis: `url=` or `client=`, and any other option.
        name: Of the load, in front of its run ids.
        starters: Runs at a time.
        size: Numbers in each run.
        open_share: Share of runs whose input is left open and written number by number.
        start: More arguments of `start_flow`, such as the durability.
        clock: By which acknowledgements are noted.
    """

    def __init__(
        self, *, mesh: str, chance: random.Random, name: str = "run", starters: int = 4, size: int = 12,
        open_share: float = 0.3, start: dict[str, Any] | None = None, clock: Callable[[], float] = time.monotonic,
        **source: Any,
    ) -> None:  # fmt: skip
        self._source: dict[str, Any] = {"mesh": mesh, "lease": LEASE, "tasks": []} | source
        self._chance = chance
        self._name = name
        self._count = starters
        self._size = size
        self._open_share = open_share
        self._start_options = start or {}
        self._clock = clock
        self._stack = AsyncExitStack()
        self._starters: list[asyncio.Task[None]] = []
        self._turns = [0.0] * starters
        """When each of them last had a run acknowledged."""
        self._is_over = False
        self.orders: list[Order] = []
        self.started = self.arrived = 0.0
        """When a start was last acknowledged, and a value last arrived."""
        self.refusals: Counter[str] = Counter()
        """Errors that starters and readers met on their way, by type."""
        self.last_refusal = ""

    async def __aenter__(self) -> Self:
        self._supervisor = await self._stack.enter_async_context(Supervisor(**self._source))
        self._starters = [asyncio.create_task(self._go_on(number)) for number in range(self._count)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        for starter in self._starters:
            starter.cancel()
        await asyncio.gather(*self._starters, return_exceptions=True)
        await self._stack.aclose()

    async def finish(self, seconds: float = 30.0) -> Verdict:
        """Start nothing more, wait for all that was begun, read everything anew, and judge."""
        self._is_over = True
        _, late = await asyncio.wait(self._starters, timeout=seconds)
        for starter in late:
            starter.cancel()
        for starter in self._starters:
            if starter.done() and not starter.cancelled():
                starter.result()
        async with Supervisor(**self._source) as fresh:
            known = [order for order in self.orders if order.acknowledged is not None]
            for start in range(0, len(known), _AT_ONCE):
                await asyncio.gather(*(self._read_anew(fresh, order) for order in known[start : start + _AT_ONCE]))
        return Verdict.of(self)

    async def moved(self, since: float, seconds: float = 40.0) -> float:
        """Wait until values arrive and starts are acknowledged again; returns the seconds that this took.

        Args:
            since: A moment of the monotonic clock.
            seconds: After which nothing counts as moving any more.
        """
        return await self._until(lambda: min(self.started, self.arrived) >= since, since, seconds)

    async def all_moved(self, since: float, seconds: float = 40.0) -> float:
        """Wait until every starter has begun another run, so that none of them hangs; returns the seconds."""
        return await self._until(lambda: min(self._turns) >= since, since, seconds)

    async def _until(self, condition: Callable[[], bool], since: float, seconds: float) -> float:
        while not condition():
            for starter in self._starters:
                if starter.done() and not self._is_over:
                    starter.result()
            if time.monotonic() > since + seconds:
                raise AssertionError(f"nothing moved for {seconds} s; the last refusal was {self.last_refusal!r}")
            await asyncio.sleep(0.01)
        return time.monotonic() - since

    # ------------------------------------------------------------------------------------------------ starters

    async def _go_on(self, starter: int) -> None:
        turn = 0
        while not self._is_over:
            turn += 1
            is_open = self._chance.random() < self._open_share
            order = Order(f"{self._name}-{starter}-{turn}", list(range(self._size)), is_open)
            self.orders.append(order)
            run = await self._start(order)
            if run is not None:
                self._turns[starter] = time.monotonic()
                await asyncio.gather(self._write(run, order), self._read(run, order))

    async def _start(self, order: Order) -> FlowRun | None:
        """Start the run; again, with the same id, until it is acknowledged."""
        inputs = [] if order.is_open else [IOVal(name="number", value=number) for number in order.numbers]
        while not self._is_over:
            try:
                run = await self._supervisor.start_flow(
                    stages, inputs=inputs, run_id=order.id, all_outputs=True, open_inputs=order.is_open,
                    **self._start_options,
                )  # fmt: skip
            except StoreError as error:
                await self._refused(error)
            else:
                order.acknowledged = self._clock()
                self.started = time.monotonic()
                return run
        return None

    async def _write(self, run: FlowRun, order: Order) -> None:
        """Write the numbers of an open run one by one; one without an answer is not written again."""
        if not order.is_open:
            return
        stream = run.inputs["number"]
        try:
            for number in order.numbers:
                try:
                    await stream.write(number)
                    order.written[number] = self._clock()
                except StoreError as error:
                    await self._refused(error)
            while not order.is_complete:
                try:
                    await stream.complete()
                    order.is_complete = True
                except StoreError as error:
                    await self._refused(error)
        except DatameshError as error:
            order.error = order.error or f"write: {error!r}"

    async def _read(self, run: FlowRun, order: Order) -> None:
        """Read to the end; from the beginning again when the store was away."""
        while True:
            order.seen.clear()
            try:
                async for value in run["weighed"]:
                    order.seen.append(value)
                    self.arrived = time.monotonic()
                await run["total"].collect()
                order.is_read = True
                return
            except StoreError as error:
                await self._refused(error)
            except DatameshError as error:
                order.error = order.error or f"read: {error!r}"
                return

    async def _refused(self, error: Exception) -> None:
        self.refusals[type(error).__name__] += 1
        self.last_refusal = str(error)
        await asyncio.sleep(_PAUSE)

    async def _read_anew(self, fresh: Supervisor, order: Order) -> None:
        try:
            run = await fresh.get_run(order.id)
            status = await run.status()
            if status.state.is_final:
                order.found = await run["weighed"].collect()
                order.totals = await run["total"].collect()
            else:
                order.error = f"unfinished: {status.state.value}, {dict(status.tasks)}"
        except DatameshError as error:
            order.error = f"in the end: {error!r}"


@dataclass
class Verdict:
    """What a load has shown."""

    runs: int = 0
    values: int = 0
    gone: int = 0
    """Acknowledged runs that nobody knows any more, or that failed."""
    unfinished: int = 0
    lost: int = 0
    """Values of acknowledged starts."""
    lost_writes: int = 0
    """Values of open inputs whose write was acknowledged."""
    doubled: int = 0
    early_ends: int = 0
    charged: int = 0
    """Attempts that were counted against a value, though nothing of it had failed."""
    examples: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, load: Load) -> Verdict:
        """Judge every run of a load."""
        verdict = cls()
        for order in load.orders:
            if order.acknowledged is not None:
                verdict._judge(order)
        return verdict

    def __add__(self, other: Verdict) -> Verdict:
        return Verdict(*(getattr(self, name.name) + getattr(other, name.name) for name in fields(self)))

    def report(self, figures: Figures, *, row: str = "", may_be_gone: bool = False) -> None:
        """Add everything that must not be to the figures.

        Args:
            figures: To add to.
            row: Where they belong.
            may_be_gone: Servers may have lost what they had acknowledged, so runs and writes may be gone, but nothing
                of a run that is there.
        """
        figures.add("runs", self.runs, least=1, row=row)
        figures.add("values", self.values, least=1, row=row)
        for name in ("gone", "lost_writes", "unfinished", "lost", "doubled", "early_ends"):
            most = None if may_be_gone and name in ("gone", "lost_writes") else 0
            figures.add(name.replace("_", " "), getattr(self, name), most=most, row=row)
        if self.examples:
            figures.add("such as", "; ".join(self.examples), row=row)

    def _judge(self, order: Order) -> None:
        self.runs += 1
        if order.error.startswith("unfinished"):
            self.unfinished += 1
            self._note(order, order.error)
            return
        if order.error:
            self.gone += 1
            self._note(order, order.error)
            return
        found = Counter(part for part, _ in order.found)
        self.values += found.total()
        self.charged += sum(attempt - 1 for _, attempt in order.found)
        missing, extra = order.required() - found, found - order.allowed
        if order.is_open:
            self.lost_writes += missing.total()
        else:
            self.lost += missing.total()
        self.doubled += extra.total()
        self.early_ends += order.totals != [found.total()]
        if missing or extra or order.totals != [found.total()]:
            self._note(order, f"missing {missing}, extra {extra}, totals {order.totals} of {found.total()}")

    def _note(self, order: Order, what: str) -> None:
        if len(self.examples) < 5:
            self.examples.append(f"{order.id}{' (open)' if order.is_open else ''}: {what}")


def _parts(numbers: list[int]) -> Counter[int]:
    return Counter(PARTS * number + part for number in numbers for part in range(PARTS))
