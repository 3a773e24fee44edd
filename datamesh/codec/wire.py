"""The wire: objects to msgpack and back, with nothing in the bytes that a reader would have to trust.

A float may be `nan` or infinite, and keys of a map may be anything hashable. Bytes that were cut, made up or grown by
a stranger end in `TamperedDataError` before they take more memory or stack than the limits allow.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

import msgpack

from datamesh.codec import arrays
from datamesh.codec.arrays import RawArray, Unsendable
from datamesh.codec.blob import REF_BODY_BYTES, BlobRef
from datamesh.codec.ext import BUILDERS, MARK_PREFIX, MARKS, Ext, Lower, Mark, plain_lowering, raised
from datamesh.codec.limits import DEFAULT_LIMITS, MAX_FRAME_VALUES, Limits, shape_problem
from datamesh.errors import DatameshError, TamperedDataError, UnserializableValueError

_EXT32: Final = 0xC9
_UNNESTED: Final = frozenset({0xC6, 0xDB})  # bin and str with a 32-bit length
_UNSKIMMED_BYTES: Final = 1024
_PROBLEM_CHARACTERS: Final = 200
_QUOTED: Final = re.compile("(['\"]).*(?:\\1|$)", re.DOTALL)


# ---------------------------------------------------------------------------------------------------- write


def pack(value: Any, *, where: str = "value", lowering: Lower = plain_lowering) -> bytes:
    """Return the bytes of one object; equal objects that were built alike give equal bytes in every process.

    Args:
        value: Any object that msgpack or the table in `datamesh.codec.ext` has a form for.
        where: Which value it is, for the error.
        lowering: Turns other objects into such.

    Raises:
        UnserializableValueError: It has no form on the wire, is nested too deep, or contains itself.
    """
    try:
        if (array := _array(value)) is not None:
            return _standalone(*array)
        return cast(bytes, msgpack.Packer(strict_types=True, default=lowering).pack(value))
    except Unsendable as exc:
        raise UnserializableValueError(where=where, type_name=_name(exc.kind), problem=exc.problem) from None
    except Exception as exc:  # objects bring code of their own, and msgpack has an error of its own for every bound
        raise UnserializableValueError(where=where, type_name=_name(type(value)), problem=_shown(exc)) from exc


def pack_ref(ref: BlobRef) -> bytes:
    """Return what stands in a frame for a value that is a blob."""
    return cast(bytes, msgpack.packb(msgpack.ExtType(Ext.BLOB_REF, ref.pack())))


REF_PREFIX: Final = bytes((0xC7, REF_BODY_BYTES, Ext.BLOB_REF))
"""How every reference to a blob begins; bytes without it hold none."""


def _array(value: Any) -> tuple[Ext, RawArray] | None:
    match type(value).__name__, type(value).__module__:
        case (("ndarray" | "memmap"), "numpy"):
            return Ext.NDARRAY, arrays.from_numpy(value)
        case "Tensor", "torch":
            return Ext.TENSOR, arrays.from_torch(value)
    return None


def _standalone(code: Ext, array: RawArray) -> bytes:
    # An array that is the whole value is copied once; the packer would copy it three times.
    head = array.head(arrays.STANDALONE_HEADER_BYTES)
    size = len(head) + len(array.buffer)
    return b"".join((bytes((_EXT32,)), size.to_bytes(4, "big"), bytes((code,)), head, array.buffer))


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _told(exc: Exception) -> str:
    return _QUOTED.sub(r"\1...\1", _shown(exc))


def _shown(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}"[:_PROBLEM_CHARACTERS].removesuffix(": ")


# ----------------------------------------------------------------------------------------------------- read


def unpack(payload: bytes | memoryview, limits: Limits = DEFAULT_LIMITS, *, where: str = "value") -> Any:
    """Return the object that `pack` gave the bytes of.

    An array that is the whole value is not copied: it lies read-only in `payload` and keeps it alive.

    Raises:
        TamperedDataError: `pack` gives no such bytes, or they are beyond the limits.
        ConfigurationError: They hold an array, and its library is not installed here.
    """
    value, references = _read(payload, limits, where)
    if references:
        raise TamperedDataError(where=where, problem="a reference to a blob stands where none can be")
    return value


def unpack_frame(payload: bytes | memoryview, limits: Limits, *, where: str) -> tuple[list[Any], bool]:
    """Return the objects of a values block, with a `BlobRef` where one travels as a blob, and whether any does.

    Raises:
        TamperedDataError: It is no values block, or beyond the limits.
        ConfigurationError: It holds an array, and its library is not installed here.
    """
    objects, references = _read(payload, limits, where)
    if type(objects) is not list or not 1 <= len(objects) <= MAX_FRAME_VALUES:
        raise TamperedDataError(where=where, problem=f"a frame is no array of 1 to {MAX_FRAME_VALUES} values")
    if references and references != sum(type(value) is BlobRef for value in objects):
        raise TamperedDataError(where=where, problem="a reference to a blob stands inside a value")
    return objects, references > 0


def _read(payload: bytes | memoryview, limits: Limits, where: str) -> tuple[Any, int]:
    if len(payload) > limits.max_bytes:
        raise TamperedDataError(where=where, problem=f"{len(payload)} bytes are over the limit of {limits.max_bytes}")
    try:
        return _parsed(payload, limits)
    except DatameshError:
        raise
    except Exception as exc:  # whatever a parser or a constructor finds wrong with bytes that are not ours
        # Not chained: what a parser says quotes what it was given.
        raise TamperedDataError(where=where, problem=f"not what a supervisor writes: {_told(exc)}") from None


def _parsed(payload: bytes | memoryview, limits: Limits) -> tuple[Any, int]:
    if (body := _whole_ext(payload)) is not None:
        return raised(payload[5], body), 0
    whole = bytes(payload)
    marked, numerous = MARK_PREFIX in whole, len(whole) > limits.max_nodes
    if len(whole) > _UNSKIMMED_BYTES and whole[0] not in _UNNESTED:
        _skim(whole)
    parsing = _Parsing(limits.max_nodes)
    most = limits.max_nodes if numerous else len(whole)
    value = msgpack.unpackb(
        whole,
        max_array_len=most,
        max_map_len=most,
        strict_map_key=False,
        timestamp=3,  # we write none, but a stranger's is a moment in UTC and no object of msgpack's
        ext_hook=parsing.ext,
        list_hook=parsing.array if marked or numerous else None,
        object_hook=parsing.map if numerous else None,
    )
    if parsing.open_marks:
        raise ValueError("a mark stands outside the beginning of an array")
    if limits.max_depth is not None and len(whole) > limits.max_depth and (problem := shape_problem(value, limits)):
        raise ValueError(problem)
    return value, parsing.references


def _whole_ext(payload: bytes | memoryview) -> memoryview | None:
    header = arrays.STANDALONE_HEADER_BYTES
    if len(payload) < header or payload[0] != _EXT32 or payload[5] in (*MARKS, Ext.BLOB_REF):
        return None
    body = memoryview(payload)[header:]
    return body if len(body) == int.from_bytes(payload[1:5], "big") else None


def _skim(payload: bytes) -> None:
    # The parser allocates what an array claims to hold, a thousand levels deep, before it looks whether that is there.
    # Skipping parses the same without making anything; below a kibibyte all claims together stay under 8 MiB.
    unpacker = msgpack.Unpacker(max_buffer_size=len(payload))
    unpacker.feed(payload)
    unpacker.skip()


class _Parsing:
    """What is counted while one payload is parsed."""

    __slots__ = ("containers_left", "elements_left", "open_marks", "references")

    def __init__(self, max_nodes: int) -> None:
        self.containers_left = max_nodes
        self.elements_left = max_nodes
        self.open_marks = 0
        self.references = 0

    def ext(self, code: int, body: bytes) -> Any:
        if (mark := MARKS.get(code)) is not None and not body:
            self.open_marks += 1
            return mark
        if code == Ext.BLOB_REF:
            self.references += 1
            return BlobRef.unpack(body)
        return raised(code, body)

    def array(self, items: list[Any]) -> Any:
        if not items or type(items[0]) is not Mark:
            self._count(len(items))
            return items
        self._count(len(items) - 1)
        self.open_marks -= 1
        return BUILDERS[items[0]](items[1:])

    def map(self, pairs: dict[Any, Any]) -> dict[Any, Any]:
        self._count(2 * len(pairs))
        return pairs

    def _count(self, elements: int) -> None:
        # Containers apart, because a container is an element only when the one around it ends.
        self.containers_left -= 1
        self.elements_left -= elements
        if self.containers_left < 0 or self.elements_left < 0:
            raise ValueError("it has too many parts")
