"""DeadLetter: values that were given up, with the reason, for people and programs that decide what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datamesh.codec.failure import Failure
from datamesh.codec.frame import decode_lineages, references
from datamesh.codec.values import ValueCodec
from datamesh.errors import ConfigurationError, TamperedDataError
from datamesh.model.bound import BoundPlan
from datamesh.store.dead import Letter
from datamesh.store.frames import WITH_BLOBS, Frame
from datamesh.store.keys import Level
from datamesh.store.seals import Place
from datamesh.store.store import ShardStore

UNKNOWN = "?"
"""Flow or task of a letter whose plan is no longer in the store."""
_ID = re.compile(r"(\d{1,5})/(\d{1,20}-\d{1,20})")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Values that a task could not be made to take.

    Attributes:
        id: In the mesh: the shard and the entry there, `0/1763640000000-0`.
        run_id: The run that they belonged to; empty if that could not be read.
        flow: Name of its flow; "?" if its plan is gone.
        task: That gave them up.
        attempt: The last one.
        time: When they were buried: seconds since the epoch, by the server's clock.
        values: How many; 0 for a task over whole streams, and for what could not be read at all.
        lineages: Where each comes from.
        error: Why, in one line.
        error_type: Qualified name of the exception's class; empty if the entry could not be read.
        remote_traceback: Of the last attempt, as text.
        service: That made it.
        size_bytes: Of the values, as they are stored.
    """

    id: str
    run_id: str
    flow: str
    task: str
    attempt: int
    time: float
    values: int
    lineages: tuple[tuple[int, ...], ...]
    error: str
    error_type: str
    remote_traceback: str
    service: str
    size_bytes: int
    payload: bytes = field(repr=False)
    blobs: Mapping[str, bytes] = field(repr=False, default_factory=dict)
    """Large values that were read with it."""
    problem: str = field(repr=False, default="")
    """Why its values cannot be read; empty if nothing is known to be wrong with them."""

    def content(self) -> list[Any]:
        """The values as they stand in the store, without a look at the types that the task declares.

        Raises:
            TamperedDataError: They cannot be read, or a large one was not read with the letter: `dead.get(id)` does so.
            ConfigurationError: They hold arrays, whose library is not installed here.
        """
        if self.problem:
            raise TamperedDataError(where=f"dead letter {self.id}", problem=self.problem)
        return _CODEC.values(self.payload, self.blobs) if self.values else []


_CODEC = ValueCodec(Any, max_value_bytes=2**32 - 1, where="the values of a dead letter")


def letter_id(shard: int, entry_id: str) -> str:
    """Return the id of a letter in the mesh."""
    return f"{shard}/{entry_id}"


def parsed_id(text: str, shards: int) -> tuple[int, str]:
    """Return shard and entry of an id.

    Raises:
        ConfigurationError: It is no id of a dead letter in a mesh with so many shards.
    """
    found = _ID.fullmatch(text)
    if found is None or int(found[1]) >= shards:
        raise ConfigurationError(
            f"{text!r} is no id of a dead letter of this mesh: pass one as `datamesh dead ls` prints it, "
            "like 0/1763640000000-0"
        )
    return int(found[1]), found[2]


def opened(shard: ShardStore, letter: Letter, bound: BoundPlan) -> Frame:
    """Check what a letter carries and take its signature off, if this mesh signs.

    Raises:
        TamperedDataError: It was not written for this run by a service of this mesh.
    """
    if letter.head is None or not letter.frame.count or letter.head.node >= len(bound.plan.nodes):
        return letter.frame
    head = letter.head
    place = Place(head.run_id, head.origin, head.digest, bound.plan)
    return shard.seals.opened(place, input_of(bound, head.node), letter.frame)


def input_of(bound: BoundPlan, node: int) -> int:
    """Return the stream that a task takes its values from, one by one."""
    return bound.stream_index[bound.plan.nodes[node].reads[0]]


def described(
    shard: ShardStore, letter: Letter, bound: BoundPlan | None, blobs: Mapping[str, bytes] | None = None
) -> DeadLetter:
    """Say what is known of a letter; its plan and large values are taken along where they are still there."""
    head, failure = letter.head, _failure(letter)
    node = None if head is None or bound is None or head.node >= len(bound.plan.nodes) else bound.plan.nodes[head.node]
    frame, problem = _readable(shard, letter, bound)
    return DeadLetter(
        id=letter_id(shard.index, letter.entry_id),
        run_id="" if head is None else head.run_id,
        flow=UNKNOWN if bound is None else bound.plan.flow,
        task=_task_of(shard, letter.work) if head is None else failure.task or UNKNOWN if node is None else node.name,
        attempt=0 if head is None else head.attempt,
        time=letter.time_ms / 1000,
        values=frame.count,
        lineages=_lineages(frame.lineages),
        error=failure.message if head is None else str(failure.error()),
        error_type=failure.remote_type,
        remote_traceback=failure.remote_traceback,
        service=failure.service,
        size_bytes=len(letter.raw) or len(frame.values) + sum(_large(frame)),
        payload=frame.values,
        blobs=blobs or {},
        problem=problem,
    )


def _readable(shard: ShardStore, letter: Letter, bound: BoundPlan | None) -> tuple[Frame, str]:
    if bound is None:
        return (
            letter.frame,
            "the plan of its run is gone, and with it what it was signed for" if shard.seals.is_on else "",
        )
    try:
        return opened(shard, letter, bound), ""
    except TamperedDataError as error:
        return letter.frame, error.problem


def _failure(letter: Letter) -> Failure:
    """The reason; what is no failure becomes one whose text is safe to print."""
    if letter.head is not None:
        try:
            return Failure.unpack(letter.reason)
        except TamperedDataError as error:
            return Failure(message=f"its reason cannot be read: {error}")
    return Failure(message=letter.reason.decode(errors="replace") or "it cannot be read")


def _task_of(shard: ShardStore, work: str) -> str:
    """The task of a work stream; as a failure has it, so that it is safe to print whoever wrote it."""
    ref = work.removeprefix(shard.keys.work(""))
    for level in Level:
        if level.value:
            ref = ref.removesuffix(level.value)
    return Failure(task=ref.partition("@")[0]).task or UNKNOWN


def _lineages(block: bytes) -> tuple[tuple[int, ...], ...]:
    try:
        return tuple(decode_lineages(block)) if block else ()
    except TamperedDataError:
        return ()


def _large(frame: Frame) -> list[int]:
    """Sizes of the values that stand elsewhere."""
    if WITH_BLOBS not in frame.flags:
        return []
    try:
        return [reference.size_bytes for reference in references(frame.values)]
    except TamperedDataError:
        return []
