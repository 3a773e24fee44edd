"""ChildWire: what a service and the child process in which a suspect value runs tell each other.

A message is eight bytes of length and a msgpack object. The service sends an `Opening`, then a `Call` for each value.
The child answers with arrays that begin with a `Word`. Values in either are frames of the codec.
"""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

import msgpack

_LENGTH: Final = struct.Struct(">Q")
_CHUNK_BYTES: Final = 1 << 20


class Word(StrEnum):
    """What the child tells."""

    READY = "ready"
    """The implementation was found."""
    ABSENT = "absent"
    """It was not, and why: a failure."""
    BEGUN = "begun"
    """The function is called now; what it depends on is there."""
    GIVEN = "given"
    """Values that it gave: output, payload, blobs."""
    FINISHED = "finished"
    """It has come to its end."""
    RAISED = "raised"
    """It has not: failure, milliseconds until it may be repeated, seconds that it asked for with `RetryLater`."""
    LOGGED = "logged"
    """A record of a log: logger, level, text, extra."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What a child is for.

    Attributes:
        module: To import.
        function: As `describe` names it; another one under the same ref is refused.
        ref: Of the task.
        arguments: `sys.argv` of the service, for modules that look at it.
        max_value_bytes: Largest value that may be sent.
        service: Name of the service, for failures.
        level: From which level on logs are of interest.
    """

    module: str
    function: str
    ref: str
    arguments: Sequence[str]
    max_value_bytes: int
    service: str
    level: int


@dataclass(frozen=True, slots=True)
class Call:
    """One value to be run.

    Attributes:
        payload: A values block with one value.
        blobs: What a reference in it stands for.
        run_id: Of the run.
        task: Name of the task in the flow.
        attempt: Number of the execution.
        delivery_id: Entry of the work stream that brought it.
    """

    payload: bytes
    blobs: Mapping[str, bytes]
    run_id: str
    task: str
    attempt: int
    delivery_id: str


def packed(message: Opening | Call | Sequence[Any] | None) -> bytes:
    """Return the bytes of a message; None stands for the end."""
    plain = asdict(message) if isinstance(message, Opening | Call) else message
    body = bytes(msgpack.packb(plain))
    return _LENGTH.pack(len(body)) + body


async def read(reader: asyncio.StreamReader) -> Any:
    """Return the next message.

    Raises:
        EOFError: There is none, or only a part of one.
        OSError: The connection was lost.
    """
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    return msgpack.unpackb(await reader.readexactly(length))


def receive(descriptor: int) -> Any:
    """Wait for the next message on a file descriptor, and return it.

    Raises:
        EOFError: There is none, or only a part of one.
        OSError: The connection was lost.
    """
    (length,) = _LENGTH.unpack(_exactly(descriptor, _LENGTH.size))
    return msgpack.unpackb(_exactly(descriptor, length))


def send(descriptor: int, message: bytes) -> None:
    """Write all of a packed message to a file descriptor.

    Raises:
        OSError: The connection was lost.
    """
    rest = memoryview(message)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _exactly(descriptor: int, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        chunk = os.read(descriptor, min(length - len(found), _CHUNK_BYTES))
        if not chunk:
            raise EOFError("the other side is gone")
        found += chunk
    return bytes(found)
