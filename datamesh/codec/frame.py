"""Frame: 1 to 256 values of one stream, as one msgpack array, and the block that tells where each of them came from.

A lineages block is an array of segments `[*prefix, start, count]`: consecutive siblings, which is what fan-out and
one-to-one tasks give, take a few bytes together. `[count]` stands for values whose lineage is empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, cast

import msgpack

from datamesh.codec.blob import Blob, BlobRef
from datamesh.codec.limits import INLINE_LIMIT_BYTES, MAX_FRAME_VALUES, Limits
from datamesh.codec.wire import REF_PREFIX, unpack
from datamesh.errors import ConfigurationError, TamperedDataError

Lineage = tuple[int, ...]

MAX_LINEAGE_STEPS: Final = 256
_MAX_STEP: Final = 2**63 - 1
_INTEGERS: Final = frozenset({int})
_HEADER_BYTES: Final = 3
_BLOCK_LIMITS: Final = Limits(max_bytes=INLINE_LIMIT_BYTES, max_depth=None)
_LINEAGES: Final = "lineages of a frame"
_VALUES: Final = "values of a frame"


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """A frame ready to be sent.

    Attributes:
        start: Place of its first value among those that were encoded together.
        count: How many values it carries, 1 to 256.
        payload: The values block, at most 64 KiB.
        blobs: What the references in `payload` stand for; to be stored before the frame is.
    """

    start: int
    count: int
    payload: bytes
    blobs: tuple[Blob, ...] = ()


# ---------------------------------------------------------------------------------------------- values block


def array_of(parts: Sequence[bytes]) -> bytes:
    """Return the values block of values that are packed already, or stand as references."""
    count = len(parts)
    header = bytes((0x90 | count,)) if count < 16 else b"\xdc" + count.to_bytes(2, "big")
    return header + b"".join(parts)


def fits_inline(size_bytes: int) -> bool:
    """Tell whether a packed value of this size travels in a frame; if not, it goes by reference."""
    return size_bytes <= INLINE_LIMIT_BYTES - _HEADER_BYTES


def slice_payload(payload: bytes, keep: Sequence[int]) -> bytes:
    """Return a values block of the values at the places `keep`, byte for byte as they stand in `payload`.

    Raises:
        TamperedDataError: `payload` is no values block, or has no value at one of the places.
    """
    parts = parts_of(payload)
    if any(not 0 <= index < len(parts) for index in keep):
        raise TamperedDataError(where=_VALUES, problem=f"there are {len(parts)}, but not all of {list(keep)[:20]}")
    return array_of([parts[index] for index in keep])


def parts_of(payload: bytes) -> list[bytes]:
    """Return the values of a values block as they stand there, still packed or as references.

    Raises:
        TamperedDataError: `payload` is no values block.
    """
    return [payload[start:end] for start, end in _ranges(payload)]


def references(payload: bytes) -> list[BlobRef]:
    """Return the references in a values block, in order; the values themselves are not parsed.

    Raises:
        TamperedDataError: It is no values block.
    """
    if REF_PREFIX not in payload:
        return []
    header = len(REF_PREFIX)
    return [
        BlobRef.unpack(payload[start + header : end])
        for start, end in _ranges(payload)
        if payload.startswith(REF_PREFIX, start)
    ]


def _ranges(payload: bytes) -> Iterator[tuple[int, int]]:
    if len(payload) > INLINE_LIMIT_BYTES:
        raise TamperedDataError(where=_VALUES, problem=f"{len(payload)} bytes are over {INLINE_LIMIT_BYTES}")
    unpacker = msgpack.Unpacker(max_buffer_size=INLINE_LIMIT_BYTES)
    unpacker.feed(payload)
    try:
        count = unpacker.read_array_header()
        if not 1 <= count <= MAX_FRAME_VALUES:
            raise ValueError(f"a frame has no {count} values")
        for _ in range(count):
            start = unpacker.tell()
            unpacker.skip()
            yield start, unpacker.tell()
    except (ValueError, msgpack.UnpackException) as exc:
        raise TamperedDataError(where=_VALUES, problem=f"not a values block: {exc}") from exc
    if unpacker.tell() != len(payload):
        raise TamperedDataError(where=_VALUES, problem="there are bytes after the last value")


# ------------------------------------------------------------------------------------------------- lineages


def span(prefix: Lineage, start: int, count: int) -> bytes:
    """Return the lineages block of `count` siblings: `(*prefix, start)`, `(*prefix, start + 1)` and so on.

    Raises:
        ConfigurationError: A path is too long, or a step no natural number below 2**63.
    """
    return _block([[*prefix, start, count]])


def encode_lineages(lineages: Sequence[Lineage]) -> bytes:
    """Return the lineages block of a frame's values, in their order.

    Raises:
        ConfigurationError: A path is too long, or a step no natural number below 2**63.
    """
    if len(lineages) > 1 and (segment := _whole_segment(lineages)):
        return _block([segment])
    segments: list[list[int]] = []
    parent: Lineage | None = None
    following = -1
    for lineage in lineages:
        prefix, last = lineage[:-1], lineage[-1] if lineage else 0
        if prefix == parent and last == following and len(lineage) == len(segments[-1]) - 1:
            segments[-1][-1] += 1
        else:
            segments.append([*lineage, 1])
        parent, following = prefix, last + 1 if lineage else 0
    return _block(segments)


def _whole_segment(lineages: Sequence[Lineage]) -> list[int] | None:
    first, last, count = lineages[0], lineages[-1], len(lineages)
    if len(first) != len(last) or not first or last[-1] - first[-1] != count - 1:
        return None
    segment = [*first, count]
    return segment if _siblings(segment) == list(lineages) else None


def _block(segments: list[list[int]]) -> bytes:
    for segment in segments:
        if len(segment) > MAX_LINEAGE_STEPS + 1:
            raise ConfigurationError(f"a value went through more than {MAX_LINEAGE_STEPS} fan-outs: flatten the flow")
        if min(segment) < 0 or sum(segment[-2:]) > _MAX_STEP:
            raise ConfigurationError(f"{segment[:-1]} is no lineage: its steps are natural numbers below 2**63")
    return cast(bytes, msgpack.packb(segments))


def decode_lineages(block: bytes, *, limit: int = MAX_FRAME_VALUES) -> list[Lineage]:
    """Return the lineage of each value of a frame.

    Raises:
        TamperedDataError: It is no lineages block, or tells of more than `limit` values.
    """
    segments = unpack(block, _BLOCK_LIMITS, where=_LINEAGES)
    if not isinstance(segments, list) or not all(map(_is_segment, segments)):
        raise TamperedDataError(where=_LINEAGES, problem="not an array of segments")
    if sum(segment[-1] for segment in segments) > limit:
        raise TamperedDataError(where=_LINEAGES, problem=f"they tell of more than {limit} values")
    if len(segments) == 1:
        return _siblings(segments[0])
    return [lineage for segment in segments for lineage in _siblings(segment)]


def _is_segment(segment: Any) -> bool:
    return (
        isinstance(segment, list)
        and 1 <= len(segment) <= MAX_LINEAGE_STEPS + 1
        and _INTEGERS.issuperset(map(type, segment))
        and 0 <= min(segment) <= max(segment) <= _MAX_STEP
        and 1 <= segment[-1] <= sum(segment[-2:]) <= _MAX_STEP
    )


def _siblings(segment: list[int]) -> list[Lineage]:
    *path, count = segment
    if not path:
        return [()] * count
    if count == 1:
        return [tuple(path)]
    *prefix, start = path
    return list(zip(*map(repeat, prefix), range(start, start + count), strict=False))
