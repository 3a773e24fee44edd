"""Ext types: the forms that values take on the wire where msgpack has none of its own.

| code | value | body |
|---|---|---|
| 1 | int beyond 64 bits | two's complement, big-endian |
| 2, 3, 4 | tuple, set, frozenset | empty: a mark, first in an array of the elements (a set's by their bytes) |
| 5, 7 | datetime, time | fold `0` or `1`, ISO 8601 text, then `[key]` of its time zone if that is a `ZoneInfo` |
| 6 | date | ISO 8601 text |
| 8 | timedelta | days, seconds, microseconds: three big-endian 32-bit integers |
| 9 | Decimal | its text; the exponents are those of IEEE 754 decimal128 |
| 10 | Fraction | numerator, `/`, denominator |
| 11 | UUID | 16 bytes |
| 12 | complex | two big-endian doubles |
| 13 | path | its text, with `/` |
| 14 | IP address, interface or network | `a`, `i` or `n`, then its text |
| 16, 17, 18 | numpy array, numpy scalar, torch tensor | see `datamesh.codec.arrays` |
| 32 | reference to a blob | 32 bytes of SHA-256, big-endian 64-bit size; only as an element of a frame |

A number, once used, keeps its meaning for ever. A container is a mark and not a body of its own, so that the parser
goes through any nesting in one pass: a body would be copied once for every level above it.

Subclasses travel as what they are a subclass of, and an enum's member, a deque, a mapping proxy, a pattern, a time
zone and a URL as their plain value: a reader that declares the type gets the type back, one that does not gets the
plain value.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from collections import deque
from collections.abc import Callable, Mapping, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from functools import cache
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any, Final, TypeVar, cast
from uuid import UUID
from zoneinfo import ZoneInfo, available_timezones

import msgpack

from datamesh.codec import arrays
from datamesh.codec.arrays import Unsendable

Lower = Callable[[Any], Any]
Stamp = TypeVar("Stamp", datetime, time)


class Ext(IntEnum):
    """The code that stands on the wire."""

    BIG_INT = 1
    TUPLE = 2
    SET = 3
    FROZENSET = 4
    DATETIME = 5
    DATE = 6
    TIME = 7
    TIMEDELTA = 8
    DECIMAL = 9
    FRACTION = 10
    UUID = 11
    COMPLEX = 12
    PATH = 13
    IP = 14
    NDARRAY = 16
    NUMPY_SCALAR = 17
    TENSOR = 18
    BLOB_REF = 32


class Mark(Enum):
    """First element of an array that stands for another container; the value makes it from the list of the rest."""

    TUPLE = Ext.TUPLE
    SET = Ext.SET
    FROZENSET = Ext.FROZENSET


BUILDERS: Final[Mapping[Mark, Callable[[list[Any]], Any]]] = {
    Mark.TUPLE: tuple,
    Mark.SET: set,
    Mark.FROZENSET: frozenset,
}
MARKS: Final[Mapping[int, Mark]] = {mark.value: mark for mark in Mark}
MARK_PREFIX: Final = b"\xc7\x00"
"""How every mark begins; bytes without it hold none."""

_TUPLE_MARK: Final = msgpack.ExtType(Ext.TUPLE, b"")
_SET_MARK: Final = msgpack.ExtType(Ext.SET, b"")
_FROZENSET_MARK: Final = msgpack.ExtType(Ext.FROZENSET, b"")
_DELTA: Final = struct.Struct(">iii")
_COMPLEX: Final = struct.Struct(">dd")
_DECIMAL_EXPONENT: Final = 6144
_DECIMAL_BYTES: Final = 16_384
_MAKE_PLAIN: Final = "make it a pydantic model, a dataclass or plain values, or declare the stream's type"


# ------------------------------------------------------------------------------------------- Python to wire


class Lowering:
    """What a packer calls for an object that msgpack has no form for: returns one that it has.

    Args:
        extra: Further types, each with the function that turns an instance into something sendable.
    """

    def __init__(self, extra: Mapping[type, Lower] | None = None) -> None:
        self._by_type: dict[type, Lower] = {
            **_BY_TYPE,
            set: lambda value: [_SET_MARK, *self._sorted(value)],
            frozenset: lambda value: [_FROZENSET_MARK, *self._sorted(value)],
            **(extra or {}),
        }

    def __call__(self, value: Any) -> Any:
        """Return an object that is nearer to the wire.

        Raises:
            Unsendable: There is none.
        """
        lower = self._by_type.get(type(value)) or self._inherited(type(value))
        return lower(value)

    def _inherited(self, kind: type) -> Lower:
        for parent in kind.__mro__:
            name = f"{parent.__module__}.{parent.__qualname__}"
            if lower := self._by_type.get(parent) or _BY_NAME.get(name):
                return lower
            if problem := _REFUSED.get(name.partition(".")[0]):
                raise Unsendable(kind, problem)
        raise Unsendable(kind, f"it has no form on the wire: {_MAKE_PLAIN}")

    def _sorted(self, values: Any) -> list[Any]:
        # A set's own order differs from process to process, and a repeated task must give the same bytes again.
        return sorted(values, key=msgpack.Packer(strict_types=True, default=self).pack)


def _lower_int(value: int) -> Any:
    plain = int.__int__(value)  # of an int enum, its value
    if -(2**63) <= plain < 2**64:
        return plain
    return msgpack.ExtType(Ext.BIG_INT, plain.to_bytes(plain.bit_length() // 8 + 1, "big", signed=True))


def _lower_stamp(code: Ext, kind: type[Stamp]) -> Lower:
    def lower(value: Stamp) -> Any:
        key = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
        zone = f"[{key}]" if key else ""
        return msgpack.ExtType(code, f"{value.fold}{kind.isoformat(value)}{zone}".encode())

    return lower


def _lower_path(value: PurePath) -> Any:
    # Names of files are bytes; those that are no UTF-8 have lone surrogates in Python.
    return msgpack.ExtType(Ext.PATH, value.as_posix().encode("utf-8", "surrogateescape"))


def _lower_pattern(value: re.Pattern[Any]) -> Any:
    if re.compile(value.pattern).flags != value.flags:
        raise Unsendable(type(value), "its flags would be lost: write them into the pattern, like `(?i)abc`")
    return value.pattern


def _lower_zone(value: ZoneInfo) -> Any:
    if value.key is None:
        raise Unsendable(type(value), "it has no key: make it with `ZoneInfo(key)`")
    return value.key


def _lower_decimal(value: Decimal) -> Any:
    if not _is_ordinary(value):
        raise Unsendable(type(value), f"its exponent is beyond {_DECIMAL_EXPONENT}: send its text")
    return msgpack.ExtType(Ext.DECIMAL, Decimal.__str__(value).encode())


def _is_ordinary(value: Decimal) -> bool:
    # A reader that declares an int makes one of it, and that takes half a minute for 1E+999999.
    if not value.is_finite():
        return len(value.as_tuple().digits) <= _DECIMAL_EXPONENT
    exponent = cast(int, value.as_tuple().exponent)
    return exponent >= -_DECIMAL_EXPONENT and max(exponent, value.adjusted()) <= _DECIMAL_EXPONENT


def _lower_fraction(value: Fraction) -> Any:
    return msgpack.ExtType(Ext.FRACTION, f"{value.numerator}/{value.denominator}".encode())


def _text(code: Ext, prefix: str = "") -> Lower:
    return lambda value: msgpack.ExtType(code, f"{prefix}{value}".encode())


_BY_TYPE: Final[Mapping[type, Lower]] = {
    int: _lower_int,
    float: float.__float__,
    str: str.__str__,
    bytes: lambda value: bytes(memoryview(value)),
    bytearray: lambda value: bytes(memoryview(value)),
    list: lambda value: list.__getitem__(value, slice(None)),
    deque: list,
    dict: dict,
    MappingProxyType: dict,
    tuple: lambda value: [_TUPLE_MARK, *value],
    Enum: lambda value: value.value,
    datetime: _lower_stamp(Ext.DATETIME, datetime),
    date: lambda value: msgpack.ExtType(Ext.DATE, date.isoformat(value).encode()),
    time: _lower_stamp(Ext.TIME, time),
    timedelta: lambda value: msgpack.ExtType(Ext.TIMEDELTA, _DELTA.pack(value.days, value.seconds, value.microseconds)),
    Decimal: _lower_decimal,
    Fraction: _lower_fraction,
    UUID: lambda value: msgpack.ExtType(Ext.UUID, value.bytes),
    complex: lambda value: msgpack.ExtType(Ext.COMPLEX, _COMPLEX.pack(value.real, value.imag)),
    PurePath: _lower_path,
    re.Pattern: _lower_pattern,
    ZoneInfo: _lower_zone,
    ipaddress.IPv4Interface: _text(Ext.IP, "i"),
    ipaddress.IPv6Interface: _text(Ext.IP, "i"),
    ipaddress.IPv4Address: _text(Ext.IP, "a"),
    ipaddress.IPv6Address: _text(Ext.IP, "a"),
    ipaddress.IPv4Network: _text(Ext.IP, "n"),
    ipaddress.IPv6Network: _text(Ext.IP, "n"),
}

# By name, because the library is imported only by those who use it.
_BY_NAME: Final[Mapping[str, Lower]] = {
    "numpy.ndarray": lambda value: msgpack.ExtType(Ext.NDARRAY, arrays.from_numpy(value).joined()),
    "numpy.generic": lambda value: msgpack.ExtType(Ext.NUMPY_SCALAR, arrays.from_numpy_scalar(value).joined()),
    "torch.Tensor": lambda value: msgpack.ExtType(Ext.TENSOR, arrays.from_torch(value).joined()),
    "pydantic.networks._BaseUrl": str,
    "pydantic.networks._BaseMultiHostUrl": str,
    "pydantic.networks.NameEmail": str,
    "pydantic_core._pydantic_core.Url": str,
    "pydantic_core._pydantic_core.MultiHostUrl": str,
}

# A Timestamp is a datetime with nanoseconds, and so is NaT, which is no moment at all.
_REFUSED: Final = {"pandas": "convert it first: `.to_pydatetime()`, `.to_numpy()` or `.to_dict()`"}

plain_lowering: Final = Lowering()
"""For values of which nothing is declared."""


# ------------------------------------------------------------------------------------------- wire to Python


def raised(code: int, body: bytes | memoryview) -> Any:
    """Return the Python object of an ext object that is neither a mark nor a reference.

    Raises:
        ConfigurationError: It needs a library that is not installed here.
        Exception: Of any kind, if the body is not what stands in the table.
    """
    read = _READERS.get(code)
    if read is None:
        raise ValueError(f"there is no ext type {code}")
    return read(body)


def _read_stamp(parse: Callable[[str], Stamp]) -> Callable[[bytes], Stamp]:
    def read(body: bytes) -> Stamp:
        fold, (text, _, key) = int(bytes(body[:1])), bytes(body[1:]).decode().partition("[")
        value = parse(text).replace(fold=fold)
        return _in_zone(value, key.removesuffix("]")) if key else value

    return read


@cache
def _zone_keys() -> Set[str]:
    return available_timezones()


def _in_zone(value: Stamp, key: str) -> Stamp:
    # Looked up first: for a key that it does not know, ZoneInfo imports a package of that name.
    if key not in _zone_keys():  # ours or a newer machine's database lacks it: the offset says the moment
        if value.tzinfo is None:
            raise ValueError("its time zone is not known here")
        return value
    zone = ZoneInfo(key)
    zoned = value.replace(tzinfo=zone)
    if isinstance(value, datetime) and zoned.utcoffset() != value.utcoffset():
        return value.astimezone(zone)  # the two machines disagree on the zone's rules: keep the moment
    return zoned


def _read_decimal(body: bytes) -> Decimal:
    if len(body) > _DECIMAL_BYTES:
        raise ValueError("a decimal has more digits than any is written with")
    value = Decimal(bytes(body).decode("ascii"))
    if not _is_ordinary(value):
        raise ValueError("a decimal has an exponent that none is written with")
    return value


def _read_fraction(body: bytes) -> Fraction:
    # Not parsed by Fraction itself, which takes exponents too and makes an int of 10 to their power.
    numerator, denominator = bytes(body).decode("ascii").split("/")
    return Fraction(int(numerator), int(denominator))


def _read_ip(body: bytes) -> Any:
    kind, text = bytes(body[:1]), bytes(body[1:]).decode()
    return _IP_KINDS[kind](text)


_IP_KINDS: Final[Mapping[bytes, Callable[[str], Any]]] = {
    b"a": ipaddress.ip_address,
    b"i": ipaddress.ip_interface,
    b"n": ipaddress.ip_network,
}
_READERS: Final[Mapping[int, Callable[[Any], Any]]] = {
    Ext.BIG_INT: lambda body: int.from_bytes(body, "big", signed=True),
    Ext.DATETIME: _read_stamp(datetime.fromisoformat),
    Ext.DATE: lambda body: date.fromisoformat(bytes(body).decode()),
    Ext.TIME: _read_stamp(time.fromisoformat),
    Ext.TIMEDELTA: lambda body: timedelta(*_DELTA.unpack(body)),
    Ext.DECIMAL: _read_decimal,
    Ext.FRACTION: _read_fraction,
    Ext.UUID: lambda body: UUID(bytes=bytes(body)),
    Ext.COMPLEX: lambda body: complex(*_COMPLEX.unpack(body)),
    Ext.PATH: lambda body: Path(bytes(body).decode("utf-8", "surrogateescape")),
    Ext.IP: _read_ip,
    Ext.NDARRAY: arrays.to_numpy,
    Ext.NUMPY_SCALAR: arrays.to_numpy_scalar,
    Ext.TENSOR: arrays.to_torch,
}
