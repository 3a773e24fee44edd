"""Failure: how a run or an invocation went wrong, as text that any process can read, print and raise again."""

from __future__ import annotations

import traceback
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Final

from datamesh.codec.limits import Limits
from datamesh.codec.wire import pack, unpack
from datamesh.errors import (
    DatameshError,
    FlowCancelledError,
    FlowTimeoutError,
    TamperedDataError,
    TaskFailedError,
)
from datamesh.model.redaction import printable, redacted_text

MAX_MESSAGE_BYTES: Final = 4096
MAX_TRACEBACK_BYTES: Final = 16_384
MAX_NAME_BYTES: Final = 256
MAX_FRAMES: Final = 50
_LIMITS: Final = Limits(max_bytes=65_536, max_depth=8)
_WHERE: Final = "a failure"
_CUT: Final = "[...]"
_NEWLINE: Final = "\n"
_SEARCHED: Final = 2**20
"""Characters of a text that are searched for secrets before it is cut: a cut must not leave a part of one."""


class FailureKind(StrEnum):
    """Why there is no result."""

    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is known of a failure. Every text is printable, without secrets, and cut to its limit.

    Attributes:
        kind: Why there is no result.
        task: Name of the task, empty if the run as a whole ended.
        attempt: Which execution it was, from 1; 0 if none.
        remote_type: Qualified name of the exception's class.
        message: On one line, at most 4 KiB.
        remote_traceback: At most 16 KiB of lines, the last ones; without the values of variables.
        run_id: The run.
        service: Name of the supervisor that ran it.
    """

    kind: FailureKind = FailureKind.FAILED
    task: str = ""
    attempt: int = 0
    remote_type: str = ""
    message: str = ""
    remote_traceback: str = ""
    run_id: str = ""
    service: str = ""

    def __post_init__(self) -> None:
        for name in ("task", "remote_type", "run_id", "service"):
            object.__setattr__(self, name, _name(getattr(self, name)))
        object.__setattr__(self, "kind", FailureKind(self.kind))
        object.__setattr__(self, "message", _head(self.message, MAX_MESSAGE_BYTES))
        object.__setattr__(self, "remote_traceback", _tail(self.remote_traceback, MAX_TRACEBACK_BYTES))

    @classmethod
    def of(cls, exc: BaseException, *, task: str, attempt: int, run_id: str = "", service: str = "") -> Failure:
        """Describe an exception, whatever its class does when it is asked for its text.

        One that tells of a failure elsewhere, as a task that waits for another run gets it, keeps that one's message
        and traceback in its own.
        """
        return cls(
            kind=_kind(exc),
            task=task,
            attempt=attempt,
            remote_type=_type_name(type(exc)),
            message=_message(exc),
            remote_traceback=_traceback(exc),
            run_id=run_id,
            service=service,
        )

    def pack(self) -> bytes:
        """Return its bytes."""
        return pack(asdict(self), where=_WHERE)

    @classmethod
    def unpack(cls, payload: bytes) -> Failure:
        """Read what `pack` wrote; fields that a later version added are left out.

        Raises:
            TamperedDataError: It is no failure.
        """
        facts = unpack(payload, _LIMITS, where=_WHERE)
        if not isinstance(facts, dict) or not facts.keys() >= {"kind", "message"}:
            raise TamperedDataError(where=_WHERE, problem="not a map with a kind and a message")
        known = {field.name: facts[field.name] for field in fields(cls) if field.name in facts}
        attempt = known.pop("attempt", 0)
        if type(attempt) is not int or attempt < 0 or any(type(text) is not str for text in known.values()):
            raise TamperedDataError(where=_WHERE, problem="a fact is of another type than it should be")
        return cls(**{**known, "kind": _kind_named(known["kind"])}, attempt=attempt)

    def error(self) -> DatameshError:
        """Return the error that a reader of the run's streams gets."""
        if self.kind is FailureKind.CANCELLED:
            return FlowCancelledError(run_id=self.run_id)
        if self.kind is FailureKind.TIMEOUT:
            return FlowTimeoutError(run_id=self.run_id)
        return TaskFailedError(
            task=self.task,
            attempt=self.attempt,
            remote_type=self.remote_type,
            message=self.message,
            remote_traceback=self.remote_traceback,
            run_id=self.run_id,
            service=self.service,
        )


def _kind(exc: BaseException) -> FailureKind:
    kind = type(exc)  # what it says of its class is code of its own
    if issubclass(kind, FlowCancelledError):
        return FailureKind.CANCELLED
    return FailureKind.TIMEOUT if issubclass(kind, FlowTimeoutError) else FailureKind.FAILED


def _kind_named(name: str) -> FailureKind:
    try:
        return FailureKind(name)
    except ValueError:  # a later version has more: it is a failure all the same
        return FailureKind.FAILED


# ----------------------------------------------------------------------------------------------------- text


def _type_name(kind: type[BaseException]) -> str:
    try:
        return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    except BaseException:  # a metaclass brings code of its own
        return "an exception whose class cannot be named"


def _message(exc: BaseException) -> str:
    try:
        return str.__str__(str(exc))  # of a subclass of str, its plain text
    except BaseException as broken:  # its own code: nothing that it raises may hide that it failed
        return f"(its text cannot be shown: str() raised {type(broken).__name__})"


def _traceback(exc: BaseException) -> str:
    try:
        # Negative: the frames next to the error.
        told = traceback.TracebackException(type(exc), exc, exc.__traceback__, limit=-MAX_FRAMES, capture_locals=False)
        lines = "".join(f"{_head(part.rstrip(), MAX_MESSAGE_BYTES, keep=_NEWLINE)}\n" for part in told.format())
    except BaseException as broken:  # notes, causes and groups may bring code of their own
        lines = f"(its traceback cannot be shown: {type(broken).__name__})\n"
    return f"{_elsewhere(exc)}{lines}"


def _elsewhere(exc: BaseException) -> str:
    """What an error that tells of a failure elsewhere has to say of that one."""
    if not issubclass(type(exc), TaskFailedError) or not isinstance(exc, TaskFailedError) or not exc.remote_traceback:
        return ""
    remote = _tail(str(exc.remote_traceback), MAX_TRACEBACK_BYTES // 2).rstrip()
    return f"{remote}\n\nThat was in task {exc.task!r}, and its failure was met here:\n\n"


def _name(text: str) -> str:
    # Not searched for secrets: a password that is a task's name would hide which task it was.
    encoded = printable(text[: MAX_NAME_BYTES + 1]).encode()
    return _shortened(encoded, MAX_NAME_BYTES)


def _head(text: str, limit_bytes: int, *, keep: str = "") -> str:
    # Cut before it is looked at, too: a text may be of any size, and no character takes less than a byte.
    clean = redacted_text(text[:_SEARCHED])
    encoded = printable(clean[: limit_bytes + 1], keep=keep).encode()
    return _shortened(encoded, limit_bytes)


def _shortened(encoded: bytes, limit_bytes: int) -> str:
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    return encoded[: limit_bytes - len(_CUT)].decode(errors="ignore") + _CUT


def _tail(text: str, limit_bytes: int) -> str:
    clean = redacted_text(text[-_SEARCHED:])
    encoded = printable(clean[-limit_bytes - 1 :], keep=_NEWLINE).encode()
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    return _CUT + encoded[len(_CUT) - limit_bytes :].decode(errors="ignore")
