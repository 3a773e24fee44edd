"""Frames: lineages blocks, slices of values blocks and references in them."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamesh.codec.blob import Blob
from datamesh.codec.frame import (
    array_of,
    decode_lineages,
    encode_lineages,
    fits_inline,
    references,
    slice_payload,
    span,
)
from datamesh.codec.values import ANY
from datamesh.codec.wire import pack, pack_ref
from datamesh.errors import ConfigurationError, TamperedDataError

steps = st.integers(0, 5) | st.integers(0, 2**63 - 3)
paths = st.lists(st.lists(steps, max_size=4).map(tuple), max_size=30)
runs = st.tuples(st.lists(steps, max_size=3).map(tuple), st.integers(0, 9), st.integers(1, 9)).map(
    lambda run: [(*run[0], run[1] + index) for index in range(run[2])]
)


@given(paths | st.lists(runs, max_size=5).map(lambda parts: [path for part in parts for path in part]))
@settings(max_examples=100, deadline=None)
def test_lineages_come_back(lineages: list[tuple[int, ...]]) -> None:
    assert decode_lineages(encode_lineages(lineages)) == lineages


@pytest.mark.parametrize(
    ("lineages", "segments"),
    [
        ([(3,)], [[3, 1]]),
        ([(index,) for index in range(256)], [[0, 256]]),
        ([(3, 0), (3, 1), (4, 0)], [[3, 0, 2], [4, 0, 1]]),
        ([(0,), (1,), (1, 2), (3,), (4,)], [[0, 2], [1, 2, 1], [3, 2]]),
        ([(0,), (2,), (1,), (3,)], [[0, 1], [2, 1], [1, 1], [3, 1]]),
        ([(1,), (1,)], [[1, 1], [1, 1]]),
        ([(), (), (0,)], [[2], [0, 1]]),
        ([], []),
    ],
)
def test_siblings_share_a_segment(lineages: list[tuple[int, ...]], segments: list[list[int]]) -> None:
    block = encode_lineages(lineages)
    assert msgpack.unpackb(block) == segments
    assert decode_lineages(block) == lineages


@pytest.mark.parametrize("prefix", [(), (7,), (1, 2**40)])
def test_a_span_is_the_block_of_its_lineages(prefix: tuple[int, ...]) -> None:
    lineages = [(*prefix, index) for index in range(5, 25)]
    assert span(prefix, 5, 20) == encode_lineages(lineages)


@pytest.mark.parametrize(
    "segments",
    [
        *(1, {}, [1], ["a"], [[]], [[0, 0]], [[0, -1]], [[-1, 1]], [[0, 257]], [[0, 200], [0, 57]], [[0.0, 1]]),
        *([[True, 1]], [[0, True]], [[0, "1"]], [[2**63, 1]], [[2**63 - 1, 1]], [[0] * 300 + [1]], [[257]], [[[0], 1]]),
        *([[0, 2**63 - 1]], [[None, 1]], [[1, 1], [0]]),
    ],
    ids=lambda segments: str(segments)[:20],
)
def test_refuses_other_lineages(segments: object) -> None:
    with pytest.raises(TamperedDataError):
        decode_lineages(msgpack.packb(segments))


@pytest.mark.parametrize(
    "block", [b"", b"\xc1", b"\x91", b"\xdd\xff\xff\xff\xff", b"\x91" * 5000, b"\xc0" * 70_000, b"\x01\x01"]
)
def test_refuses_lineages_that_are_no_msgpack(block: bytes) -> None:
    with pytest.raises(TamperedDataError):
        decode_lineages(block)


def test_a_limit_on_lineages() -> None:
    block = span((), 0, 10)
    assert len(decode_lineages(block, limit=10)) == 10
    with pytest.raises(TamperedDataError, match="more than 9"):
        decode_lineages(block, limit=9)


@pytest.mark.parametrize("lineage", [(-1,), (2**63,), (0,) * 257])
def test_gives_no_lineages_that_it_would_refuse(lineage: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError):
        encode_lineages([lineage])
    with pytest.raises(ConfigurationError):
        span(lineage[:-1], lineage[-1], 1)


# ------------------------------------------------------------------------------------------- values blocks

REF = Blob.of(b"large").ref
PARTS = [pack((1, {"a"})), pack(5), pack_ref(REF), pack([[], {}]), pack("x" * 300), pack(2**70)]


def test_a_slice_keeps_the_bytes() -> None:
    payload = array_of(PARTS)
    for keep in ([0], [2, 4], range(6), [5, 0], [1, 1]):
        assert slice_payload(payload, keep) == array_of([PARTS[index] for index in keep])
    many = pack(list(range(256)))
    assert slice_payload(many, range(100, 256)) == pack(list(range(100, 256)))
    assert slice_payload(many, range(256)) == many


@pytest.mark.parametrize("count", [1, 15, 16, 255, 256])
def test_a_block_is_an_array(count: int) -> None:
    assert array_of([pack(index) for index in range(count)]) == pack(list(range(count)))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x01",
        b"\x90",
        b"\x80",
        b"\x92\x01",
        b"\x91\x01\x01",
        b"\x91\xc1",
        b"\xdd\xff\xff\xff\xff",
        b"\xdc\x01\x01" + b"\1" * 257,
        b"\x91" * 2000,
        b"\x91\xc6\0\1\xff\xff" + b"\0" * 0x1FFFF,
    ],
    ids=lambda payload: payload[:6].hex(),
)
def test_refuses_to_slice_other_bytes(payload: bytes) -> None:
    with pytest.raises(TamperedDataError):
        slice_payload(payload, [0])


@pytest.mark.parametrize("keep", [[6], [-1], [0, 100]])
def test_refuses_a_place_without_a_value(keep: list[int]) -> None:
    with pytest.raises(TamperedDataError, match="there are 6"):
        slice_payload(array_of(PARTS), keep)


def test_finds_references_and_only_those() -> None:
    other = Blob.of(b"other").ref
    assert references(array_of([*PARTS, pack_ref(other)])) == [REF, other]
    assert references(pack([1, "a"])) == []
    assert references(pack([pack_ref(REF), [b"x" + pack_ref(REF)]])) == []
    with pytest.raises(TamperedDataError):
        references(array_of(PARTS)[:-1])


def test_finds_the_references_that_the_codec_makes() -> None:
    (frame,) = ANY.frames([1, "x" * 70_000, "y" * 70_000, 2])
    assert references(frame.payload) == [blob.ref for blob in frame.blobs]
    assert references(slice_payload(frame.payload, [0, 2])) == [frame.blobs[1].ref]


def test_fits_inline_leaves_room_for_the_header() -> None:
    assert len(array_of([b"\xc0" * 65_533])) <= 65_536
    assert fits_inline(65_533)
    assert not fits_inline(65_534)
