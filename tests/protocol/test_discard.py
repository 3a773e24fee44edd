"""Entries that cannot be run: buried with the reason, or put off for services that know their version."""

from __future__ import annotations

import msgpack
import pytest

from datamesh.model.task import Task
from datamesh.store.frames import Status
from tests.protocol.rig import Rig, on_both_servers

pytestmark = [pytest.mark.anyio, on_both_servers]

A = Task("a", "in", "mid")


async def plant(rig: Rig, **fields: bytes) -> str:
    await rig.bind(A)
    await rig.join("m")
    work = rig.keys.work("a@1")
    rig.client.xadd(work, dict(fields))
    return work


@pytest.mark.parametrize(
    "fields",
    [
        {"x": b"nothing of ours"},
        {"r": b"R o", "p": b"p", "m": b"0 1 1", "l": b"", "v": b""},
        {"r": b"R o", "p": b"p", "m": b"zero 1 1 -", "l": b"", "v": b""},
        {"r": b"R o", "p": b"p", "m": b"0 -1 1 -", "l": b"", "v": b""},
        {"r": b"R o", "p": b"p", "m": b"0 257 1 -", "l": b"", "v": b""},
        {"r": b"R{}* o", "p": b"p", "m": b"0 1 1 -", "l": b"", "v": b""},
        {"r": b"\xff\xfe", "p": b"p", "m": b"0 1 1 -", "l": b"", "v": b""},
        {"r": b"R o", "m": b"0 1 1 -", "l": b"", "v": b""},
    ],
)
async def test_an_entry_that_cannot_be_read_is_buried_with_the_reason(rig: Rig, fields: dict[str, bytes]) -> None:
    work = await plant(rig, **fields)
    delivery = await rig.take_one("m")
    assert delivery.problem
    assert await rig.protocol.discard("m", delivery, delivery.problem) is Status.OK
    ((_, found),) = rig.client.xrange(rig.keys.dead)
    assert (found[b"w"].decode(), found[b"x"].decode()) == (work, delivery.problem)
    raw = msgpack.unpackb(found[b"raw"], raw=True)
    assert dict(zip(raw[::2], raw[1::2], strict=True)) == {name.encode(): value for name, value in fields.items()}
    assert rig.client.xlen(work) == 0
    before = rig.snapshot()
    assert await rig.protocol.discard("m", delivery, delivery.problem) is Status.ALREADY
    assert rig.snapshot() == before


async def test_only_who_holds_it_may_bury_it(rig: Rig) -> None:
    await plant(rig, x=b"y")
    delivery = await rig.take_one("m")
    await rig.join("n")
    before = rig.snapshot()
    assert await rig.protocol.discard("n", delivery, "why") is Status.ALREADY
    assert await rig.protocol.discard("stranger", delivery, "why") is Status.FENCED
    assert rig.snapshot() == before


async def test_an_entry_of_a_later_version_comes_back_as_it_is(rig: Rig) -> None:
    fields = {"V": b"2", "r": b"R o", "new": b"\x00 \n\xff", "m": b""}
    work = await plant(rig, **fields)
    delivery = await rig.take_one("m")
    assert delivery.is_newer
    assert await rig.protocol.discard("m", delivery, delivery.problem, delay_ms=60_000) is Status.OK
    assert (rig.client.xlen(work), rig.client.exists(rig.keys.dead)) == (0, 0)
    (name,) = rig.client.zrange(rig.keys.due, 0, -1)
    rig.client.zadd(rig.keys.due, {name: 1})
    assert (await rig.protocol.promote())[0] == 1
    ((_, found),) = rig.client.xrange(work)
    assert found == {name.encode(): value for name, value in fields.items()}
    assert rig.client.exists(rig.keys.due, rig.keys.later) == 0
