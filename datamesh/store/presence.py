"""Presence: which members past their deadline have not died.

A process that dies loses its connections at once, because the kernel closes them. One that was stopped, or whose
network was cut, keeps them. So a member announces the connection that it has at the server, and who takes its work over
looks whether that is still there.
"""

from __future__ import annotations

import re

from datamesh.store.link import ReplyError
from datamesh.store.protocol import ShardProtocol

_MOST = 20
_ID = re.compile(rb"^id=(\d+) ", re.MULTILINE)


async def connection_id(protocol: ShardProtocol) -> int:
    """Id of this process's connection at the server, for its announcement; 0 where the server tells none."""
    try:
        return int(await protocol.link.call("CLIENT", "ID"))
    except ReplyError:
        return 0


async def still_alive(protocol: ShardProtocol) -> list[str]:
    """Members past their deadline whose connection is still open; none where the server does not let us look.

    Raises:
        StoreError: The store cannot be reached.
    """
    keys = protocol.keys
    seconds, micros = await protocol.command("TIME")
    rows = await protocol.command("ZRANGE", keys.members, 0, _MOST - 1, "WITHSCORES")
    now_ms = int(seconds) * 1000 + int(micros) // 1000
    expired = [name for name, score in zip(rows[::2], rows[1::2], strict=True) if float(score) < now_ms]
    if not expired:
        return []
    texts = await protocol.command("HMGET", keys.services, *expired)
    ids = {name.decode(): _connection(text) for name, text in zip(expired, texts, strict=True)}
    asked = sorted({found for found in ids.values() if found})
    if not asked:
        return []
    try:
        listed = await protocol.link.call("CLIENT", "LIST", "ID", *asked)
    except ReplyError:
        return []
    there = {int(found) for found in _ID.findall(listed)}
    return [name for name, found in ids.items() if found in there]


def _connection(text: bytes | None) -> int:
    """The last word of the first line of what a member announced."""
    last = (text or b"").partition(b"\n")[0].rpartition(b" ")[2]
    return int(last) if last.isdigit() else 0
