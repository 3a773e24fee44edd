"""The store in memory."""

from __future__ import annotations

import sys

import anyio
import pytest

from datamesh.errors import StoreUnavailableError
from datamesh.store.memory import memory_client


def test_stores_are_apart_unless_shared() -> None:
    async def use() -> None:
        first, other = memory_client(), memory_client()
        second = memory_client(sharing=first)
        await first.set("key", "value")
        assert await second.get("key") == b"value"
        assert await other.get("key") is None
        for client in (first, second, other):
            await client.aclose()

    anyio.run(use)


def test_scripts_run() -> None:
    async def use() -> None:
        client = memory_client()
        assert await client.eval("return redis.call('incrby', KEYS[1], ARGV[1])", 1, "n", 2) == 2
        await client.aclose()

    anyio.run(use)


@pytest.mark.parametrize("package", ["fakeredis", "lupa"])
def test_missing_package_names_the_fix(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(StoreUnavailableError, match=r'pip install "fakeredis\[lua\]"'):
        memory_client()
