"""Eviction: whether servers may throw keys away when their memory is full, and runs with them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from datamesh.errors import StoreUnavailableError
from datamesh.store.link import Caller, LinkLost, ReplyError

_log = logging.getLogger("datamesh.store")
_KEEPS_ALL = "noeviction"
_FIX = "Set `CONFIG SET maxmemory-policy noeviction`, or allow it with `allow_eviction=True`"


class Eviction:
    """Looks at the `maxmemory-policy` of servers.

    Args:
        links: To each of them; several may lead to one.
        where: What they are, for errors and the log.
    """

    def __init__(self, links: Sequence[Caller], where: str) -> None:
        self._links = links
        self._where = where
        self._known: frozenset[str] = frozenset()

    async def refuse(self, *, allow: bool) -> None:
        """Refuse servers that evict keys, unless that is allowed.

        Raises:
            StoreUnavailableError: One evicts.
        """
        self._known = found = await self._policies()
        evicting = ", ".join(sorted(found - {_KEEPS_ALL}))
        if not found:
            _log.info("%s does not tell its maxmemory-policy: it has to be `noeviction`", self._where)
        elif evicting and not allow:
            raise StoreUnavailableError(
                where=self._where, problem=f"its maxmemory-policy is {evicting}, so it may throw work away", fix=_FIX
            )
        elif evicting:
            _log.warning("%s may throw work away: its maxmemory-policy is %s", self._where, evicting)

    async def look(self) -> None:
        """Look again, and say loudly if a server has begun to evict."""
        found = await self._policies()
        evicting = ", ".join(sorted(found - self._known - {_KEEPS_ALL}))
        if evicting:
            _log.error("%s may throw work away: its maxmemory-policy is %s now. %s", self._where, evicting, _FIX)
        if found:
            self._known = found

    async def _policies(self) -> frozenset[str]:
        return frozenset(await asyncio.gather(*map(_policy, self._links))) - {""}


async def _policy(link: Caller) -> str:
    """The policy of one server; an empty text where it does not tell."""
    for command in (("CONFIG", "GET", "maxmemory-policy"), ("INFO", "memory")):
        try:
            reply = await link.call(*command)
        except (LinkLost, ReplyError) as error:
            # Managed servers know neither command, or an access list does not allow it.
            _log.debug("%s: %s", " ".join(command), error)
            continue
        if isinstance(reply, list) and len(reply) > 1:
            return str(reply[1].decode())
        if isinstance(reply, bytes):
            found = (line.partition(":") for line in reply.decode().splitlines())
            return next((value.strip() for name, _, value in found if name == "maxmemory_policy"), "")
    return ""
