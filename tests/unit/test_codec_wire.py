"""The wire: every form comes back, equal values give equal bytes, and hostile bytes end in one error."""

from __future__ import annotations

import collections
import contextlib
import enum
import ipaddress
import math
import os
import re
import subprocess
import sys
import threading
import tracemalloc
import types
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamesh.codec.blob import Blob, BlobRef
from datamesh.codec.ext import Ext
from datamesh.codec.limits import Limits, shape_problem
from datamesh.codec.wire import REF_PREFIX, pack, pack_ref, unpack
from datamesh.errors import ConfigurationError, TamperedDataError, UnserializableValueError

PARIS = ZoneInfo("Europe/Paris")


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: int


def same(left: Any, right: Any) -> bool:
    """Equal, of one type all the way down, and `nan` equal to itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return same(list(left.items()), list(right.items()))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)


SCALARS: list[Any] = [
    *(None, True, False, 0, -1, 2**63, 2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 10**400, -(10**400)),
    *(1.5, -0.0, math.inf, -math.inf, math.nan, "", "straße\0", b"", b"\x00\xff"),
    *(date.min, date.max, timedelta.min, timedelta.max, timedelta(microseconds=-1)),
    *(
        Decimal("-0"),
        Decimal("1E+6144"),
        Decimal("-9E-6144"),
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("1.10"),
        Fraction(-1, 3),
    ),
    *(UUID(int=7), complex(1, -2), Path("/a b/ç"), Path(), Path(os.fsdecode(b"/caf\xe9"))),
    *map(ipaddress.ip_address, ("127.0.0.1", "::1", "fe80::1%eth0")),
    *(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_interface("10.1.2.3/8"), ipaddress.ip_interface("::1/64")),
    *((), (1,), ((),), (1, [2, (3,)]), set(), {1, 2}, frozenset({"a"}), {frozenset({1}), frozenset()}, [set(), ()]),
    *({}, {"a": 1}, {1: 2, None: 3, (1, 2): 4, b"x": 5, 2**70: 6, date.min: 7, frozenset({1}): 8}),
]


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: f"{type(value).__name__}-{str(value)[:20]!a}")
def test_comes_back_as_it_was(value: Any) -> None:
    restored = unpack(pack(value))
    if isinstance(value, Decimal):  # equality is not identity: 1.1 == 1.10
        assert str(restored) == str(value)
        assert type(restored) is Decimal
    else:
        assert same(restored, value)


@pytest.mark.parametrize(
    "moment",
    [
        *(datetime.min, datetime.max, datetime(2024, 1, 2, 3, 4, 5, 6), datetime(2024, 10, 27, 2, 30, fold=1)),
        datetime(2024, 1, 1, tzinfo=UTC),
        datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, seconds=7, microseconds=9))),
        datetime(2024, 10, 27, 2, 30, tzinfo=PARIS),
        datetime(2024, 10, 27, 2, 30, tzinfo=PARIS, fold=1),
        datetime(2024, 3, 31, 2, 30, tzinfo=PARIS),  # a moment that Paris skips
        *(time(1, 2, 3, 4), time(1, fold=1), time(1, tzinfo=UTC), time(1, tzinfo=PARIS)),
    ],
    ids=repr,
)
def test_keeps_offset_zone_and_fold(moment: Any) -> None:
    restored = unpack(pack(moment))
    assert restored.isoformat() == moment.isoformat()
    assert restored.fold == moment.fold
    assert restored.utcoffset() == moment.utcoffset()
    assert getattr(restored.tzinfo, "key", None) == getattr(moment.tzinfo, "key", None)


def test_a_zone_that_is_unknown_here_leaves_the_moment() -> None:
    body = b"02024-01-01T00:00:00+01:00[Mars/Olympus]"
    moment = unpack(msgpack.packb(msgpack.ExtType(Ext.DATETIME, body)))
    assert moment == datetime(2023, 12, 31, 23, tzinfo=UTC)


def test_machines_that_disagree_on_a_zone_agree_on_the_moment() -> None:
    body = b"02024-01-01T00:00:00+05:00[Europe/Paris]"
    moment = unpack(msgpack.packb(msgpack.ExtType(Ext.DATETIME, body)))
    assert moment == datetime(2023, 12, 31, 19, tzinfo=UTC)
    assert moment.tzinfo.key == "Europe/Paris"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        *((Color.RED, "red"), (Level.HIGH, 3), (Point(1, 2), (1, 2)), (collections.OrderedDict(a=1), {"a": 1})),
        *((collections.Counter("aa"), {"a": 2}), (collections.deque([1, 2], maxlen=2), [1, 2])),
        *((types.MappingProxyType({"a": 1}), {"a": 1}), (bytearray(b"ab"), b"ab"), (memoryview(b"ab"), b"ab")),
        *((re.compile("a+"), "a+"), (PARIS, "Europe/Paris"), (PureWindowsPath("a\\b"), Path("a/b"))),
        *(
            (PurePosixPath("/a"), Path("/a")),
            (type("Text", (str,), {})("x"), "x"),
            (type("Real", (float,), {})(1), 1.0),
        ),
        *((type("Items", (list,), {})([1]), [1]), (type("Raw", (bytes,), {})(b"x"), b"x")),
        (type("Moment", (datetime,), {})(2024, 1, 1), datetime(2024, 1, 1)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_form_of_its_own_comes_back_plain(value: Any, plain: Any) -> None:
    assert same(unpack(pack(value)), plain)
    assert same(unpack(pack([{"k": value}])), [{"k": plain}])


keys = st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.dates() | st.uuids()
leaves = (
    keys | st.floats() | st.decimals(allow_nan=False) | st.timedeltas() | st.times() | st.datetimes() | st.fractions()
)
hashables = st.recursive(keys, lambda inner: st.frozensets(inner, max_size=4) | st.tuples(inner, inner), max_leaves=6)
objects = st.recursive(
    leaves | st.sets(hashables, max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.tuples(inner, inner) | st.dictionaries(hashables, inner, max_size=5),
    max_leaves=30,
)


@given(objects)
@settings(max_examples=60, deadline=None)
def test_any_tree_comes_back(value: Any) -> None:
    packed = pack(value)
    assert same(unpack(packed), value)
    assert same(unpack(memoryview(packed)), value)


def test_plain_values_are_plain_msgpack() -> None:
    value = {"a": [1, 2.5, None, True, "x", b"y", {"b": [2**63]}]}
    assert pack(value) == msgpack.packb(value)


def test_a_strangers_timestamp_is_a_moment() -> None:
    assert unpack(msgpack.packb(msgpack.Timestamp(0, 5_000))) == datetime(1970, 1, 1, microsecond=5, tzinfo=UTC)


def test_a_set_gives_the_same_bytes_in_every_process() -> None:
    program = (
        "from datamesh.codec.wire import pack; "
        "print(pack([{'a', 'b', 'c', 'd', 'e', frozenset({'x', 'y', 'z'})}]).hex())"
    )
    environments = [{**os.environ, "PYTHONHASHSEED": seed} for seed in ("1", "2")]
    command = [sys.executable, "-c", program]
    outputs = {subprocess.run(command, env=env, capture_output=True, check=True).stdout for env in environments}
    assert len(outputs) == 1


def test_threads_pack_at_the_same_time() -> None:
    value = [(index, {str(index)}) for index in range(300)]
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.extend(pack(value) for _ in range(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(results) == {pack(value)}
    assert len(results) == 20


def test_ext_codes_are_for_ever() -> None:
    assert {member.name: member.value for member in Ext} == {
        **{"BIG_INT": 1, "TUPLE": 2, "SET": 3, "FROZENSET": 4, "DATETIME": 5, "DATE": 6, "TIME": 7, "TIMEDELTA": 8},
        **{"DECIMAL": 9, "FRACTION": 10, "UUID": 11, "COMPLEX": 12, "PATH": 13, "IP": 14},
        **{"NDARRAY": 16, "NUMPY_SCALAR": 17, "TENSOR": 18, "BLOB_REF": 32},
    }


# ------------------------------------------------------------------------------------------------ refusals


class Rude:
    """Nothing knows it, and it says so in its own way."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((Rude(), "Rude"), ([{"a": Rude()}], "Rude"), (object(), "object"), (len, "builtin_function"), (int, "type")),
        *(((value for value in "a"), "generator"), (range(3), "range"), (open, "builtin_function")),
        *(("\ud800", "UnicodeEncodeError"), (re.compile("a", re.I), "flags"), (nested(5000), "recursion")),
        *((endless(), "recursion"), (memoryview(b"abcd")[::2], "memoryview")),
        (BlobRef("00" * 32, 1), "BlobRef"),
        (Decimal("1E+6145"), "exponent"),
        (Decimal("1E-6145"), "exponent"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isprintable() else "",
)
def test_refuses_what_has_no_form(value: Any, text: str) -> None:
    with pytest.raises(UnserializableValueError, match=text) as caught:
        pack(value, where="stream 'a'")
    assert caught.value.where == "stream 'a'"


def test_a_refusal_leaves_nothing_behind() -> None:
    with pytest.raises(UnserializableValueError):
        pack([1, 2, object()])
    assert pack([1]) == b"\x91\x01"


def ext(code: int, body: bytes) -> bytes:
    packed: bytes = msgpack.packb(msgpack.ExtType(code, body))
    return packed


NDARRAY_BODY = pack(np.arange(4, dtype="<i4"))[6:]
MARK = ext(Ext.TUPLE, b"")

HOSTILE = {
    "empty": b"",
    "truncated": pack({"a": [1, 2, 3]})[:-1],
    "trailing": b"\x01\x01",
    "reserved byte": b"\xc1",
    "4G array": b"\xdd\xff\xff\xff\xff",
    "4G map": b"\xdf\xff\xff\xff\xff",
    "4G text": b"\xdb\xff\xff\xff\xff",
    "4G ext": b"\xc9\xff\xff\xff\xff\x01",
    "4G arrays in each other": b"\xdd\xff\xff\xff\xff" * 300,
    "arrays that claim all that follows": b"".join(
        b"\xdd" + (5 * left).to_bytes(4, "big") for left in range(12_000, 11_000, -1)
    ).ljust(60_000, b"\xc0"),
    "deep arrays": b"\x91" * 65 + b"\x90",
    "deeper arrays": b"\x91" * 60_000 + b"\x01",
    "deep maps": b"\x81\x01" * 100 + b"\x01",
    "deep marks": (b"\x92" + MARK) * 100 + b"\x01",
    "deep keys": b"\x81" + (b"\x92" + MARK) * 100 + b"\x01\x01",
    "unhashable key": b"\x81\x90\x01",
    "unhashable element": b"\x92" + ext(Ext.SET, b"") + b"\x90",
    "no UTF-8": b"\xa1\xff",
    "unknown ext": ext(99, b"abc"),
    "unknown long ext": ext(99, b"abc" * 30_000),
    "negative ext": b"\xd4\xfe\x01",
    "bad timestamp": b"\xc7\x0c\xff" + b"\xff" * 12,
    "mark alone": MARK,
    "mark in the middle": b"\x92\x01" + MARK,
    "mark twice": b"\x92" + MARK + MARK,
    "mark as key": b"\x81" + MARK + b"\x01",
    "mark with a body": b"\x92" + ext(Ext.TUPLE, b"x") + b"\x01",
    "reference": pack_ref(BlobRef("00" * 32, 5)),
    "reference inside": b"\x91" + pack_ref(BlobRef("00" * 32, 5)),
    "short reference": ext(Ext.BLOB_REF, b"x"),
    "date": ext(Ext.DATE, b"2024-99-99"),
    "datetime": ext(Ext.DATETIME, b"0soon"),
    "fold": ext(Ext.DATETIME, b"72024-01-01T00:00:00"),
    "empty datetime": ext(Ext.DATETIME, b""),
    "time in no zone": ext(Ext.TIME, b"001:00:00[../../etc/passwd]"),
    "timedelta": ext(Ext.TIMEDELTA, b"\x7f" * 12),
    "decimal": ext(Ext.DECIMAL, b"many"),
    "decimal of endless size": ext(Ext.DECIMAL, b"1E99999999999999"),
    "decimal of endless smallness": ext(Ext.DECIMAL, b"1E-99999999999999"),
    "zero of endless size": ext(Ext.DECIMAL, b"0E99999999999999"),
    "decimal of endless length": ext(Ext.DECIMAL, b"9" * 60_000),
    "fraction": ext(Ext.FRACTION, b"1/0"),
    "fraction of endless size": ext(Ext.FRACTION, b"1e99999999999999"),
    "uuid": ext(Ext.UUID, b"1"),
    "complex": ext(Ext.COMPLEX, b"1"),
    "path": ext(Ext.IP, b"z1"),
    "address": ext(Ext.IP, b"a1.2.3"),
    "array without a head": ext(Ext.NDARRAY, b""),
    "array cut": ext(Ext.NDARRAY, NDARRAY_BODY[:-1]),
    "array grown": ext(Ext.NDARRAY, NDARRAY_BODY + b"\0"),
    "scalar with a shape": ext(Ext.NUMPY_SCALAR, NDARRAY_BODY),
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_bytes_end_in_one_error(payload: bytes) -> None:
    with pytest.raises(TamperedDataError) as caught:
        unpack(payload, where="stream 'a'")
    assert caught.value.where == "stream 'a'"
    assert len(str(caught.value)) < 400


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_noise_gives_a_value_or_one_error(payload: bytes) -> None:
    with contextlib.suppress(TamperedDataError, ConfigurationError):  # torch may be missing
        unpack(payload)


@given(objects, st.data())
@settings(max_examples=50, deadline=None)
def test_mutated_bytes_give_a_value_or_one_error(value: Any, draw: st.DataObject) -> None:
    mutated = bytearray(pack(value))
    for _ in range(draw.draw(st.integers(1, 4))):
        mutated[draw.draw(st.integers(0, len(mutated) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(TamperedDataError, ConfigurationError):  # torch may be missing
        unpack(bytes(mutated))


def levels(count: int, width: int) -> bytes:
    """Arrays in each other, each with `width` empty ones before the next."""
    return (b"\xdd" + (width + 1).to_bytes(4, "big") + b"\x90" * width) * count + b"\x90"


@pytest.mark.parametrize(
    ("payload", "limits"),
    [
        (HOSTILE["arrays that claim all that follows"], Limits()),
        (levels(20, 9_000), Limits(max_nodes=10_000, max_depth=None)),
        (b"\xdd" + (500_000).to_bytes(4, "big") + b"\xc0" * 500_000, Limits(max_nodes=10_000, max_depth=None)),
        (pack([[None] * 9_000] * 60), Limits(max_nodes=10_000, max_depth=None)),
    ],
    ids=["claims", "open arrays", "a long array", "many arrays"],
)
def test_refusing_takes_no_memory(payload: bytes, limits: Limits) -> None:
    tracemalloc.start()
    with pytest.raises(TamperedDataError):
        unpack(payload, limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


# -------------------------------------------------------------------------------------------------- limits


def test_limits_on_reading() -> None:
    assert unpack(pack(nested(64))) == nested(64)
    with pytest.raises(TamperedDataError, match="containers"):
        unpack(pack(nested(65)))
    assert unpack(pack(nested(400)), Limits(max_depth=None))
    with pytest.raises(TamperedDataError, match="over the limit of 10"):
        unpack(pack("x" * 10), Limits(max_bytes=10))
    assert unpack(pack("x" * 9), Limits(max_bytes=10)) == "x" * 9


@pytest.mark.parametrize("value", [[0] * 101, [[]] * 101, {index: [] for index in range(51)}, [tuple(range(10))] * 10])
def test_a_limit_on_parts_holds_while_parsing(value: Any) -> None:
    assert unpack(pack(value), Limits(max_nodes=1000)) == value
    with pytest.raises(TamperedDataError):
        unpack(pack(value), Limits(max_nodes=100))


def test_shape_problem_counts_and_measures() -> None:
    shared = [[1, 2], {"a": (3, {4})}]
    assert shape_problem(shared, Limits(max_depth=4, max_nodes=10)) is None
    assert "3 containers" in str(shape_problem(shared, Limits(max_depth=3)))
    assert "9 parts" in str(shape_problem(shared, Limits(max_nodes=9)))
    assert "64 containers" in str(shape_problem(endless(), Limits()))
    assert shape_problem({((),): 1}, Limits(max_depth=3)) is None
    assert shape_problem({((),): 1}, Limits(max_depth=2)) is not None


# -------------------------------------------------------------------------------------------------- arrays

DTYPES = ["?", "i1", "<i2", ">i4", "<u8", "<f2", ">f4", "<c16", "S3", "<U5", "<M8[ns]", "<m8[25s]", "V4"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4)])
def test_arrays_come_back(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.zeros(shape, "u1").astype("S3").astype(dtype) if dtype in ("S3", "<U5") else np.zeros(shape, dtype)
    for restored in (unpack(pack(array)), unpack(pack([array]))[0]):
        assert restored.dtype == array.dtype
        assert restored.shape == array.shape
        assert restored.tobytes() == array.tobytes()
        assert restored.flags.aligned
        assert not restored.flags.writeable


def test_an_array_that_is_the_value_is_not_copied() -> None:
    packed = pack(np.arange(100_000))
    array = unpack(memoryview(packed))
    assert np.shares_memory(array, np.frombuffer(packed, "u1"))
    assert array.flags.aligned
    assert array[-1] == 99_999


def test_views_come_back_in_c_order() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    for view in (array.T, array[:, ::-1], np.asfortranarray(array), array[..., 1]):
        restored = unpack(pack(view))
        assert np.array_equal(restored, view)
        assert restored.flags.c_contiguous


@pytest.mark.parametrize(
    "dtype",
    [
        [("a", "<i4"), ("b", "<f8", (2, 3)), ("c", [("d", "S2")])],
        np.dtype({"names": ["a", "b"], "formats": ["i1", "f8"]}, align=True),
        np.dtype([(("title", "a"), "<i4")]),
    ],
    ids=str,
)
def test_structured_arrays_come_back(dtype: Any) -> None:
    array = np.zeros(3, dtype)
    array[1]["a"] = 5
    restored = unpack(pack(array))
    assert restored.dtype == array.dtype
    assert restored[1]["a"] == 5


@pytest.mark.parametrize(
    "scalar",
    [np.float64(1.5), np.float32(2), np.int8(-3), np.bool_(True), np.complex64(1j), np.datetime64("2024-01-01", "ns")],
    ids=repr,
)
def test_numpy_scalars_come_back(scalar: Any) -> None:
    assert same(unpack(pack(scalar)), scalar)
    assert same(unpack(pack({"a": (scalar,)})), {"a": (scalar,)})


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.array([object()]), "tolist"),
        (np.zeros(2, [("a", "O")]), "tolist"),
        (np.ma.masked_array([1], [True]), "asarray"),
        (np.zeros(2, "V0"), "raw form"),
        (np.array(["a"], np.dtypes.StringDType()), "raw form|tolist"),
        (np.rec.array([(1,)], dtype=[("a", "i4")]), "asarray"),
    ],
    ids=["objects", "fields of objects", "masked", "no size", "strings", "record"],
)
def test_refuses_arrays_that_are_more_than_their_bytes(array: Any, text: str) -> None:
    for value in (array, [array]):
        with pytest.raises(UnserializableValueError, match=text):
            pack(value)


def forged(dtype: Any, shape: Any, buffer: bytes = b"\0" * 8) -> bytes:
    meta = msgpack.packb([dtype, shape])
    return ext(Ext.NDARRAY, len(meta).to_bytes(2, "big") + (4 + len(meta)).to_bytes(2, "big") + meta + buffer)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        *(
            ("|O", [1]),
            ("|O8", [1]),
            ("O", [1]),
            ([["a", "|O8"]], [1]),
            ("f8,f8", []),
            ("f4,f4", [1]),
            ("f8", [1]),
            ("<f8", [-1, -1]),
            ("(9999999,)f4", [1]),
        ),
        *(("<f8", [-1]), ("<f8", [2]), ("<f8", 1), ("<f8", [1.0]), ("<f8", [True]), ("<f8", ["1"]), ("<f8", [[1]])),
        *(("<f8", [1] * 200), ("<f8", [2**62, 4]), ("<f8", [0]), ("|V0", [2**40]), (None, [1]), (5, [1]), ([], [1])),
        *(([["a"]], [1]), ([["a", "<f8", 3]], [1]), ("<f16384", [1]), ("<M8[parsec]", [1]), ("<q8", [1])),
    ],
    ids=str,
)
def test_refuses_forged_arrays(dtype: Any, shape: Any) -> None:
    assert unpack(forged("<f8", [1])).shape == (1,)
    with pytest.raises(TamperedDataError):
        unpack(forged(dtype, shape))


def test_refuses_an_empty_array_of_endless_shape() -> None:
    with pytest.raises(TamperedDataError):
        unpack(forged("<f8", [0, 2**63 - 1, 2**63 - 1], b""))


@pytest.mark.parametrize(("library", "code"), [("numpy", Ext.NDARRAY), ("torch", Ext.TENSOR)])
def test_says_which_library_is_missing(monkeypatch: pytest.MonkeyPatch, library: str, code: Ext) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=library):
        unpack(ext(code, NDARRAY_BODY))


def test_numpy_is_not_imported_for_other_values() -> None:
    program = (
        "import sys; from datamesh.codec.values import ANY; "
        "ANY.values(ANY.frames([1, (2,), {3}])[0].payload); print('numpy' in sys.modules, 'torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert output.split() == ["False", "False"]


def test_tensors_come_back() -> None:
    torch = pytest.importorskip("torch")
    dtypes = [
        torch.bfloat16,
        torch.float16,
        torch.float32,
        torch.float8_e4m3fn,
        torch.bool,
        torch.int64,
        torch.complex64,
    ]
    for dtype in dtypes:
        for tensor in (torch.ones(2, 3).to(dtype), torch.ones(()).to(dtype), torch.ones(0, 4).to(dtype)):
            for restored in (unpack(pack(tensor)), unpack(pack([tensor]))[0]):
                assert restored.dtype is dtype
                assert restored.shape == tensor.shape
                assert torch.equal(restored.reshape(-1).view(torch.uint8), tensor.reshape(-1).view(torch.uint8))


def test_a_tensor_is_writable_and_its_own() -> None:
    torch = pytest.importorskip("torch")
    packed = pack(torch.arange(100_000)[::2])
    restored = unpack(packed)
    restored[0] = 7
    assert unpack(packed)[0] == 0
    assert torch.equal(unpack(pack(torch.nn.Parameter(torch.ones(2)))), torch.ones(2))
    assert torch.equal(unpack(pack(torch.tensor([1j]).conj())), torch.tensor([-1j]))


def test_refuses_tensors_that_are_not_dense_and_forged_ones() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (torch.ones(3).to_sparse(), torch.ones(2, device="meta")):
        with pytest.raises(UnserializableValueError, match="dense"):
            pack(tensor)
    for dtype in ("load", "Tensor", "__builtins__", "float9", 5, None):
        with pytest.raises(TamperedDataError):
            unpack(forged(dtype, [1]).replace(bytes((Ext.NDARRAY,)), bytes((Ext.TENSOR,)), 1))


# --------------------------------------------------------------------------------------------------- blobs


def test_a_reference_has_a_form_of_its_own() -> None:
    ref = Blob.of(b"abc").ref
    packed = pack_ref(ref)
    assert packed.startswith(REF_PREFIX)
    assert BlobRef.unpack(packed[len(REF_PREFIX) :]) == ref
    ref.verify(b"abc", where="a")
    for body in (b"abd", b"ab", b""):
        with pytest.raises(TamperedDataError):
            ref.verify(body, where="a")
