"""datamesh: a decentralized async task mesh over Redis streams."""

from datamesh.depends.context import Context
from datamesh.depends.markers import Depends
from datamesh.errors import (
    ConfigurationError,
    ContractMismatchError,
    CyclicFlowError,
    DataError,
    DataLossError,
    DatameshError,
    DeadLetterError,
    DefinitionError,
    DependencyError,
    DuplicateIOError,
    EmptyIOError,
    FloatingIOError,
    FlowCancelledError,
    FlowTimeoutError,
    InvalidValueError,
    MismatchedIOError,
    NonDeterministicReplayError,
    NotDurableError,
    PayloadTooLargeError,
    ProtocolMismatchError,
    QuotaExceededError,
    ReadOnlyIOError,
    RunError,
    ServiceBrokenError,
    ServiceLostError,
    StoreError,
    StoreUnavailableError,
    TamperedDataError,
    TaskFailedError,
    UnequalLengthError,
    UnknownInputError,
    UnknownRunError,
    UnresolvedFlowError,
    UnserializableValueError,
)
from datamesh.execute.executor import Executor
from datamesh.execute.local import LocalExecutor
from datamesh.model.cursor import StreamCursor
from datamesh.model.declare import task
from datamesh.model.flow import Flow
from datamesh.model.io import IO
from datamesh.model.policies import Backpressure, Quota, Retry, RetryLater
from datamesh.model.registry import DuplicateImplementationWarning
from datamesh.model.run import RunEvent, RunResult, RunState, RunStatus, StreamStatus, TaskStatus
from datamesh.model.secret import Secret
from datamesh.model.task import Task
from datamesh.model.values import IOVal
from datamesh.supervise.dead import DeadLetters
from datamesh.supervise.flow_run import FlowRun
from datamesh.supervise.letter import DeadLetter
from datamesh.supervise.redrive import Redrive
from datamesh.supervise.supervisor import Supervisor

__all__ = [
    "Backpressure",
    "ConfigurationError",
    "Context",
    "ContractMismatchError",
    "CyclicFlowError",
    "DataError",
    "DataLossError",
    "DatameshError",
    "DeadLetter",
    "DeadLetterError",
    "DeadLetters",
    "DefinitionError",
    "DependencyError",
    "Depends",
    "DuplicateIOError",
    "DuplicateImplementationWarning",
    "EmptyIOError",
    "Executor",
    "FloatingIOError",
    "Flow",
    "FlowCancelledError",
    "FlowRun",
    "FlowTimeoutError",
    "IO",
    "IOVal",
    "InvalidValueError",
    "LocalExecutor",
    "MismatchedIOError",
    "NonDeterministicReplayError",
    "NotDurableError",
    "PayloadTooLargeError",
    "ProtocolMismatchError",
    "Quota",
    "QuotaExceededError",
    "ReadOnlyIOError",
    "Redrive",
    "Retry",
    "RetryLater",
    "RunError",
    "RunEvent",
    "RunResult",
    "RunState",
    "RunStatus",
    "Secret",
    "ServiceBrokenError",
    "ServiceLostError",
    "StoreError",
    "StoreUnavailableError",
    "StreamCursor",
    "StreamStatus",
    "Supervisor",
    "TamperedDataError",
    "Task",
    "TaskFailedError",
    "TaskStatus",
    "UnequalLengthError",
    "UnknownInputError",
    "UnknownRunError",
    "UnresolvedFlowError",
    "UnserializableValueError",
    "task",
]
