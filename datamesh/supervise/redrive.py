"""Redrive: a dead letter's values are given to their task once more, in their run or in one of their own."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from datamesh.codec.frame import parts_of
from datamesh.errors import DeadLetterError, StoreUnavailableError, TamperedDataError
from datamesh.model.bound import BoundPlan
from datamesh.model.modes import Mode
from datamesh.store.dead import DeadStream, Head, Letter
from datamesh.store.frames import Frame
from datamesh.store.protocol import Submission
from datamesh.store.seals import Place
from datamesh.store.store import ShardStore
from datamesh.store.streams import fetch_blobs
from datamesh.supervise.launch import stage
from datamesh.supervise.letter import input_of, letter_id, opened
from datamesh.supervise.session import Session

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Redrive:
    """What became of a letter that was sent again.

    Attributes:
        id: Of the letter, which is no more.
        run_id: The run in which its values are under way.
        is_new_run: Whether that is a run of its own, because the first is over or its task was done.
    """

    id: str
    run_id: str
    is_new_run: bool


class Redriver:
    """Sends letters of one shard again."""

    def __init__(self, session: Session, shard: ShardStore, *, retention_ms: int) -> None:
        self._session = session
        self._shard = shard
        self._stream = DeadStream(shard.protocol)
        self._retention_ms = retention_ms

    async def send(self, letter: Letter) -> Redrive:
        """Send a letter again: into its run while the task is open there, else in a run of its own.

        Raises:
            DeadLetterError: That cannot be done; it says why and what to do.
            StoreUnavailableError: Redis cannot be reached.
        """
        name = letter_id(self._shard.index, letter.entry_id)
        head = self._head(name, letter)
        bound = await self._plan(name, head)
        match await self._stream.redrive(letter, head):
            case "GONE":
                run_id = await self._start(name, letter, head, bound)
                await self._stream.drop([letter.entry_id])
                return Redrive(name, run_id, is_new_run=True)
            case "FULL":
                raise DeadLetterError(
                    letter=name, problem=f"run {head.run_id!r} has as many open values as its quota allows",
                    fix="Send it when the task has caught up",
                )  # fmt: skip
        return Redrive(name, head.run_id, is_new_run=False)

    def _head(self, name: str, letter: Letter) -> Head:
        if letter.head is None:
            raise DeadLetterError(
                letter=name, problem="what was buried could not be read, so it is not known whose values they are",
                fix="Look at it, start the run again if one is missing something, and drop it",
            )  # fmt: skip
        return letter.head

    async def _plan(self, name: str, head: Head) -> BoundPlan:
        try:
            bound = await self._session.members[self._shard.index].plans.find(head.digest)
        except TamperedDataError as error:
            raise DeadLetterError(
                letter=name, problem=f"the plan of run {head.run_id!r} is gone ({error})",
                fix="Start the flow again with the value, and drop the letter",
            ) from error  # fmt: skip
        if head.node >= len(bound.plan.nodes):
            raise DeadLetterError(letter=name, problem="its plan has no such task", fix="Drop it")
        return bound

    # ------------------------------------------------------------------------------------- a run of its own

    async def _start(self, name: str, letter: Letter, head: Head, bound: BoundPlan) -> str:
        """Record a run of the same plan in which this task alone is given something; return its id."""
        task = bound.plan.nodes[head.node].name
        if not letter.frame.count:
            raise DeadLetterError(
                letter=name, problem=f"task {task!r} takes whole streams, and those of run {head.run_id!r} have ended",
                fix="Start the flow again with its inputs, and drop the letter",
            )  # fmt: skip
        frame = self._frame(name, letter, bound)
        blobs = await self._blobs(name, head, frame)
        run_id = run_id_of(name, letter, head)
        level, quota = await self._terms(head)
        for _ in range(_TRIES):
            submission = await self._submission(run_id, frame, head.node, bound, level, quota)
            # Last, because until the run is recorded they are kept for a minute only.
            await self._session.shard_of(run_id).protocol.put_blobs(run_id, blobs)
            # If it exists, an earlier attempt has come as far as this, or another one at the same time.
            if await self._submit(submission, bound) in ("OK", "EXISTS"):
                return run_id
        raise StoreUnavailableError(
            where=f"run {run_id!r}", problem="its values were lost before it was recorded", fix="Send the letter again"
        )

    def _frame(self, name: str, letter: Letter, bound: BoundPlan) -> Frame:
        """The values, checked: they are about to be written for another run."""
        try:
            frame = opened(self._shard, letter, bound)
            parts_of(frame.values)
        except TamperedDataError as error:
            raise DeadLetterError(
                letter=name, problem=f"its values cannot be read: {error}",
                fix="Set the `signing_keys` of this mesh, if it has some; else drop the letter",
            ) from error  # fmt: skip
        return frame

    async def _submission(
        self, run_id: str, frame: Frame, node: int, bound: BoundPlan, level: str, quota: str
    ) -> Submission:
        shard, origin = self._session.shard_of(run_id), secrets.token_hex(8)
        place = Place(run_id, origin, bound.digest, bound.plan)
        sealed = shard.seals.frame(place, input_of(bound, node), frame)
        staged = await stage(shard.protocol, run_id, secrets.token_hex(6), "b", node, [sealed])
        reached = followers(bound, node)
        return Submission(
            run_id, bound.digest, origin, self._retention_ms, level, 0, _counters(bound, reached),
            [("b", node, staged, frame.count, 1)], [],
            [bound.stream_index[stream] for stream in bound.plan.inputs],
            [node for node in bound.starters if node in reached], quota,
        )  # fmt: skip

    async def _submit(self, submission: Submission, bound: BoundPlan) -> str:
        shard = self._session.shard_of(submission.run_id)
        status, _, _ = await shard.protocol.submit(submission)
        if status == "NOPLAN":
            await self._session.members[shard.index].plans.write(bound)
            status, _, _ = await shard.protocol.submit(submission)
        return status

    async def _blobs(self, name: str, head: Head, frame: Frame) -> Mapping[str, bytes]:
        try:
            return await fetch_blobs(self._shard.protocol, head.run_id, frame)
        except TamperedDataError as error:
            raise DeadLetterError(
                letter=name, problem=f"large values of it were kept with run {head.run_id!r}, and are gone with it",
                fix="Start the flow again with them, and drop the letter; a longer `retention=` keeps them longer",
            ) from error  # fmt: skip

    async def _terms(self, head: Head) -> tuple[str, str]:
        """Priority and quota of the first run, if it is still kept."""
        run = self._shard.keys.run(head.run_id)
        level, quota, origin = await self._shard.protocol.command("HMGET", run, "level", "quota", "origin")
        if origin is None or origin.decode() != head.origin:
            return "", ""
        return (level or b"").decode(), (quota or b"").decode()


def run_id_of(name: str, letter: Letter, head: Head) -> str:
    """Return the id of the run that a letter gets of its own: always the same one, so it is started once.

    The digest tells letters apart that have one id after Redis has lost writes and given it again.
    """
    told = (head.run_id, head.origin, str(head.node), letter.frame.lineages, letter.frame.values)
    parts = [part.encode() if isinstance(part, str) else part for part in told]
    digest = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()
    return f"redrive-{name.replace('/', '-')}-{digest[:8]}"


def followers(bound: BoundPlan, node: int) -> set[int]:
    """Return the tasks that values of a task may come to."""
    found: set[int] = set()
    todo = [node]
    while todo:
        for stream in bound.plan.nodes[todo.pop()].writes:
            fed = {bound.node_index[name] for name in bound.plan.stream(stream).consumers}
            todo += fed - found
            found |= fed
    return found


def _counters(bound: BoundPlan, reached: set[int]) -> dict[str, int]:
    """Counters that the run starts with: tasks over whole streams that get nothing are done from the start."""
    fields = bound.start_fields
    for index, mode in enumerate(bound.modes):
        if mode is Mode.STREAM and index not in reached:
            fields = fields | {f"o:{index}": 0}
            if bound.waits(index):
                # One more than it has inputs: it is never delivered.
                fields |= {f"i:{index}": len(bound.plan.nodes[index].reads) + 1}
    return fields | {"all": int(len(bound.taps) == len(bound.plan.streams)), "open": 0}
