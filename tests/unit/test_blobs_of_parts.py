"""A part of a frame keeps the frame's flags, and may hold none of its large values."""

from __future__ import annotations

from typing import Any, cast

import pytest

from datamesh.codec.values import ValueCodec
from datamesh.store.frames import WITH_BLOBS, Frame
from datamesh.store.protocol import ShardProtocol
from datamesh.store.streams import fetch_blobs

pytestmark = pytest.mark.anyio


class NoStore:
    """Fails when it is asked for anything."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the store was asked for {name}")


async def test_a_part_without_large_values_asks_for_none() -> None:
    (encoded,) = ValueCodec(str, max_value_bytes=1 << 20, where="a stream").frames(["small"])
    frame = Frame(1, WITH_BLOBS, b"", encoded.payload)
    assert await fetch_blobs(cast(ShardProtocol, NoStore()), "run", frame) == {}
