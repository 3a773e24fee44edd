"""Flows that the fault tests run: what is declared here is implemented in `service.py`, in other processes."""

from __future__ import annotations

from datamesh import Flow, Task

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

PARTS = 5

doubling = Flow.from_tasks(double, name="doubling").resolve()
scattering = Flow.from_tasks(scatter, name="scattering").resolve()
unrolling = Flow.from_tasks(unroll, name="unrolling").resolve()
two_stages = Flow.from_tasks(increment, triple, name="two-stages").resolve()
moods = Flow.from_tasks(moody, name="moods").resolve()
