"""Every error of datamesh, as one tree.

DatameshError
├── DefinitionError            what was declared cannot work; raised before anything runs
│   ├── UnresolvedFlowError    a flow was started before `resolve()`
│   ├── DuplicateIOError       two tasks of a flow produce one stream
│   ├── CyclicFlowError        tasks of a flow feed each other in a circle
│   ├── FloatingIOError        an input of a flow was given no value
│   ├── UnknownInputError      a value was given for an input that the flow does not have
│   ├── MismatchedIOError      a function gave a value for an output its task does not declare
│   ├── ReadOnlyIOError        a write to a stream that cannot be written
│   ├── ContractMismatchError  two types that should fit do not
│   ├── DependencyError        a parameter of a function cannot be resolved
│   └── ConfigurationError     an option, a name or the order of calls is wrong
├── RunError                   a run did not end well
│   ├── TaskFailedError        a function raised; carries the remote type, message and traceback
│   ├── NonDeterministicReplayError  a repeated generator did not repeat what it had published
│   ├── ServiceLostError       a value was running whenever its service died
│   ├── QuotaExceededError     a run needs more than it may have
│   ├── FlowCancelledError     the run was cancelled
│   ├── FlowTimeoutError       the run passed its deadline
│   ├── UnknownRunError        no run has this id (any more)
│   ├── DeadLetterError        a dead letter is not there, or cannot be read or sent again
│   ├── EmptyIOError           a value was asked of a stream that ended without one
│   └── UnequalLengthError     streams that were zipped with `strict=True` differ in length
├── DataError                  a value, or its bytes, cannot be used
│   ├── InvalidValueError      a value does not fit its type
│   ├── UnserializableValueError  a value has no form on the wire
│   ├── TamperedDataError      bytes from the store are not what was written
│   └── PayloadTooLargeError   a value is over the limit
├── StoreError                 Redis cannot do what is asked of it
│   ├── StoreUnavailableError  Redis cannot be reached or used
│   ├── DataLossError          Redis has lost what it had acknowledged
│   ├── NotDurableError        a run is recorded, but not as durably as was asked for
│   └── ProtocolMismatchError  Redis holds a mesh of another protocol
└── ServiceBrokenError         a service cannot go on, whatever it tries

Each takes keyword fields, keeps them as attributes and builds its message from them: what, where, what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


class DatameshError(Exception):
    """Root of all errors that datamesh raises."""


# ---------------------------------------------------------------------------------------------- definition


class DefinitionError(DatameshError):
    """Something declared cannot work."""


class ConfigurationError(DefinitionError):
    """An option, a name or the order of calls is wrong."""


class UnresolvedFlowError(DefinitionError):
    """A flow was used before it was resolved."""

    def __init__(self, *, flow: str) -> None:
        self.flow = flow
        super().__init__(f"flow {flow!r} is not resolved: call `.resolve()` on it before you start or draw it")


class DuplicateIOError(DefinitionError):
    """Two tasks of a flow produce one stream."""

    def __init__(self, *, stream: str, producers: Sequence[str]) -> None:
        self.stream = stream
        self.producers = tuple(producers)
        super().__init__(
            f"stream {stream!r} is produced by {_names(producers)}: rename one of them, "
            f'for example `{producers[-1]}.rename(outputs={{"{stream}": "other"}})`'
        )


class CyclicFlowError(DefinitionError):
    """Tasks of a flow feed each other in a circle; `cycles` lists them, shortest first."""

    def __init__(self, *, cycles: Sequence[Sequence[str]]) -> None:
        self.cycles = tuple(tuple(cycle) for cycle in cycles)
        drawn = "; ".join(" -> ".join((*cycle, cycle[0])) for cycle in self.cycles)
        super().__init__(f"tasks feed each other in a circle: {drawn}. Rename a stream or drop a task to break it")


class FloatingIOError(DefinitionError):
    """Inputs of a flow were given no value."""

    def __init__(self, *, missing: Iterable[str], flow: str) -> None:
        self.missing = tuple(sorted(missing))
        self.flow = flow
        super().__init__(
            f"flow {flow!r} needs a value for {_names(self.missing)}: pass `inputs=[IOVal(name=..., value=...)]`, "
            "or `open_inputs=True` to write them later"
        )


class UnknownInputError(DefinitionError):
    """A value was given for an input that the flow does not have."""

    def __init__(self, *, unknown: Iterable[str], inputs: Iterable[str], flow: str) -> None:
        self.unknown = tuple(sorted(unknown))
        self.inputs = tuple(sorted(inputs))
        self.flow = flow
        super().__init__(f"flow {flow!r} has no input {_names(self.unknown)}: its inputs are {_names(self.inputs)}")


class MismatchedIOError(DefinitionError):
    """A function gave a value for an output that its task does not declare."""

    def __init__(self, *, task: str, output: str | None, outputs: Iterable[str]) -> None:
        self.task = task
        self.output = output
        self.outputs = tuple(outputs)
        what = (
            f"gave a bare value though it has {len(self.outputs)} outputs"
            if output is None
            else f"gave a value for {output!r}, which it does not declare"
        )
        super().__init__(
            f"task {task!r} {what}: its outputs are {_names(self.outputs)}; "
            "yield `IOVal(name=..., value=...)` with one of them or declare the output"
        )


class ReadOnlyIOError(DefinitionError):
    """A write to a stream that cannot be written."""

    def __init__(self, *, stream: str, reason: str) -> None:
        self.stream = stream
        self.reason = reason
        super().__init__(f"stream {stream!r} cannot be written: {reason}")


class ContractMismatchError(DefinitionError):
    """Two types that should fit do not; `expected` and `found` are their texts."""

    def __init__(self, *, where: str, expected: str, found: str, fix: str) -> None:
        self.where = where
        self.expected = expected
        self.found = found
        self.fix = fix
        super().__init__(f"{where}: expected {expected}, found {found}. {fix}")


class DependencyError(DefinitionError):
    """A parameter of a function cannot be resolved."""

    def __init__(self, *, function: str, parameter: str, problem: str, fix: str) -> None:
        self.function = function
        self.parameter = parameter
        self.problem = problem
        self.fix = fix
        super().__init__(f"parameter {parameter!r} of {function}: {problem}. {fix}")


# ---------------------------------------------------------------------------------------------------- run


class RunError(DatameshError):
    """A run did not end well."""


class TaskFailedError(RunError):
    """A task's function raised, in whatever process it ran."""

    def __init__(
        self, *, task: str, attempt: int, remote_type: str, message: str, remote_traceback: str = "", run_id: str = "",
        service: str = "",
    ) -> None:  # fmt: skip
        self.task = task
        self.attempt = attempt
        self.remote_type = remote_type
        self.message = message
        self.remote_traceback = remote_traceback
        self.run_id = run_id
        self.service = service
        super().__init__(f"task {task!r} failed at attempt {attempt}: {remote_type}: {message}")


class NonDeterministicReplayError(RunError):
    """A generator that was repeated after a crash did not repeat what it had already published."""

    def __init__(self, *, task: str, published: int) -> None:
        self.task = task
        self.published = published
        super().__init__(
            f"task {task!r} was repeated after a crash and its first {published} values differ from those already "
            "published: make it deterministic in its inputs"
        )


class ServiceLostError(RunError):
    """Services, or the processes that ran it alone, died whenever they ran a value, and it is not tried again."""

    def __init__(self, *, task: str, deaths: int) -> None:
        self.task = task
        self.deaths = deaths
        super().__init__(
            f"task {task!r}: {deaths} processes died while they ran this value. Look for what ends them (memory, a "
            "signal, native code); `retry=Retry(deaths=...)` sets how many may"
        )


class QuotaExceededError(RunError):
    """A run needs more than it may have: `quota` names what, `limit` is in bytes or values."""

    def __init__(self, *, run_id: str, quota: str, limit: int, found: int) -> None:
        self.run_id = run_id
        self.quota = quota
        self.limit = limit
        self.found = found
        super().__init__(
            f"run {run_id!r} needs {quota}={found} and may have {limit}: start it with "
            f"`quota=Quota({quota}=...)`, or split the work into several runs"
        )


class FlowCancelledError(RunError):
    """The run was cancelled."""

    def __init__(self, *, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id!r} was cancelled")


class FlowTimeoutError(RunError):
    """The run passed its deadline."""

    def __init__(self, *, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"run {run_id!r} passed its deadline")


class UnknownRunError(RunError):
    """No run has this id: it never existed, or its retention is over."""

    def __init__(self, *, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"there is no run {run_id!r}: it was never started in this mesh, or its retention is over")


class DeadLetterError(RunError):
    """A dead letter is not there, or cannot be read or sent again."""

    def __init__(self, *, letter: str, problem: str, fix: str) -> None:
        self.letter = letter
        self.problem = problem
        self.fix = fix
        super().__init__(f"dead letter {letter}: {problem}. {fix}")


class EmptyIOError(RunError):
    """A value was asked of a stream that ended without one."""

    def __init__(self, *, stream: str) -> None:
        self.stream = stream
        super().__init__(f"stream {stream!r} ended without a value: iterate it to accept none")


class UnequalLengthError(RunError):
    """Streams that were zipped with `strict=True` differ in length: those in `ended` have only `length` values."""

    def __init__(self, *, streams: Sequence[str], ended: Sequence[str], length: int) -> None:
        self.streams = tuple(streams)
        self.ended = tuple(ended)
        self.length = length
        super().__init__(
            f"streams {_names(streams)} differ in length: {_names(ended)} ended after {length} values and the others "
            "go on. Pass `pad=...` to fill up the shorter, or leave out `strict=True` to stop with them"
        )


# ------------------------------------------------------------------------------------------------- values


class DataError(DatameshError):
    """A value, or its bytes, cannot be used."""


class InvalidValueError(DataError):
    """A value does not fit its type; `index` is its place among those given together."""

    def __init__(self, *, where: str, expected: str, problem: str, index: int | None = None) -> None:
        self.where = where
        self.expected = expected
        self.problem = problem
        self.index = index
        at = "" if index is None else f" (value {index})"
        super().__init__(f"{where}{at}: expected {expected}: {problem}")


class UnserializableValueError(DataError):
    """A value has no form on the wire."""

    def __init__(self, *, where: str, type_name: str, problem: str) -> None:
        self.where = where
        self.type_name = type_name
        self.problem = problem
        super().__init__(f"{where}: a {type_name} cannot be sent: {problem}")


class TamperedDataError(DataError):
    """Bytes from the store are not what a supervisor wrote."""

    def __init__(self, *, where: str, problem: str) -> None:
        self.where = where
        self.problem = problem
        super().__init__(f"{where}: {problem}")


class PayloadTooLargeError(DataError):
    """A value is over the limit."""

    def __init__(self, *, where: str, size_bytes: int, limit_bytes: int) -> None:
        self.where = where
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes
        super().__init__(
            f"{where}: {size_bytes} bytes are over the limit of {limit_bytes}: send a reference to it, "
            "or raise `max_value_bytes`"
        )


# -------------------------------------------------------------------------------------------------- store


class StoreError(DatameshError):
    """Redis cannot do what is asked of it."""


class StoreUnavailableError(StoreError):
    """Redis cannot be reached or used."""

    def __init__(self, *, where: str, problem: str, fix: str) -> None:
        self.where = where
        self.problem = problem
        self.fix = fix
        super().__init__(f"{where}: {problem.rstrip('.')}. {fix}")


class DataLossError(StoreError):
    """Redis has lost what it had acknowledged: it was emptied, or came back without its data."""

    def __init__(self, *, where: str, problem: str) -> None:
        self.where = where
        self.problem = problem
        super().__init__(
            f"{where}: {problem}. What was under way is gone: start it again, and look at persistence and eviction "
            "of that Redis"
        )


class NotDurableError(StoreError):
    """A run is recorded, but not confirmed at the level of durability that was asked for."""

    def __init__(self, *, run_id: str, asked: str, problem: str) -> None:
        self.run_id = run_id
        self.asked = asked
        self.problem = problem
        super().__init__(
            f"run {run_id!r} is not known to be {asked}: {problem}. The same `run_id` again waits once more and "
            "never starts a second run"
        )


class ProtocolMismatchError(StoreError):
    """Redis holds a mesh of another protocol or shape."""

    def __init__(self, *, where: str, found: Any, expected: Any, fix: str) -> None:
        self.where = where
        self.found = found
        self.expected = expected
        self.fix = fix
        super().__init__(f"{where}: found {found}, expected {expected}. {fix}")


# ------------------------------------------------------------------------------------------------ service


class ServiceBrokenError(DatameshError):
    """A part of a service broke again and again, so it left the mesh; `actor` says which part."""

    def __init__(self, *, actor: str, problem: str) -> None:
        self.actor = actor
        self.problem = problem
        super().__init__(f"{actor} cannot be kept going: {problem}. Start the service anew; its log says more")
