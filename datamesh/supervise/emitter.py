"""Emitter: the values that one invocation has yielded, on their way out, and its last checkpoint.

What a generator published before a crash is not published again: its next attempt repeats it, and the first values are
only compared, by a hash over their bytes, with what was published. The hash runs over values as they travel, without
the boundaries of frames, which differ from attempt to attempt. After a checkpoint the next attempt begins there, so the
hash begins anew.
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
from datamesh.supervise.marked import Emitted, Line

_NOTHING = Line(0, "")


class _Line:
    """The values for one output."""

    __slots__ = ("hash", "pending", "replayed", "sent", "start", "target")

    def __init__(self, published: Line) -> None:
        self.pending: list[Any] = []
        self.sent = self.start = published.start
        self.hash = hashlib.blake2b(digest_size=12)
        self.replayed, self.target = published.sent, published.digest

    @property
    def is_behind(self) -> bool:
        """Whether some of what was published before is not repeated yet."""
        return self.sent + len(self.pending) < self.replayed

    def mark(self) -> Line:
        """What is published; a repetition that lags behind keeps its old mark."""
        if self.sent < self.replayed:
            return Line(self.replayed, self.target, self.start)
        return Line(self.sent, self.hash.hexdigest(), self.start)


class Emitter:
    """Collects what one invocation yields and encodes it when it is sent.

    Args:
        task: Name, for errors.
        lineage: Of the value that the invocation is for; empty for a whole stream.
        codecs: By output.
        earlier: How far an earlier attempt came.
    """

    def __init__(
        self, task: str, lineage: tuple[int, ...], codecs: Mapping[str, ValueCodec], earlier: Emitted | None = None
    ) -> None:
        self._task = task
        self._lineage = lineage
        self._codecs = codecs
        earlier = earlier or Emitted()
        self._lines: dict[str, _Line] = {name: _Line(published) for name, published in earlier.lines.items()}
        self._is_cut = False
        self.state = earlier.state
        """What was given to the last checkpoint, encoded."""
        self.count = 0
        """Values that wait to be sent."""
        self.given = sum(line.start for line in self._lines.values())
        """Values in all, those of earlier attempts that are not repeated included."""
        self.has_sent = bool(earlier.lines) or earlier.state is not None
        """Whether a successor has to know of it: something is published already, or there is a checkpoint."""
        self.error: DatameshError | None = None
        """Why the generator cannot go on; to be raised to it."""

    def add(self, output: str, value: Any) -> None:
        line = self._lines.get(output)
        if line is None:
            line = self._lines[output] = _Line(_NOTHING)
        line.pending.append(value)
        self.count += 1
        self.given += 1

    def checkpoint(self, state: bytes) -> bool:
        """Have the next attempt begin here, with `state`, once what is drained now is published.

        Returns:
            False if it repeats what was published before and is not through with that: then there is nothing to keep.
        """
        if any(line.is_behind for line in self._lines.values()):
            return False
        self.state, self._is_cut, self.has_sent = state, True, True
        return True

    @property
    def is_dirty(self) -> bool:
        """Whether there is something to send."""
        return self.count > 0 or self._is_cut

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
            frames += self._drain(name, line, keep)
        self.count = 0
        self.has_sent = self.has_sent or bool(frames)
        if self._is_cut and self.error is None:
            for line in self._lines.values():
                line.start, line.hash = line.sent, hashlib.blake2b(digest_size=12)
        self._is_cut = False
        return frames

    def _drain(self, name: str, line: _Line, keep: Callable[[Blob], None]) -> list[tuple[str, Frame]]:
        values, line.pending = line.pending, []
        old = values[: max(0, line.replayed - line.sent)]
        if old:
            self._encode(name, line, old)
        if line.sent == line.replayed and old and line.hash.hexdigest() != line.target:
            self.error = NonDeterministicReplayError(task=self._task, published=line.replayed)
        if self.error is not None:
            return []
        frames = []
        for first, frame in self._encode(name, line, values[len(old) :]):
            for blob in frame.blobs:
                keep(blob)
            flags = WITH_BLOBS if frame.blobs else PLAIN
            frames.append((name, Frame(frame.count, flags, span(self._lineage, first, frame.count), frame.payload)))
        return frames

    def check_end(self) -> None:
        """The generator has ended: it must have repeated all that was published.

        Raises:
            NonDeterministicReplayError: It gave fewer values, or others.
            DatameshError: What it yielded cannot be sent.
        """
        if self.error is not None:
            raise self.error
        for line in self._lines.values():
            if line.is_behind:
                raise NonDeterministicReplayError(task=self._task, published=line.replayed)

    def mark(self) -> Emitted:
        """How far it has come once the frames drained so far are published."""
        lines = {name: line.mark() for name, line in self._lines.items() if line.sent or line.replayed}
        return Emitted(lines, self.state)

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
