"""ValueCodec: values of a declared type to frames and back, cut by size, checked on both sides."""

from __future__ import annotations

import enum
import itertools
import math
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ForwardRef, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    PostgresDsn,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    StrictInt,
    computed_field,
    field_serializer,
)
from typing_extensions import TypedDict

from datamesh.codec.blob import BlobRef
from datamesh.codec.frame import EncodedFrame, references
from datamesh.codec.values import ANY, ValueCodec
from datamesh.codec.wire import pack, pack_ref, unpack
from datamesh.errors import (
    ConfigurationError,
    ContractMismatchError,
    InvalidValueError,
    PayloadTooLargeError,
    TamperedDataError,
    UnserializableValueError,
)

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    HIGH = 3


class Document(BaseModel):
    id: int
    text: str = ""
    tags: set[str] = set()
    made: datetime | None = None
    price: Decimal = Decimal(0)
    parts: list[Document] = []


class Renamed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    user_id: int = Field(alias="userId")
    name: str = Field(validation_alias="inName", serialization_alias="outName")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def label(self) -> str:
        return f"{self.name} {self.user_id}"


RENAMED = Renamed.model_validate({"userId": 1, "inName": "x"})


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    color: Color
    count: int
    inner: Inner


@dataclass
class Inner:
    a: int
    b: tuple[int, ...] = ()
    c: int = field(init=False, default=3)


@dataclass(frozen=True, slots=True)
class Frames:
    image: np.ndarray[Any, Any]
    inner: Inner | None = None


class Point(NamedTuple):
    x: int
    y: float = 0.0


class Options(TypedDict, total=False):
    a: int
    b: list[str]


class Box(BaseModel, Generic[T]):
    content: T


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


class Celsius(BaseModel):
    degrees: float

    @field_serializer("degrees")
    def _rounded(self, degrees: float) -> float:
        return round(degrees, 1)


class Names(RootModel[list[str]]):
    pass


def blobs_of(frame: EncodedFrame) -> dict[str, bytes]:
    return {blob.digest: blob.body for blob in frame.blobs}


def round_trip(codec: ValueCodec, values: Sequence[Any]) -> list[Any]:
    return [value for frame in codec.frames(values) for value in codec.values(frame.payload, blobs_of(frame))]


# --------------------------------------------------------------------------------------------- round trips

ROUND_TRIPS: list[tuple[Any, list[Any]]] = [
    (int, [1, -(2**80), 2**64]),
    (float, [1.0, math.inf, -0.0]),
    (str, ["", "é"]),
    (bool, [True, False]),
    (bytes, [b"", b"\xff"]),
    (None, [None]),
    (int | str | None, [1, "1", None]),
    (float | int, [1, 1.0]),
    (list[int], [[], [1]]),
    (dict[str, list[float]], [{"a": [1.5]}]),
    (dict[int, str], [{1: "a"}]),
    (dict[tuple[int, int], date], [{(1, 2): date(2024, 1, 1)}]),
    (tuple[int, str], [(1, "a")]),
    (tuple[int, ...], [(), (1, 2)]),
    (tuple[()], [()]),
    (set[str], [{"a", "b"}]),
    (frozenset[tuple[int, int]], [frozenset({(1, 2)})]),
    (deque[int], [deque([1, 2])]),
    (Sequence[int], [[1], (1, 2)]),
    (Mapping[str, int], [{"a": 1}]),
    (list, [[1, ("a",)]]),
    (Decimal, [Decimal("1.10")]),
    (Fraction, [Fraction(1, 3)]),
    (complex, [1j]),
    (UUID, [UUID(int=1)]),
    (datetime | date, [datetime(2024, 1, 1, tzinfo=ZoneInfo("Asia/Tokyo")), date(2024, 1, 1)]),
    (timedelta, [timedelta(seconds=1.5)]),
    (Path, [Path("/a/b")]),
    (ZoneInfo, [ZoneInfo("UTC")]),
    (re.Pattern[str], [re.compile("(?i)a+")]),
    (Color, [Color.RED, Color.BLUE]),
    (Level, [Level.HIGH]),
    (Literal["a", 1], ["a", 1]),
    (Document, [Document(id=1), Document(id=2, tags={"a"}, price=Decimal("1.5"), parts=[Document(id=3)])]),
    (Document | None, [None, Document(id=1)]),
    (Renamed, [RENAMED]),
    (list[Renamed], [[RENAMED]]),
    (Inner, [Inner(1, (2, 3))]),
    (dict[str, Inner], [{"a": Inner(1)}]),
    (Point, [Point(1, 2.5)]),
    (Options, [{"a": 1}, {"b": ["x"]}]),
    (Box[Inner], [Box[Inner](content=Inner(1))]),
    (Cat | Dog, [Dog(), Cat()]),
    (Annotated[Cat | Dog, Field(discriminator="kind")], [Dog(), Cat()]),
    (Names, [Names(["a"])]),
    (SecretStr, [SecretStr("x")]),
    (SecretBytes, [SecretBytes(b"x")]),
    (Secret[int], [Secret[int](5)]),
    (Box[SecretStr], [Box[SecretStr](content=SecretStr("x"))]),
    (AnyUrl, [AnyUrl("http://example.org/a")]),
    (set[AnyUrl], [{AnyUrl("http://example.org/a"), AnyUrl("http://example.org/b")}]),
    (PostgresDsn, [PostgresDsn("postgres://a:b@c/d")]),
    (Annotated[Json[list[int]], "json"], [[1, 2]]),
    (Strict, [Strict(color=Color.RED, count=1, inner=Inner(1))]),
    (list[Strict], [[Strict(color=Color.BLUE, count=1, inner=Inner(1))]]),
]


@pytest.mark.parametrize(
    ("annotation", "values"), ROUND_TRIPS, ids=lambda value: "" if isinstance(value, list) else str(value)
)
def test_values_come_back_as_their_type(annotation: Any, values: list[Any]) -> None:
    if annotation == Annotated[Json[list[int]], "json"]:
        values, expected = ["[1,2]"], [[1, 2]]
    else:
        expected = values
    codec = ValueCodec(annotation)
    restored = round_trip(codec, values)
    assert restored == expected
    assert [type(value) for value in restored] == [type(value) for value in expected]
    (frame,) = codec.frames(values)
    assert codec.value_list_or_errors(frame.payload) == expected
    assert isinstance(codec.schema, dict)


@given(st.lists(st.recursive(st.integers() | st.text() | st.none(), st.lists, max_leaves=5), max_size=600))
@settings(max_examples=25, deadline=None)
def test_untyped_values_come_back(values: list[Any]) -> None:
    frames = ANY.frames(values)
    assert [value for frame in frames for value in ANY.values(frame.payload)] == values
    assert [frame.start for frame in frames] == [sum(f.count for f in frames[:i]) for i in range(len(frames))]


def test_nan_comes_back_unless_the_type_forbids_it() -> None:
    assert math.isnan(round_trip(ValueCodec(float), [math.nan])[0])
    with pytest.raises(InvalidValueError):
        ValueCodec(Annotated[float, Field(allow_inf_nan=False)]).frames([math.nan])


def test_an_untyped_reader_gets_plain_values() -> None:
    values = [Document(id=1, tags={"a"}), Inner(1), Color.RED, Point(1), Names(["a"]), {"x": Cat()}]
    (frame,) = ANY.frames(values)
    assert ANY.values(frame.payload) == [
        {"id": 1, "text": "", "tags": {"a"}, "made": None, "price": Decimal(0), "parts": []},
        *({"a": 1, "b": (), "c": 3}, "red", (1, 0.0), ["a"], {"x": {"kind": "cat", "lives": 9}}),
    ]


def test_what_an_untyped_writer_sends_fits_a_typed_reader() -> None:
    (frame,) = ANY.frames([Document(id=1), {"id": 2}])
    assert ValueCodec(Document).values(frame.payload) == [Document(id=1), Document(id=2)]
    (frame,) = ANY.frames([{"userId": 1, "inName": "x"}, {"user_id": 1, "name": "x"}])
    assert ValueCodec(Renamed).values(frame.payload) == [RENAMED] * 2


def test_serializers_are_asked() -> None:
    codec = ValueCodec(Celsius)
    assert round_trip(codec, [Celsius(degrees=1.26)]) == [Celsius(degrees=1.3)]
    hexadecimal = Annotated[int, PlainSerializer(hex), AfterValidator(lambda value: value)]
    (frame,) = ValueCodec(hexadecimal).frames([255])
    assert unpack(frame.payload) == ["0xff"]


def test_equal_values_give_equal_bytes() -> None:
    first, second = {"b", "a", "c"}, {"c", "a", "b"}
    assert ValueCodec(set[str]).frames([first]) == ValueCodec(set[str]).frames([second])
    assert ValueCodec(Document).frames([Document(id=1, tags=first)]) == ANY.frames([Document(id=1, tags=second)])


def test_threads_share_a_codec() -> None:
    codec = ValueCodec(list[Document])
    values = [[Document(id=index, tags={"a", "b"})] for index in range(50)]
    expected = codec.frames(values)
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(codec.frames(values))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [expected] * 4


# ------------------------------------------------------------------------------------------------ checking


def test_check_is_lax_but_not_loose() -> None:
    codec = ValueCodec(int, where="input 'foo'")
    assert codec.check(["3", True, 2.0]) == [3, 1, 2]
    assert [type(value) for value in codec.check([np.int64(3), Level.HIGH])] == [int, int]
    assert codec.check((1, 2)) == [1, 2]
    with pytest.raises(InvalidValueError) as caught:
        codec.check([1, 2, "hunter2", None])
    error = caught.value
    assert (error.where, error.expected, error.index) == ("input 'foo'", "int", 2)
    assert "integer" in error.problem
    assert "(got str)" in error.problem


def test_an_error_shows_where_but_no_value() -> None:
    with pytest.raises(InvalidValueError) as caught:
        ValueCodec(list[Document]).frames([[Document(id=1)], [{"id": "hunter2"}, {}]])
    error = caught.value
    assert error.index == 1
    assert "0.id: Input should be a valid integer" in error.problem
    assert "1.id: Field required" in error.problem
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert "hunter2" not in str(error)


def test_a_validator_may_raise_what_it_likes() -> None:
    def refuse(value: int) -> int:
        if value == 3:
            raise KeyError("three")
        return value

    codec = ValueCodec(Annotated[int, AfterValidator(refuse)])
    with pytest.raises(InvalidValueError, match="KeyError") as caught:
        codec.frames([1, 2, 3])
    assert caught.value.index == 2
    (frame,) = ValueCodec(int).frames([3, 4])
    outcome = codec.value_list_or_errors(frame.payload)
    assert isinstance(outcome[0], InvalidValueError)
    assert outcome[1] == 4


def test_one_bad_value_does_not_spoil_a_frame() -> None:
    (frame,) = ANY.frames([1, "x", 3, None])
    codec = ValueCodec(int, where="foo")
    with pytest.raises(InvalidValueError) as caught:
        codec.values(frame.payload)
    assert caught.value.index == 1
    outcome = codec.value_list_or_errors(frame.payload)
    assert outcome[0::2] == [1, 3]
    errors = [value for value in outcome if isinstance(value, InvalidValueError)]
    assert [(error.index, error.where) for error in errors] == [(1, "foo"), (3, "foo")]


def test_strict_types_stay_strict_on_reading() -> None:
    (frame,) = ANY.frames([{"color": "red", "count": "5", "inner": {"a": 1, "b": (), "c": 3}}])
    with pytest.raises(InvalidValueError, match="integer"):
        ValueCodec(Strict).values(frame.payload)
    (frame,) = ANY.frames(["5"])
    with pytest.raises(InvalidValueError):
        ValueCodec(StrictInt).values(frame.payload)


def test_a_subclass_travels_as_what_is_declared() -> None:
    class Longer(Document):
        more: int = 5

    assert round_trip(ValueCodec(Document), [Longer(id=1)]) == [Document(id=1)]


# ------------------------------------------------------------------------------------------------- cutting


def test_frames_are_cut_by_count() -> None:
    frames = ValueCodec(int).frames(range(600))
    assert [(frame.start, frame.count) for frame in frames] == [(0, 256), (256, 256), (512, 88)]
    assert unpack(frames[2].payload) == list(range(512, 600))
    assert ValueCodec(int).frames([]) == []


@pytest.mark.parametrize("sizes", [[30_000] * 7, [1] * 100 + [65_000] * 2 + [1] * 100, [65_000, 600, 600], [200] * 256])
def test_frames_are_cut_by_size(sizes: list[int]) -> None:
    values = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    frames = ValueCodec(bytes).frames(values)
    assert [value for frame in frames for value in ANY.values(frame.payload)] == values
    assert all(len(frame.payload) <= 65_536 and not frame.blobs for frame in frames)
    assert [frame.start for frame in frames] == [sum(f.count for f in frames[:i]) for i in range(len(frames))]
    neighbours = itertools.pairwise(frames)
    assert all(len(left.payload) + len(pack(values[right.start])) > 65_533 for left, right in neighbours)


@pytest.mark.parametrize(("size", "inline"), [(65_530, True), (65_531, False), (65_536, False), (200_000, False)])
def test_a_large_value_becomes_a_blob(size: int, inline: bool) -> None:
    codec = ValueCodec(bytes)
    value = b"x" * size
    (frame,) = codec.frames([b"a", value, b"b"]) if not inline else codec.frames([value])
    assert bool(frame.blobs) is not inline
    assert references(frame.payload) == [blob.ref for blob in frame.blobs]
    assert all(blob.size_bytes == len(blob.body) and unpack(blob.body) == value for blob in frame.blobs)
    assert value in codec.values(frame.payload, blobs_of(frame))
    assert value in codec.value_list_or_errors(frame.payload, blobs_of(frame))


def test_blobs_stay_with_their_frame() -> None:
    values = ["a" * 70_000, "b" * 65_000, "c" * 70_000, "d" * 65_000]
    frames = ANY.frames(values)
    assert [value for frame in frames for value in ANY.values(frame.payload, blobs_of(frame))] == values
    assert [len(frame.blobs) for frame in frames] == [1, 1, 0] or [len(frame.blobs) for frame in frames] == [2, 0]


def test_a_large_array_lies_in_its_blob() -> None:
    codec = ValueCodec(npt.NDArray[np.float32])
    (frame,) = codec.frames([np.arange(50_000, dtype="f4")])
    (array,) = codec.values(frame.payload, blobs_of(frame))
    assert np.shares_memory(array, np.frombuffer(frame.blobs[0].body, "u1"))
    assert array.flags.aligned
    assert not array.flags.writeable


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (str, "x" * 5000),
        (Any, ["x"] * 5000),
        (bytes, b"x" * 10**6),
        (np.ndarray, np.zeros(10**6)),
        (list[int], [300] * 2000),
    ],
)
def test_refuses_a_value_over_the_limit(annotation: Any, value: Any) -> None:
    small = ValueCodec(annotation, max_value_bytes=4000, where="foo")
    with pytest.raises(PayloadTooLargeError) as caught:
        small.frames([value[:1], value])
    assert caught.value.where == "foo (value 1)"
    assert caught.value.limit_bytes == 4000
    assert caught.value.size_bytes > 4000
    assert len(ValueCodec(str, max_value_bytes=5).frames(["abcd"] * 100)) == 1


@pytest.mark.parametrize("limit", [0, -1, 2**32])
def test_refuses_a_limit_out_of_range(limit: int) -> None:
    with pytest.raises(ConfigurationError, match="max_value_bytes"):
        ValueCodec(int, max_value_bytes=limit)


# ------------------------------------------------------------------------------------------ refused values


class Opaque:
    pass


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (Any, Opaque(), "Opaque"),
        (Any, {"a": [Opaque()]}, "Opaque"),
        (Any, SecretStr("x"), "Secret"),
        (Any, Box[Any](content=Opaque()), "Opaque"),
        (list[Any], [Opaque()], "Opaque"),
        (Box[Any], Box[Any](content=open), "builtin_function"),
        (Annotated[int, PlainSerializer(lambda value: 1 // (value - 5))], 5, "ZeroDivisionError"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_a_value_without_a_form(annotation: Any, value: Any, text: str) -> None:
    good = 1 if annotation not in (list[Any], Box[Any]) else value.__class__.__new__(type(value))
    if isinstance(good, BaseModel):
        good = Box[Any](content=1)
    with pytest.raises(UnserializableValueError, match=text) as caught:
        ValueCodec(annotation, where="foo").frames([good, good, value])
    assert caught.value.where == "foo (value 2)"


def test_an_unknown_object_is_told_what_to_do() -> None:
    with pytest.raises(UnserializableValueError, match="pydantic model, a dataclass or plain values"):
        ANY.frames([Opaque()])


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def linked(length: int) -> Document:
    document = Document(id=0)
    for index in range(length):
        document = Document(id=index, parts=[document])
    return document


def test_what_can_be_written_can_be_read() -> None:
    for codec, make, most in (
        (ANY, nested, 63),
        (ValueCodec(list[Any]), nested, 63),
        (ValueCodec(Document), linked, 30),
    ):
        assert round_trip(codec, [make(most)] * 2) == [make(most)] * 2
        with pytest.raises(UnserializableValueError, match="containers inside each other") as caught:
            codec.frames([make(1), make(most + 2)])
        assert caught.value.where == "value (value 1)"


def test_an_object_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for codec in (ANY, ValueCodec(list[Any])):
        with pytest.raises((UnserializableValueError, InvalidValueError)):
            codec.frames([endless])


def test_a_million_parts_may_be_many_values_but_not_one_small_limit() -> None:
    value = [0] * 1_100_000
    assert round_trip(ValueCodec(list[int]), [value]) == [value]
    with pytest.raises(UnserializableValueError, match="1000000 parts"):
        ValueCodec(list[int], max_value_bytes=2_000_000).frames([value])
    with pytest.raises(UnserializableValueError, match="1000000 parts"):
        ValueCodec(Any, max_value_bytes=2_000_000).frames([value])


# ------------------------------------------------------------------------------------------- hostile bytes


@pytest.mark.parametrize(
    "payload",
    [
        *(b"", b"\x01", b"\x90", b"\x80", b"\xc1", b"\x91", b"\x92\x01", pack(list(range(257))), pack((1,))),
        *(pack(["x" * 66_000]), b"\x91" * 3000 + b"\x01", pack([[pack_ref(BlobRef("0" * 64, 1))]])[:-1]),
        *(b"\x91\x91" + pack_ref(BlobRef("0" * 64, 1)), b"\x91\x81\x01" + pack_ref(BlobRef("0" * 64, 1))),
        pack_ref(BlobRef("0" * 64, 1)),
    ],
    ids=lambda payload: payload[:8].hex(),
)
@pytest.mark.parametrize("codec", [ANY, ValueCodec(int), ValueCodec(Document)], ids=repr)
def test_refuses_a_payload_that_is_none(codec: ValueCodec, payload: bytes) -> None:
    with pytest.raises(TamperedDataError):
        codec.values(payload)
    with pytest.raises(TamperedDataError):
        codec.value_list_or_errors(payload)


def test_deep_bytes_for_a_shallow_type_are_only_invalid() -> None:
    with pytest.raises(InvalidValueError):
        ValueCodec(int).values(b"\x91" * 900 + b"\x01")
    with pytest.raises(TamperedDataError, match="containers"):
        ValueCodec(Document).values(b"\x91" * 900 + b"\x01")


def test_blobs_are_verified() -> None:
    (frame,) = ANY.frames(["x" * 70_000])
    (blob,) = frame.blobs
    other = pack("y" * 70_000)
    for blobs in (None, {}, {blob.digest: b""}, {blob.digest: other}, {blob.digest: blob.body + b"\0"}):
        with pytest.raises(TamperedDataError, match="blob") as caught:
            ANY.values(frame.payload, blobs)
        assert caught.value.where == "value (value 0)"
    nested_ref = pack(["x", 1])[:-1] + pack_ref(blob.ref)
    ref = BlobRef(blob.digest, len(nested_ref))
    with pytest.raises(TamperedDataError):
        ANY.values(b"\x91" + pack_ref(ref), {blob.digest: nested_ref})


# --------------------------------------------------------------------------------------------- annotations


@pytest.mark.parametrize(
    "annotation",
    [np.ndarray, npt.NDArray[np.float32], list[np.ndarray], dict[str, npt.NDArray[Any]], np.ndarray | None, Frames],
    ids=str,
)
def test_arrays_may_be_declared(annotation: Any) -> None:
    array = np.arange(6, dtype="f4").reshape(2, 3)
    value: Any = {
        list[np.ndarray]: [array],
        dict[str, npt.NDArray[Any]]: {"a": array},
        Frames: Frames(array, Inner(1)),
    }.get(annotation, array)
    codec = ValueCodec(annotation)
    (restored,) = round_trip(codec, [value])
    inner = restored["a"] if isinstance(restored, dict) else restored[0] if isinstance(restored, list) else restored
    inner = inner.image if isinstance(inner, Frames) else inner
    assert np.array_equal(inner, array)
    assert inner.dtype == "f4"
    assert "ndarray" in str(codec.schema)
    with pytest.raises(InvalidValueError, match=r"ndarray|Frames"):
        codec.frames([[1, 2]])


def test_numpy_scalars_may_be_declared() -> None:
    (restored,) = round_trip(ValueCodec(np.float32), [np.float32(1.5)])
    assert type(restored) is np.float32
    assert [type(value) for value in round_trip(ValueCodec(float), [np.float64(1.5)])] == [float]


def test_tensors_may_be_declared() -> None:
    torch = pytest.importorskip("torch")
    codec = ValueCodec(torch.Tensor)
    (restored,) = round_trip(codec, [torch.ones(2, 3, dtype=torch.bfloat16)])
    assert restored.dtype is torch.bfloat16
    large = torch.arange(100_000)
    assert torch.equal(round_trip(codec, [large])[0], large)
    with pytest.raises(PayloadTooLargeError):
        ValueCodec(torch.Tensor, max_value_bytes=1000).frames([large])
    with pytest.raises(InvalidValueError):
        codec.frames([1])


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (Opaque, "found Opaque"),
        (dict[str, Opaque], "with Opaque in it"),
        (tuple[np.ndarray, Opaque, Sequence[int], Path], "with Opaque in it"),
        (bytearray, "bytearray"),
        (range, "range"),
        (Iterable[int], "used up"),
        (Iterator[int], "with Iterator in it"),
        (list[Generator[int, None, None]], "used up"),
        (Callable[[int], int], "function"),
        ("Document", "text"),
        (ForwardRef("Document"), "text"),
        (list["Nowhere"], "Nowhere"),  # type: ignore[name-defined]  # noqa: F821
        (..., "Ellipsis|\\.\\.\\."),
        (5, "5"),
    ],
    ids=str,
)
def test_refuses_types_whose_values_cannot_be_sent(annotation: Any, text: str) -> None:
    with pytest.raises(ContractMismatchError, match=text) as caught:
        ValueCodec(annotation, where="input 'foo'")
    assert caught.value.where == "input 'foo'"
    assert caught.value.fix


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (Any, "Any"),
        (None, "None"),
        (Document, "Document"),
        (list[int], "list[int]"),
        (dict[str, Document | None], "dict[str, Document | None]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (Annotated[int, Field(gt=1)], "int"),
        (Literal["a", 1], "Literal['a', 1]"),
        (npt.NDArray[np.float32], "ndarray[tuple[Any, ...], dtype[float32]]"),
        (Box[int], "Box[int]"),
    ],
    ids=str,
)
def test_a_type_has_a_short_name(annotation: Any, text: str) -> None:
    codec = ValueCodec(annotation)
    assert codec.text == text
    assert repr(codec) == f"ValueCodec({text})"
    assert codec.annotation is annotation or codec.annotation == annotation


def test_schemas_tell_contracts_apart() -> None:
    assert ValueCodec(int).schema == {"type": "integer"}
    assert ValueCodec(Any).schema == {}
    assert ValueCodec(Document).schema == ValueCodec(Document).schema
    assert "$defs" in ValueCodec(Document).schema
    assert ValueCodec(list[Cat]).schema != ValueCodec(list[Dog]).schema
    assert ValueCodec(np.ndarray).schema == {"x-python-type": "ndarray"}
    assert "userId" not in str(ValueCodec(Renamed).schema)
