"""Garbage: entries for a work stream that nobody should have written, each wrong in its own way."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import msgpack

from datamesh.codec.frame import span

Fields = dict[bytes, bytes]
_NAMES = (b"r", b"p", b"m", b"l", b"v")
_HUGE_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Known:
    """What a forger may know: a plan that exists, and a run of it that is open.

    Attributes:
        digest: Of the plan.
        run_id: Of the run.
        origin: Of the run.
    """

    digest: str
    run_id: str
    origin: str

    def entry(self, *, run: str = "", meta: str = "0 1 1 -", values: bytes = b"") -> Fields:
        """An entry in the right form, of a run that never was unless another one is named."""
        return {
            b"r": (run or "ghost 0123456789abcdef").encode(),
            b"p": self.digest.encode(),
            b"m": meta.encode(),
            b"l": span((), 0, 1),
            b"v": values or bytes(msgpack.packb([1])),
        }


Forge = Callable[[random.Random, Known], Fields]


def _missing(chance: random.Random, known: Known) -> Fields:
    missing = chance.choice(_NAMES)
    return {name: value for name, value in known.entry().items() if name != missing}


def _noise(chance: random.Random, known: Known) -> Fields:
    return known.entry() | {chance.choice(_NAMES): chance.randbytes(chance.randint(0, 60))}


def _not_text(chance: random.Random, known: Known) -> Fields:
    return known.entry() | {chance.choice(_NAMES[:3]): b"\xff\xfe 1 \xc3\x28 - \x80"}


def _huge(chance: random.Random, known: Known) -> Fields:
    return known.entry() | {chance.choice(_NAMES): b"9" * _HUGE_BYTES}


def _truncated(chance: random.Random, known: Known, run: str = "") -> Fields:
    values = bytes(msgpack.packb(["a text that is long enough to be cut", 1.5, {"a": [1, 2]}]))
    return known.entry(run=run, meta="0 3 1 -", values=values[: chance.randrange(1, len(values))])


def _lineage(chance: random.Random, known: Known, run: str = "") -> Fields:
    lineages = chance.choice((b"", b"\x91", b"\x91\x92\xff\xff", b"\xc1"))
    return known.entry(run=run, meta="0 5 1 -") | {b"l": lineages}


def _unknown_run(chance: random.Random, known: Known) -> Fields:
    return known.entry(run=f"ghost-{chance.randrange(100)} {chance.randrange(1 << 40):x}")


def _unknown_plan(chance: random.Random, known: Known) -> Fields:
    return known.entry() | {b"p": f"{chance.randrange(1 << 80):022x}".encode()}


def _unknown_node(chance: random.Random, known: Known) -> Fields:
    run = chance.choice(("", f"{known.run_id} {known.origin}"))
    return known.entry(run=run, meta=f"{chance.choice((3, 99, 10**9, -1))} 1 1 -")


def _head(chance: random.Random, known: Known) -> Fields:
    heads = (
        "", " ", "0", "0 1", "0 1 1", "0 1 1 - - -", "0 -1 1 -", "0 1 -1 -", "0 0 0 -", "0 99999999999 1 -",
        "0 1e3 1 -", "0x0 1 1 -", "nan nan nan -", "\u0660 \u0661 \u0661 - ",
    )  # fmt: skip
    return known.entry(run=chance.choice(("", f"{known.run_id} {known.origin}")), meta=chance.choice(heads))


def _name(chance: random.Random, known: Known) -> Fields:
    names = ("", " ", "{other}:run", "a" * 500, "../../etc", "R\r\n*1\r\n$8\r\nFLUSHALL\r\n", "*", "%00", "run:x:s:0")
    return known.entry(run=f"{chance.choice(names)} 0")


def _others(chance: random.Random, known: Known) -> Fields:
    extra = {chance.randbytes(3): chance.randbytes(3) for _ in range(chance.randrange(1, 60))}
    return chance.choice((extra, {b"": b""}, {b"k": b"\xc1"} | known.entry(), {b"V": b"-"} | known.entry()))


FORGES: tuple[Forge, ...] = (
    _missing, _noise, _not_text, _truncated, _lineage, _unknown_run, _unknown_plan, _unknown_node, _head, _name,
    _others,
)  # fmt: skip


def forge(chance: random.Random, known: Known) -> Fields:
    """Make one entry; one of two hundred is huge."""
    if chance.random() < 0.005:
        return _huge(chance, known)
    return chance.choice(FORGES)(chance, known)


def aim(chance: random.Random, known: Known) -> Fields:
    """Make an entry whose head is that of an open run, and whose content nobody can read."""
    return chance.choice((_truncated, _lineage))(chance, known, f"{known.run_id} {known.origin}")
