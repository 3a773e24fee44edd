"""Flows that the fault tests run: what is declared here is implemented in `tasks.py`, in other processes."""

from __future__ import annotations

from typing import Any

from datamesh import Flow, IOVal, Task

double = Task(name="double", inputs={"number": int}, outputs={"doubled": int})
"""One value for a value, a few milliseconds each."""

scatter = Task(name="scatter", inputs={"number": int}, outputs={"part": int})
"""A generator for each value: five values, with pauses in which it may die."""

unroll = Task(name="unroll", inputs={"number": int}, outputs={"part": int})
"""A generator over the whole stream, with pauses."""

increment = Task(name="increment", inputs={"number": int}, outputs={"incremented": int})
"""Light; `triple` takes what it gives."""

triple = Task(name="triple", inputs={"incremented": int}, outputs={"tripled": int})
"""Light."""

moody = Task(name="moody", inputs={"number": int}, outputs={"answer": int})
"""Fails where the number is 1 modulo 3, and takes long where it is 2."""

split = Task(name="split", inputs={"number": int}, outputs={"piece": int})
"""A generator for each value: three values."""

refine = Task(name="refine", inputs={"piece": int}, outputs={"refined": int})
"""One value for a value, a few milliseconds each."""

gather = Task(name="gather", inputs={"refined": int}, outputs={"kept": int, "sum": int}, wait=True)
"""Waits for the whole stream, gives each of its values again, and their sum."""

slow = Task(name="slow", inputs={"number": int}, outputs={"slowed": int})
"""One value for a value, a quarter of a second each."""

poisoned = Task(name="poisoned", inputs={"number": int}, outputs={"survived": int})
"""Kills its process where the number is `POISON`; what dies is buried."""

blocking = Task(name="blocking", inputs={"number": int}, outputs={"unblocked": int})
"""Blocks the event loop for as many milliseconds as the number says."""

flaky = Task(name="flaky", inputs={"number": int}, outputs={"steady": int})
"""Fails at its first execution, and is tried again a second later."""

later = Task(name="later", inputs={"moment": int}, outputs={"late": int})
"""Asks to be run again when the moment has come: milliseconds of the monotonic clock, and a number below 1,000,000."""

echo = Task(name="echo", inputs={"word": int}, outputs={"echoed": int})
"""Gives back what it gets, at once."""

large = Task(name="large", inputs={"size": int}, outputs={"body": bytes})
"""A value of as many bytes."""

weigh = Task(name="weigh", inputs={"load": bytes}, outputs={"weight": int})
"""How many bytes a value has."""

endless = Task(name="endless", inputs={"start": int}, outputs={"tick": int})
"""Gives a value every few milliseconds, until it is cancelled."""

PARTS = 5
PIECES = 3
POISON = 500

doubling = Flow.from_tasks(double, name="doubling").resolve()
scattering = Flow.from_tasks(scatter, name="scattering").resolve()
unrolling = Flow.from_tasks(unroll, name="unrolling").resolve()
two_stages = Flow.from_tasks(increment, triple, name="two-stages").resolve()
moods = Flow.from_tasks(moody, name="moods").resolve()
three_stages = Flow.from_tasks(split, refine, gather, name="three-stages").resolve()
crossing = Flow.from_tasks(scatter, refine.rename(inputs={"piece": "part"}), gather, name="crossing").resolve()
slowing = Flow.from_tasks(slow, name="slowing").resolve()
poisoning = Flow.from_tasks(poisoned, name="poisoning").resolve()
blocks = Flow.from_tasks(blocking, name="blocks").resolve()
retrying = Flow.from_tasks(flaky, name="retrying").resolve()
waiting = Flow.from_tasks(later, name="waiting").resolve()
echoing = Flow.from_tasks(echo, name="echoing").resolve()
larges = Flow.from_tasks(large, name="larges").resolve()
weighing = Flow.from_tasks(weigh, name="weighing").resolve()
ticking = Flow.from_tasks(endless, name="ticking").resolve()


def value(name: str, value: Any) -> IOVal[Any]:
    """One value of an input."""
    return IOVal(name=name, value=value)
