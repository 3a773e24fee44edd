"""datamesh: a decentralized async task mesh over Redis streams."""

from datamesh.depends.context import Context
from datamesh.depends.markers import Depends
from datamesh.errors import (
    ConfigurationError,
    ContractMismatchError,
    CyclicFlowError,
    DataError,
    DatameshError,
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
    PayloadTooLargeError,
    ProtocolMismatchError,
    ReadOnlyIOError,
    RunError,
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
from datamesh.model.policies import Retry
from datamesh.model.registry import DuplicateImplementationWarning
from datamesh.model.run import RunEvent, RunState, RunStatus, StreamStatus, TaskStatus
from datamesh.model.task import Task
from datamesh.model.values import IOVal
from datamesh.supervise.flow_run import FlowRun
from datamesh.supervise.supervisor import Supervisor

__all__ = [
    "ConfigurationError",
    "Context",
    "ContractMismatchError",
    "CyclicFlowError",
    "DataError",
    "DatameshError",
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
    "PayloadTooLargeError",
    "ProtocolMismatchError",
    "ReadOnlyIOError",
    "Retry",
    "RunError",
    "RunEvent",
    "RunState",
    "RunStatus",
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
