"""Emitter: the values that one generator has yielded, on their way out.

What a generator published before a crash is not published again: its next attempt repeats it, and the first values are
only compared, by a hash over their bytes, with what was published. The hash runs over values as they travel, without
the boundaries of frames, which differ from attempt to attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from datamesh.codec.blob import Blob
from datamesh.codec.frame import EncodedFrame, span
from datamesh.codec.values import ValueCodec
from datamesh.errors import DatameshError, NonDeterministicReplayError
from datamesh.store.frames import PLAIN, WITH_BLOBS, Frame

Mark = Mapping[str, tuple[int, str]]
"""By output: how many values were published, and the hash over them."""


class _Line:
    """The values for one output."""

    __slots__ = ("hash", "pending", "replayed", "sent", "target")

    def __init__(self, published: tuple[int, str]) -> None:
        self.pending: list[Any] = []
        self.sent = 0
        self.hash = hashlib.blake2b(digest_size=12)
        self.replayed, self.target = published


class Emitter:
    """Collects what one invocation yields and encodes it when it is sent.

    Args:
        task: Name, for errors.
        lineage: Of the value that the invocation is for; empty for a whole stream.
        codecs: By output.
        mark: What an earlier attempt had published.
    """

    def __init__(
        self, task: str, lineage: tuple[int, ...], codecs: Mapping[str, ValueCodec], mark: Mark | None = None
    ) -> None:
        self._task = task
        self._lineage = lineage
        self._codecs = codecs
        self._mark = mark or {}
        self._lines: dict[str, _Line] = {name: _Line(published) for name, published in self._mark.items()}
        self.count = 0
        """Values that wait to be sent."""
        self.has_sent = bool(self._mark)
        """Whether some of the values are published already, so that a repetition must be compared."""
        self.error: DatameshError | None = None
        """Why the generator cannot go on; to be raised to it."""

    def add(self, output: str, value: Any) -> None:
        line = self._lines.get(output)
        if line is None:
            line = self._lines[output] = _Line((0, ""))
        line.pending.append(value)
        self.count += 1

    def pairs(self) -> list[tuple[str, int, Any]]:
        """Give out everything as (output, place, value), to travel together with other invocations' values."""
        return [(name, place, value) for name, line in self._lines.items() for place, value in enumerate(line.pending)]

    def drain(self, keep: Callable[[Blob], None]) -> list[tuple[str, Frame]]:
        """Encode everything that waits, in frames of this invocation alone.

        A value that cannot be sent, or differs from what was published before, sets `error`; what precedes it is sent.

        Args:
            keep: Is given each large value that a frame refers to.
        """
        frames: list[tuple[str, Frame]] = []
        for name, line in self._lines.items():
            values, line.pending = line.pending, []
            old = values[: max(0, line.replayed - line.sent)]
            if old:
                self._encode(name, line, old)
            if line.sent == line.replayed and old and line.hash.hexdigest() != line.target:
                self.error = NonDeterministicReplayError(task=self._task, published=line.replayed)
            if self.error is not None:
                continue
            for first, frame in self._encode(name, line, values[len(old) :]):
                for blob in frame.blobs:
                    keep(blob)
                flags = WITH_BLOBS if frame.blobs else PLAIN
                frames.append((name, Frame(frame.count, flags, span(self._lineage, first, frame.count), frame.payload)))
        self.count = 0
        self.has_sent = self.has_sent or bool(frames)
        return frames

    def check_end(self) -> None:
        """The generator has ended: it must have repeated all that was published.

        Raises:
            NonDeterministicReplayError: It gave fewer values.
        """
        for line in self._lines.values():
            if line.sent + len(line.pending) < line.replayed:
                raise NonDeterministicReplayError(task=self._task, published=line.replayed)

    def mark(self) -> dict[str, tuple[int, str]]:
        """What is published once the frames drained so far are; a repetition that lags behind keeps its old mark."""
        return {
            name: (line.sent, line.hash.hexdigest()) if line.sent >= line.replayed else (line.replayed, line.target)
            for name, line in self._lines.items()
            if line.sent or line.replayed
        }

    def _encode(self, name: str, line: _Line, values: list[Any]) -> list[tuple[int, EncodedFrame]]:
        encoded = []
        for frame in self._sendable(name, values):
            encoded.append((line.sent, frame))
            line.sent += frame.count
            line.hash.update(_body(frame))
        return encoded

    def _sendable(self, name: str, values: list[Any]) -> list[EncodedFrame]:
        codec = self._codecs[name]
        try:
            return codec.frames(values)
        except DatameshError as error:
            self.error = error
        for index, value in enumerate(values):
            try:
                codec.frames([value])
            except DatameshError:
                return codec.frames(values[:index])
        return []


def _body(frame: EncodedFrame) -> memoryview:
    """The values of a frame without the header of the array around them, which tells their number."""
    return memoryview(frame.payload)[1 if frame.count < 16 else 3 :]
