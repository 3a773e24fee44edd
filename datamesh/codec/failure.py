"""Failure: how a run or an invocation went wrong, as text that any process can read, print and raise again."""

from __future__ import annotations

import re
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

MAX_MESSAGE_BYTES: Final = 4096
MAX_TRACEBACK_BYTES: Final = 16_384
MAX_NAME_BYTES: Final = 256
MAX_FRAMES: Final = 50
_LIMITS: Final = Limits(max_bytes=65_536, max_depth=8)
_WHERE: Final = "a failure"
_CUT: Final = "[...]"
_NEWLINE: Final = "\n"

# Control characters move a terminal's cursor, direction marks and line separators make text read as what it is not,
# and lone surrogates are no text at all.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class FailureKind(StrEnum):
    """Why there is no result."""

    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is known of a failure. Every text is printable, and cut to its limit.

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
            object.__setattr__(self, name, _head(getattr(self, name), MAX_NAME_BYTES))
        object.__setattr__(self, "kind", FailureKind(self.kind))
        object.__setattr__(self, "message", _head(self.message, MAX_MESSAGE_BYTES))
        object.__setattr__(self, "remote_traceback", _tail(self.remote_traceback, MAX_TRACEBACK_BYTES))

    @classmethod
    def of(cls, exc: BaseException, *, task: str, attempt: int, run_id: str = "", service: str = "") -> Failure:
        """Describe an exception, whatever its class does when it is asked for its text.

        One that tells of a failure elsewhere, as a task that waits for another run gets it, keeps that one's message
        and traceback in its own.
        """
        kind = type(exc)
        prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
        return cls(
            kind=_kind(exc),
            task=task,
            attempt=attempt,
            remote_type=f"{prefix}{kind.__qualname__}",
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
    if isinstance(exc, FlowCancelledError):
        return FailureKind.CANCELLED
    return FailureKind.TIMEOUT if isinstance(exc, FlowTimeoutError) else FailureKind.FAILED


def _kind_named(name: str) -> FailureKind:
    try:
        return FailureKind(name)
    except ValueError:  # a later version has more: it is a failure all the same
        return FailureKind.FAILED


# ----------------------------------------------------------------------------------------------------- text


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
    except Exception as broken:  # notes, causes and groups may bring code of their own
        lines = f"(its traceback cannot be shown: {type(broken).__name__})\n"
    if isinstance(exc, TaskFailedError) and exc.remote_traceback:
        remote = _tail(str(exc.remote_traceback), MAX_TRACEBACK_BYTES // 2)
        return f"{remote.rstrip()}\n\nThat was in task {exc.task!r}, and its failure was met here:\n\n{lines}"
    return lines


def _printable(text: str, keep: str) -> str:
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _head(text: str, limit_bytes: int, *, keep: str = "") -> str:
    # Cut before it is searched, too: a text may be of any size, and no character takes less than a byte.
    encoded = _printable(text[: limit_bytes + 1], keep).encode()
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    return encoded[: limit_bytes - len(_CUT)].decode(errors="ignore") + _CUT


def _tail(text: str, limit_bytes: int) -> str:
    encoded = _printable(text[-limit_bytes - 1 :], _NEWLINE).encode()
    if len(encoded) <= limit_bytes:
        return encoded.decode()
    return _CUT + encoded[len(_CUT) - limit_bytes :].decode(errors="ignore")
