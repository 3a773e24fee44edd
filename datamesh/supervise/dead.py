"""DeadLetters: what was buried in the mesh: look at it, send it again, drop it."""

from __future__ import annotations

import heapq
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing

from datamesh.errors import ConfigurationError, DeadLetterError, TamperedDataError
from datamesh.model.bound import BoundPlan
from datamesh.model.names import check_name
from datamesh.store.dead import DeadStream, Head, Letter
from datamesh.store.store import ShardStore
from datamesh.store.streams import fetch_blobs
from datamesh.supervise.letter import DeadLetter, described, opened, parsed_id
from datamesh.supervise.redrive import Redrive, Redriver
from datamesh.supervise.session import Session

Found = list[DeadLetter]
Redrives = list[Redrive]


class DeadLetters:
    """The dead letters of a mesh; `supervisor.dead` is one.

    Args:
        session: Gives the work of the supervisor in this event loop.
        retention_ms: How long the runs are kept that letters get of their own.
    """

    def __init__(self, session: Callable[[], Awaitable[Session]], *, retention_ms: int) -> None:
        self._session = session
        self._retention_ms = retention_ms

    async def list(self, *, run_id: str | None = None, task: str | None = None, limit: int = 100) -> Found:
        """List letters, the newest first. Large values are not read; `get` does so.

        Args:
            run_id: Those of this run alone.
            task: Those of this task alone, by its name or that of its place in the flow.
            limit: At most so many.

        Raises:
            ConfigurationError: `run_id` is no id of a run, or `limit` not above 0.
            StoreUnavailableError: Redis cannot be reached.
        """
        if limit < 1:
            raise ConfigurationError(f"limit={limit!r} cannot be used: pass 1 or more")
        session = await self._session()
        found: Found = []
        for shard in _shards(session, run_id):
            found += await _first(_matching(session, shard, run_id, task), limit)
        return heapq.nlargest(limit, found, key=lambda letter: letter.time)

    async def scan(self, *, run_id: str | None = None, task: str | None = None) -> AsyncGenerator[DeadLetter, None]:
        """Every letter that there is now, shard by shard; one may be dropped or sent again while this goes on.

        Takes what `list` takes, and raises what it raises. Letters that come meanwhile are not among them.
        """
        session = await self._session()
        for shard in _shards(session, run_id):
            async with aclosing(_matching(session, shard, run_id, task)) as letters:
                async for letter in letters:
                    yield letter

    async def get(self, id: str) -> DeadLetter:
        """Return a letter, with its large values as far as they are still there.

        Raises:
            ConfigurationError: It is no id of a letter.
            DeadLetterError: There is no such letter (any more).
            StoreUnavailableError: Redis cannot be reached.
        """
        session = await self._session()
        shard, letter = await _find(session, id)
        bound = await _plan(session, shard, letter.head)
        return described(shard, letter, bound, await _large(shard, letter, bound))

    async def retry(self, *ids: str) -> Redrives:
        """Send letters again, one after the other, with all their attempts before them and their lineage as it was.

        While the run and the task are open, the values go back there. Else they get a run of their own: the same plan,
        in which this task alone is given something. A letter that was sent is no letter any more.

        Returns:
            For each letter the run in which its values are under way.

        Raises:
            ConfigurationError: One is no id of a letter.
            DeadLetterError: One is not there or cannot be sent; those before it have been.
            StoreUnavailableError: Redis cannot be reached.
        """
        session = await self._session()
        sent = []
        for id in ids:
            shard, letter = await _find(session, id)
            sent.append(await Redriver(session, shard, retention_ms=self._retention_ms).send(letter))
        return sent

    async def drop(self, *ids: str) -> int:
        """Forget letters, and return how many of them there were.

        Raises:
            ConfigurationError: One is no id of a letter; none is dropped then.
            StoreUnavailableError: Redis cannot be reached.
        """
        session = await self._session()
        by_shard: dict[int, set[str]] = {}
        for id in ids:
            index, entry_id = parsed_id(id, len(session.store.shards))
            by_shard.setdefault(index, set()).add(entry_id)
        streams = {index: DeadStream(session.store.shards[index].protocol) for index in by_shard}
        return sum([await streams[index].drop(sorted(entries)) for index, entries in by_shard.items()])


def _shards(session: Session, run_id: str | None) -> tuple[ShardStore, ...]:
    return session.store.shards if run_id is None else (session.shard_of(check_name("run id", run_id)),)


async def _first(letters: AsyncGenerator[DeadLetter, None], most: int) -> Found:
    found: Found = []
    async with aclosing(letters):
        async for letter in letters:
            found.append(letter)
            if len(found) == most:
                break
    return found


async def _matching(
    session: Session, shard: ShardStore, run_id: str | None, task: str | None
) -> AsyncGenerator[DeadLetter, None]:
    async with aclosing(DeadStream(shard.protocol).newest()) as letters:
        async for letter in letters:
            if run_id is not None and (letter.head is None or letter.head.run_id != run_id):
                continue
            bound = await _plan(session, shard, letter.head)
            found = described(shard, letter, bound)
            if task is None or task in (found.task, _declared(bound, letter.head)):
                yield found


def _declared(bound: BoundPlan | None, head: Head | None) -> str:
    """Name of the task, which its place in the flow may differ from."""
    if bound is None or head is None or head.node >= len(bound.plan.nodes):
        return ""
    return bound.plan.nodes[head.node].ref.partition("@")[0]


async def _plan(session: Session, shard: ShardStore, head: Head | None) -> BoundPlan | None:
    if head is None:
        return None
    try:
        return await session.members[shard.index].plans.find(head.digest)
    except TamperedDataError:
        return None


async def _large(shard: ShardStore, letter: Letter, bound: BoundPlan | None) -> Mapping[str, bytes]:
    """Large values of a letter; those that are gone are told of when it is asked for its content."""
    if letter.head is None or bound is None:
        return {}
    try:
        return await fetch_blobs(shard.protocol, letter.head.run_id, opened(shard, letter, bound))
    except TamperedDataError:
        return {}


async def _find(session: Session, id: str) -> tuple[ShardStore, Letter]:
    index, entry_id = parsed_id(id, len(session.store.shards))
    shard = session.store.shards[index]
    letter = await DeadStream(shard.protocol).find(entry_id)
    if letter is None:
        raise DeadLetterError(
            letter=id, problem="there is none of this id", fix="It was sent again, dropped, or pushed out by newer ones"
        )
    return shard, letter
