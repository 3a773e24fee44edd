"""Limits: what comes from the store is bounded before it is parsed, and reading it runs nothing."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import msgpack
import pytest
from pydantic import BaseModel, Field, ImportString, field_validator

import datamesh
from datamesh.codec.limits import INLINE_LIMIT_BYTES, Limits
from datamesh.codec.values import ValueCodec
from datamesh.codec.wire import pack, unpack
from datamesh.errors import (
    ContractMismatchError,
    DataError,
    InvalidValueError,
    TamperedDataError,
    UnserializableValueError,
)

UNPACKERS = {"bz2", "gzip", "lzma", "zipfile", "tarfile", "zlib", "zstandard", "zstd", "lz4", "snappy", "brotli"}
RUNNERS = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "yaml", "jsonpickle"}
CHILD = {"supervise/child.py", "supervise/child_wire.py", "supervise/child_process.py", "supervise/isolation.py"}
"""Speak to a child process of their own, over a pipe that nobody else has."""
PACKAGE = Path(datamesh.__file__).parent


def nested(depth: int, head: bytes) -> bytes:
    return b"\x91" + head * (depth - 1) + b"\xc0"


# ----------------------------------------------------------------------------------------- nothing is run


@pytest.mark.timeout(120)
@pytest.mark.parametrize("optimised", [False, True], ids=["", "-O"])
def test_reading_hostile_bytes_runs_nothing_and_ends_in_an_error_of_ours(optimised: bool, tmp_path: Path) -> None:
    options = ["-O"] if optimised else []
    root = str(PACKAGE.parent)
    done = subprocess.run(
        [sys.executable, *options, "-m", "tests.unit.hostile", str(tmp_path / "was-run")],
        capture_output=True, text=True, timeout=110, check=False, cwd=root,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert found["events"] == []
    assert not (tmp_path / "was-run").exists()
    assert found["bodies"] > 1500
    assert found["refused"] > 10 * found["bodies"]


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_nothing_is_decompressed_and_nothing_is_unpickled() -> None:
    for path in PACKAGE.rglob("*.py"):
        banned = UNPACKERS if path.relative_to(PACKAGE).as_posix() in CHILD else UNPACKERS | RUNNERS
        found = imported(path) & banned
        assert found <= ({"zlib"} if uses_only_crc(path) else set()), path


def uses_only_crc(path: Path) -> bool:
    source = path.read_text("utf-8")
    return source.count("zlib.") == source.count("zlib.crc32(")


@pytest.mark.parametrize("kind", [ImportString, list[ImportString[Any]], dict[str, ImportString[Any]]], ids=str)
def test_a_type_that_imports_what_it_is_given_is_refused(kind: Any) -> None:
    with pytest.raises(ContractMismatchError, match="imports what a sender names"):
        ValueCodec(kind)


class Loaded(BaseModel):
    function: ImportString[Any]


def test_a_model_with_such_a_field_is_refused() -> None:
    with pytest.raises(ContractMismatchError, match="imports what a sender names"):
        ValueCodec(Loaded)


# ------------------------------------------------------------------------------------------------- depth, size


@pytest.mark.parametrize("head", [b"\x91", b"\x81\xa1a", b"\x92\xc0"], ids=["list", "map", "pair"])
def test_the_depth_is_bounded(head: bytes) -> None:
    shallow, deep = Limits(max_depth=64), nested(64, head if head != b"\x92\xc0" else b"\x91")
    assert unpack(deep, shallow) is not None
    for depth in (65, 200, 1023, 1024, 1025, 5000, 60_000):
        with pytest.raises(TamperedDataError):
            unpack(nested(depth, head)[:INLINE_LIMIT_BYTES], shallow)


def test_what_is_too_deep_is_not_sent_either() -> None:
    value: Any = None
    for _ in range(200):
        value = [value]
    with pytest.raises(UnserializableValueError, match="64 containers"):
        ValueCodec(Any).frames([value])


def test_the_size_is_looked_at_before_anything_else() -> None:
    with pytest.raises(TamperedDataError, match="over the limit"):
        unpack(b"\xc1" * 101, Limits(max_bytes=100))
    with pytest.raises(TamperedDataError, match="over the limit"):
        ValueCodec(Any).values(b"\xc1" * (INLINE_LIMIT_BYTES + 1))


def test_the_number_of_parts_is_bounded() -> None:
    few = Limits(max_nodes=1000)
    with pytest.raises(TamperedDataError):
        unpack(pack([[None] * 100] * 100), few)
    with pytest.raises(TamperedDataError):
        unpack(pack(dict.fromkeys(range(2000))), few)


@pytest.mark.parametrize("code", [0, 15, 19, 33, 127])
def test_an_unknown_type_of_object_is_refused(code: int) -> None:
    with pytest.raises(TamperedDataError, match="no ext type"):
        ValueCodec(Any).values(msgpack.packb([msgpack.ExtType(code, b"x")]))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_none_are_refused_where_the_type_says_so(number: float) -> None:
    payload = msgpack.packb([number])
    finite = ValueCodec(Annotated[float, Field(allow_inf_nan=False)])
    with pytest.raises(InvalidValueError):
        finite.values(payload)
    with pytest.raises(InvalidValueError):
        finite.frames([number])
    with pytest.raises(InvalidValueError):
        ValueCodec(int).values(payload)
    assert len(ValueCodec(float).values(payload)) == 1


# --------------------------------------------------------------------------------- errors that are no Exception


class Tree(BaseModel):
    kids: list[Tree] = []


class Hungry(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def _check(cls, text: str) -> str:
        raise {"deep": RecursionError, "wide": MemoryError}[text]


@pytest.mark.parametrize("word", ["deep", "wide"])
def test_a_lack_of_stack_or_memory_is_an_error_of_the_value(word: str) -> None:
    with pytest.raises(DataError):
        ValueCodec(Hungry).values(msgpack.packb([{"text": word}]))
    with pytest.raises(DataError):
        ValueCodec(Hungry).frames([{"text": word}])


def test_a_recursive_type_meets_the_bound_before_the_stack_ends() -> None:
    value: dict[str, Any] = {}
    for _ in range(5000):
        value = {"kids": [value]}
    with pytest.raises(DataError):
        ValueCodec(Tree).frames([value])


def test_a_value_that_is_in_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(UnserializableValueError):
        ValueCodec(Any).frames([loop])


@pytest.mark.parametrize("body", [b"02024-01-01T00:00:00canary-5", b"canary-5", b"acanary-5", b"1/canary-5"])
def test_what_cannot_be_read_is_not_quoted(body: bytes) -> None:
    for code in (5, 6, 7, 9, 10, 14):
        with pytest.raises(TamperedDataError) as caught:
            ValueCodec(Any).values(msgpack.packb([msgpack.ExtType(code, body)]))
        assert "canary-5" not in str(caught.value)
        assert caught.value.__cause__ is None
