"""Readers and writers of run streams: what an IO asks of the store."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from datamesh.codec.failure import Failure
from datamesh.codec.frame import decode_lineages, references
from datamesh.codec.values import ValueCodec
from datamesh.errors import (
    DatameshError,
    FlowCancelledError,
    FlowTimeoutError,
    QuotaExceededError,
    ReadOnlyIOError,
    StoreError,
    TamperedDataError,
    UnknownRunError,
)
from datamesh.model.cursor import entry_key
from datamesh.model.plan import Plan
from datamesh.model.reader import Chunk
from datamesh.store.frames import PLAIN, WITH_BLOBS, Entry, Frame, end_of, frame_of
from datamesh.store.protocol import ShardProtocol
from datamesh.store.room import Room
from datamesh.store.seals import Place, Seals
from datamesh.store.tails import Tails

_FRAMES_A_CALL = 200
_BYTES_A_CALL = 1 << 20
_FIRST_PAUSE = 0.05
_QUOTA = b"quota "
"""What a failure begins with that the scripts give; those of functions are packed, and begin with another byte."""


async def fetch_blobs(protocol: ShardProtocol, run_id: str, frame: Frame) -> Mapping[str, bytes]:
    """Read the large values that a frame refers to.

    Raises:
        TamperedDataError: One of them is not there.
    """
    if WITH_BLOBS not in frame.flags:
        return {}
    digests = list(dict.fromkeys(reference.digest for reference in references(frame.values)))
    if not digests:
        return {}  # It is a part of a frame, and those with large values went elsewhere.
    bodies = await protocol.command("HMGET", protocol.keys.blobs(run_id), *digests)
    missing = [digest for digest, body in zip(digests, bodies, strict=True) if body is None]
    if missing:
        raise TamperedDataError(where=f"run {run_id!r}", problem=f"the large value {missing[0][:12]}... is gone")
    return dict(zip(digests, bodies, strict=True))


class Signatures:
    """What the frames of one run are signed with and for; found out from the store where it is not known.

    Args:
        protocol: Of the shard.
        seals: Of the mesh.
        run_id: Of the run.
        plan: Of the run.
        place: The run as frames are signed for it, if that is known.
    """

    def __init__(
        self, protocol: ShardProtocol, seals: Seals, run_id: str, plan: Plan, place: Place | None = None
    ) -> None:  # fmt: skip
        self._protocol = protocol
        self._seals = seals
        self._run_id = run_id
        self._plan = plan
        self._place = place

    async def opened(self, stream: int, frame: Frame) -> Frame:
        """Check a frame and take its signature off.

        Raises:
            TamperedDataError: It was not written for this place by a service of this mesh.
        """
        return self._seals.opened(await self._find(), stream, frame) if self._seals.is_on else frame

    async def sealed(self, stream: int, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Sign frames; the run must not wait for its tasks any more."""
        return self._seals.frames(await self._find(), stream, frames) if self._seals.is_on else frames

    async def _find(self) -> Place:
        pause = _FIRST_PAUSE
        while self._place is None:
            digest, origin, state = await self._protocol.command(
                "HMGET", self._protocol.keys.run(self._run_id), "plan", "origin", "state"
            )
            if state is None:
                raise UnknownRunError(run_id=self._run_id)
            if digest is not None:
                self._place = Place(self._run_id, origin.decode(), digest.decode(), self._plan)
            elif state != b"waiting":
                raise TamperedDataError(where=f"run {self._run_id!r}", problem="it ended before it had a plan")
            else:
                # The run starts when somebody announces its tasks; that may take days.
                await asyncio.sleep(pause)
                pause = min(2 * pause, 1.0)
        return self._place


class StreamReader:
    """Reads one stream of one run."""

    def __init__(
        self, protocol: ShardProtocol, tails: Tails, signatures: Signatures, run_id: str, index: int, codec: ValueCodec
    ) -> None:  # fmt: skip
        self._protocol = protocol
        self._tails = tails
        self._signatures = signatures
        self._run_id = run_id
        self._index = index
        self._key = protocol.keys.stream(run_id, index)
        self._codec = codec
        self._end: Entry | None = None
        self._met: set[str] = {"0"}

    async def read(self, after: str) -> Sequence[Chunk]:
        if after not in self._met and self._end is None:
            await self._meet(after)
        if self._end is not None and entry_key(after) >= entry_key(self._end.entry_id):
            return self._ended(self._end)
        entries = await self._tails.read(self._key, after, run_key=self._protocol.keys.run(self._run_id))
        if end_of(entries[-1]):
            self._end = entries[-1]
        chunks = [await self._chunk(entry, frame) for entry in entries if (frame := frame_of(entry)).count]
        return chunks or self._ended(entries[-1])

    async def last(self) -> Chunk | None:
        for entry in await self._tails.newest(self._key, 2):
            if (frame := frame_of(entry)).count:
                return await self._chunk(entry, frame)
        return None

    async def is_complete(self) -> bool:
        state, producers = await self._protocol.command(
            "HMGET", self._protocol.keys.run(self._run_id), "state", f"c:{self._index}"
        )
        if state is None:
            raise UnknownRunError(run_id=self._run_id)
        return state not in (b"open", b"waiting") or (producers is not None and int(producers) <= 0)

    async def _meet(self, after: str) -> None:
        """A reader that resumes may stand behind the last entry; then nothing would ever come."""
        self._met = {"0", after}
        newest = await self._tails.newest(self._key)
        if newest and end_of(newest[0]):
            self._end = newest[0]

    async def _chunk(self, entry: Entry, frame: Frame) -> Chunk:
        self._met.add(entry.entry_id)
        frame = await self._signatures.opened(self._index, frame)
        blobs = await fetch_blobs(self._protocol, self._run_id, frame)
        return Chunk(entry.entry_id, self._codec.values(frame.values, blobs), lambda: decode_lineages(frame.lineages))

    def _ended(self, entry: Entry) -> Sequence[Chunk]:
        error = run_error(self._run_id, end_of(entry), entry.fields.get(b"x", b""))
        if error is not None:
            raise error
        return ()


def run_error(run_id: str, state: str, failure: bytes) -> DatameshError | None:
    """The error that readers of a run get; None if it ended well."""
    match state:
        case "done":
            return None
        case "cancelled":
            return FlowCancelledError(run_id=run_id)
        case "timeout":
            return FlowTimeoutError(run_id=run_id)
        case _ if failure.startswith(_QUOTA):
            quota, limit, found = failure.removeprefix(_QUOTA).decode().split(" ")
            return QuotaExceededError(run_id=run_id, quota=quota, limit=int(limit), found=int(found))
        case _:
            return Failure.unpack(failure).error()


class InputWriter:
    """Writes an input of a run that was left open. What is written while a call is under way goes with the next."""

    def __init__(
        self, protocol: ShardProtocol, room: Room, signatures: Signatures, run_id: str, name: str, index: int,
        codec: ValueCodec,
    ) -> None:  # fmt: skip
        self._protocol = protocol
        self._room = room
        self._signatures = signatures
        self._run_id = run_id
        self._name = name
        self._index = index
        self._codec = codec
        self._writer = secrets.token_hex(6)
        self._origin = ""
        self._unfinished: tuple[Sequence[Frame], bool] | None = None
        """A call whose outcome is not known, because the store did not answer in time."""
        self._number = 0
        self._lock = asyncio.Lock()

    async def write(self, values: Sequence[Any]) -> None:
        frames = []
        for encoded in self._codec.frames(values):
            if encoded.blobs:
                await self._protocol.put_blobs(self._run_id, {blob.digest: blob.body for blob in encoded.blobs})
            frames.append(Frame(encoded.count, WITH_BLOBS if encoded.blobs else PLAIN, b"", encoded.payload))
        sealed = await self._signatures.sealed(self._index, frames)
        for start, stop in parts(sealed):
            await self._push(sealed[start:stop])

    async def complete(self) -> None:
        await self._push([], close=True)

    async def _push(self, frames: Sequence[Frame], *, close: bool = False) -> None:
        async with self._lock:
            if self._unfinished not in (None, (frames, close)):
                # Nobody knows whether it was written; under its own number it is so once.
                await self._send(*self._unfinished)
            status = await self._send(frames, close)
        if status in ("OK", "ALREADY") or close:
            return
        if status == "GONE":
            await self._raise_quota()
        reason = "it is complete" if status == "CLOSED" else "the run is over"
        raise ReadOnlyIOError(stream=self._name, reason=reason)

    async def _send(self, frames: Sequence[Frame], close: bool) -> str:
        """Make a call, or repeat the one whose outcome is not known."""
        if self._unfinished is None:
            self._number += 1
        self._unfinished = (frames, close)
        pause = _FIRST_PAUSE
        while True:
            try:
                pushed = await self._protocol.push(
                    self._run_id, self._index, writer=self._writer, number=self._number, frames=frames, close=close,
                    origin=self._origin,
                )  # fmt: skip
            except StoreError:
                raise
            except BaseException:
                self._unfinished = None
                raise
            self._origin = pushed.origin
            if pushed.status != "WAITING":
                break
            # The run starts when somebody announces its tasks; that may take days.
            await asyncio.sleep(pause)
            pause = min(2 * pause, 1.0)
        self._unfinished = None
        if pushed.is_full and not close:
            await self._room.wait(self._run_id)
        return pushed.status

    async def _raise_quota(self) -> None:
        failure = await self._protocol.command("HGET", self._protocol.keys.run(self._run_id), "failure")
        error = run_error(self._run_id, "failed", failure) if (failure or b"").startswith(_QUOTA) else None
        if error is not None:
            raise error


def parts(frames: Sequence[Frame]) -> list[tuple[int, int]]:
    """Cut frames into calls of bounded size: pairs of first and behind the last."""
    cuts, start, size = [], 0, 0
    for index, frame in enumerate(frames):
        size += len(frame.values) + len(frame.lineages)
        if index > start and (size > _BYTES_A_CALL or index - start >= _FRAMES_A_CALL):
            cuts.append((start, index))
            start, size = index, len(frame.values) + len(frame.lineages)
    if start < len(frames):
        cuts.append((start, len(frames)))
    return cuts
