"""Hostile bytes, and a program that reads each of them in every way there is while it watches what Python does.

`python -m tests.unit.hostile <file>` prints one JSON object: how many were read, and what happened that must not. The
bytes would make `<file>` if anything in them were run.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import marshal
import os
import pickle
import random
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import msgpack
import numpy as np
from pydantic import BaseModel, SecretStr

from datamesh.codec.ext import Ext
from datamesh.codec.failure import Failure
from datamesh.codec.frame import decode_lineages, encode_lineages, parts_of, references, slice_payload
from datamesh.codec.seal import NoSeal, Seal
from datamesh.codec.values import ValueCodec
from datamesh.errors import DatameshError
from datamesh.model.plan import Plan

FORBIDDEN = (
    "import", "exec", "compile", "marshal", "pickle", "os.", "subprocess", "ctypes", "socket", "shutil", "tempfile",
    "open", "code.", "function.", "webbrowser", "urllib", "sqlite3", "syslog", "signal",
)  # fmt: skip
MODULES = {"numpy", "torch"}
"""What a value may need, by names that stand in the code."""
MOST_SECONDS = 5.0
MOST_BYTES = 64 * 2**20
CANARY = sys.argv[-1]
SEED = 1


class Reduced:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__("os").system, (f"touch {CANARY}",)


class Document(BaseModel):
    title: str
    parts: list[Document] = []
    facts: dict[str, Any] = {}


@dataclass
class Login:
    user: str
    password: SecretStr


# ------------------------------------------------------------------------------------------------------ bytes


def programs() -> Iterator[bytes]:
    """What somebody would run, in the form that their tool reads."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.dumps(Reduced(), protocol)
    yield f"cos\nsystem\n(S'touch {CANARY}'\ntR.".encode()
    yield f"c__builtin__\neval\n(S'open({CANARY!r}, \"w\")'\ntR.".encode()
    yield marshal.dumps(compile(f"open({CANARY!r}, 'w')", "x", "exec"))
    yield f"!!python/object/apply:os.system ['touch {CANARY}']".encode()
    yield json.dumps(
        {"__class__": "os.system", "py/object": "os.system", "__reduce__": ["os.system", [CANARY]]}
    ).encode()
    yield b"os:system"
    yield b"os.system"
    yield f"__import__('os').system('touch {CANARY}')".encode()


def bombs() -> Iterator[bytes]:
    """Small bytes that would be large if anybody unpacked them."""
    zeros = bytes(10 * 2**20)
    yield zlib.compress(zeros, 9)
    yield gzip.compress(zeros, 9)
    yield bz2.compress(zeros)
    yield lzma.compress(zeros)
    yield zlib.compress(zlib.compress(zeros, 9), 9)


def claims() -> Iterator[bytes]:
    """Headers that promise more than there is, and nests that are deeper than anything is."""
    for head in (0xC6, 0xC9, 0xDB, 0xDD, 0xDF):
        yield bytes((head,)) + b"\xff" * 4
        yield (bytes((head,)) + b"\xff" * 4) * 100
        yield b"\x91" + bytes((head,)) + b"\x7f\xff\xff\xff"
    for depth in (63, 64, 65, 1000, 1024, 1025, 10_000, 60_000):
        yield b"\x91" * depth + b"\xc0"
        yield b"\x81\xa1a" * depth + b"\xc0"
        yield b"\x92\xc7\x00\x02" * (depth // 4) + b"\xc0"
        yield b"[" * depth
        yield b'{"flow":' * depth
    yield b"\xdc\x01\x00" + b"\x90" * 65_000
    yield b"\x91" + b"\xdc\xff\xff" + b"\xc0" * 65_535


def extensions(bodies: list[bytes]) -> Iterator[bytes]:
    """Each type of ext object that there is, and some that there are not, with each body."""
    yield from (b"\x91\xd4" + bytes((code, 0)) for code in range(256))
    yield from (b"\x91\xc7\x0c\xff" + b"\xff" * 12, b"\x91\xd6\xff" + b"\xff" * 4, b"\x91\xd7\xff" + b"\xff" * 8)
    for code in (*Ext, 0, 15, 33, 127):
        yield from (msgpack.packb([msgpack.ExtType(code, body)]) for body in bodies)


def array(dtype: Any, shape: Any, buffer: bytes = b"") -> bytes:
    meta = msgpack.packb([dtype, shape])
    return len(meta).to_bytes(2, "big") + (4 + len(meta)).to_bytes(2, "big") + bytes(meta) + buffer


def oddities() -> list[bytes]:
    """Bodies of ext objects that a constructor might stumble over."""
    colliding = msgpack.packb([msgpack.ExtType(1, (k * (2**61 - 1)).to_bytes(16, "big")) for k in range(1, 2000)])
    return [
        b"", b"\x00" * 40, b"\xff" * 40, b"1" * 60_000, b"1E+999999999", b"NaN", b"1/0", b"1e9999999/1",
        b"9" * 5000 + b"/1",
        b"02024-01-01T00:00:00[../../../etc/passwd]", b"02024-01-01T00:00:00+00:00[os.system/x]",
        b"02024-01-01T00:00:00+00:00[subprocess]", b"a::1%" + b"x" * 50_000, b"n0.0.0.0/99", b"../../etc/passwd\x00",
        array("|O", [1], b"\0" * 8), array("os.system", [1]), array([["f", "|O"]], [1], b"\0" * 8), array("onnx", [0]),
        array("_dynamo", [0]), array("<f8", [2**62, 4]), array("|V2147483647", [0]), array("<f8", [0] * 60_000),
        array("<f8", [-1, -1], b"\0" * 8), array([[["f", "f"], "<f8"]] * 500, [0]), b"\xff\xff\xff\xff", colliding,
    ]  # fmt: skip


def broken(payload: bytes, chance: random.Random, times: int) -> Iterator[bytes]:
    """The bytes cut short at every place, and with a few of them changed."""
    yield from (payload[:length] for length in range(len(payload)))
    for _ in range(times):
        changed = bytearray(payload)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        yield bytes(changed)


def corpus(seed: int) -> list[bytes]:
    """All of them; the same for the same seed."""
    raw = [*programs(), *bombs(), *claims()]
    wrapped = [msgpack.packb(form) for body in raw[:30] for form in ([body], {"plan": body}, [{"title": body}])]
    texts = [msgpack.packb([body.decode("latin-1")]) for body in [*programs()]]
    chance = random.Random(seed)
    sound = [frame.payload for frame in ValueCodec(Any).frames([honest()])] + [failure().pack(), encode_lineages(LINES)]
    cut = [body for payload in sound for body in broken(payload, chance, 60)]
    return [*raw, *wrapped, *texts, *extensions([*programs(), *oddities()]), *cut]


LINES = [(3, 0), (3, 1), (4,), ()]


def honest() -> list[Any]:
    """One of each thing that has a form on the wire."""
    paris = datetime(2024, 1, 1, tzinfo=ZoneInfo("Europe/Paris"))
    return [
        1, 2**80, 1.5, "text", b"bytes", None, (1, 2), {3}, frozenset({4}), {"a": [1]}, paris, datetime.now(UTC),
        paris.date(), Decimal("1.5"), Fraction(1, 3), UUID(int=5), 1j, Path("a/b"), ip_address("::1"), np.zeros((2, 3)),
        np.float32(1),
    ]  # fmt: skip


def failure() -> Failure:
    return Failure(
        task="split", attempt=1, remote_type="ValueError", message="bad page", remote_traceback="Traceback\n"
    )


# ---------------------------------------------------------------------------------------------------- reading


def ways() -> dict[str, Callable[[bytes], object]]:
    """Every way in which bytes from the store become something."""
    types = [Any, int, str, bytes, float, datetime, list[dict[str, Any]], dict[str, int], Document, Login, SecretStr]
    codecs = [ValueCodec(kind) for kind in types] + [ValueCodec(np.ndarray)]
    seal = Seal(["a key of this mesh, long"])
    return {
        **{f"values {codec.text}": codec.values for codec in codecs},
        **{f"each {codec.text}": codec.value_list_or_errors for codec in codecs[-3:-2]},
        "failure": Failure.unpack,
        "lineages": decode_lineages,
        "parts": parts_of,
        "references": references,
        "slice": lambda payload: slice_payload(payload, [0]),
        "plan": Plan.from_wire,
        "seal": lambda payload: seal.open(payload, "run", where="here"),
        "no seal": lambda payload: NoSeal().open(payload, "run", where="here"),
    }


class Watch:
    """Records what Python is asked to do that reading a value must not ask for."""

    def __init__(self) -> None:
        self.is_on = False
        self.found: list[str] = []

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.is_on and event.startswith(FORBIDDEN) and not self._is_allowed(event, args):
            self.found.append(f"{event} {str(args)[:200]}")

    def _is_allowed(self, event: str, args: tuple[Any, ...]) -> bool:
        """Whether it is one of the modules that are imported late, or the look for it where others write files."""
        if event == "os.listdir":
            return bool(args) and os.path.abspath(str(args[0] or ".")) in {os.path.abspath(path) for path in sys.path}
        return event == "import" and args[0] in MODULES


def read_all(bodies: list[bytes]) -> dict[str, Any]:
    """Read each in every way; only an error of ours may come of it, and neither much time nor much memory."""
    watch, problems, refused, accepted = Watch(), [], 0, 0
    sys.addaudithook(watch)
    tracemalloc.start()
    for name, read in ways().items():
        for number, body in enumerate(bodies):
            began = time.perf_counter()
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            watch.is_on = True
            try:
                read(body)
                accepted += 1
            except DatameshError:
                refused += 1
            except BaseException as exc:
                problems.append(f"{name} of {number} ({body[:40]!r}): {type(exc).__name__}: {str(exc)[:100]}")
            watch.is_on = False
            seconds, peak = time.perf_counter() - began, tracemalloc.get_traced_memory()[1] - before
            if seconds > MOST_SECONDS or peak > MOST_BYTES:
                problems.append(f"{name} of {number} ({body[:40]!r}): {seconds:.1f} s, {peak} bytes")
    return {"bodies": len(bodies), "refused": refused, "accepted": accepted, "problems": problems[:20],
            "events": watch.found[:20]}  # fmt: skip


def main() -> None:
    """Read what is honest first, so that what Python loads lazily is loaded; then all that is not."""
    for encoding in ("unicode_escape", "utf-16-be", "utf-16-le", "utf-32-be", "utf-32-le"):
        json.loads("1".encode(encoding).decode(encoding))  # JSON may be in any of them
    for codec in ways().values():
        for frame in ValueCodec(Any).frames([honest()]):
            try:
                codec(frame.payload)
            except DatameshError:
                continue
    print(json.dumps(read_all(corpus(SEED))))


if __name__ == "__main__":
    main()
