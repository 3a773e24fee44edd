"""Launch: from a flow and its inputs to a run that is durably recorded."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from datamesh.codec.frame import span
from datamesh.codec.values import ValueCodec
from datamesh.errors import (
    ConfigurationError,
    FloatingIOError,
    QuotaExceededError,
    StoreUnavailableError,
    UnknownInputError,
)
from datamesh.model.bound import BoundPlan
from datamesh.model.flow import Flow
from datamesh.model.modes import Mode
from datamesh.model.names import check_name
from datamesh.model.plan import Plan
from datamesh.model.policies import Quota
from datamesh.model.values import IOVal
from datamesh.store.contracts import Contracts
from datamesh.store.frames import PLAIN, WITH_BLOBS, Frame
from datamesh.store.keys import Level
from datamesh.store.plans import Plans
from datamesh.store.protocol import ShardProtocol, Submission
from datamesh.store.seals import Place, Seals
from datamesh.store.streams import parts
from datamesh.supervise.types import Types

_INLINE_FRAMES = 400
_INLINE_BYTES = 1 << 20
_TRIES = 5

Inputs = Sequence[IOVal[Any]] | Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Launch:
    """A start as it was asked for, checked; nothing is written yet.

    Attributes:
        plan: Of the flow.
        run_id: Of the run.
        frames: By input, with lineages.
        blobs: Large values by digest.
        open_inputs: Whether the inputs may be written later.
        all_outputs: Whether every stream is kept for readers.
        retention_ms: Kept so long after its end.
        deadline_ms: Until it fails; 0: no deadline.
        level: Its priority.
        quota: What the run may have.
        origin: Tells a repetition of this very start from another one with the same run id.
    """

    plan: Plan
    run_id: str
    frames: Mapping[str, Sequence[Frame]]
    blobs: Mapping[str, bytes]
    open_inputs: bool
    all_outputs: bool
    retention_ms: int
    deadline_ms: int
    level: str
    origin: str
    quota: Quota = field(default_factory=Quota)

    @property
    def size_bytes(self) -> int:
        """Of its inputs, as they travel."""
        frames = (frame for some in self.frames.values() for frame in some)
        inline = sum(len(frame.values) + len(frame.lineages) for frame in frames)
        return inline + sum(map(len, self.blobs.values()))

    @property
    def waiting_place(self) -> Place:
        """The run as its inputs are signed while it waits for its tasks."""
        return Place(self.run_id, self.origin, self.plan.digest, self.plan)

    @property
    def tapped(self) -> tuple[str, ...]:
        return tuple(stream.name for stream in self.plan.streams) if self.all_outputs else self.plan.outputs

    @property
    def request(self) -> bytes:
        """What is kept of it while the run waits for its tasks."""
        return json.dumps({
            "plan": self.plan.to_wire().decode(), "inputs": list(self.frames), "open_inputs": self.open_inputs,
            "all_outputs": self.all_outputs, "retention_ms": self.retention_ms, "deadline_ms": self.deadline_ms,
            "level": self.level, "origin": self.origin, "quota": self.quota.text,
        }).encode()  # fmt: skip

    @classmethod
    def of_request(cls, run_id: str, request: bytes, frames: Mapping[str, Sequence[Frame]]) -> Launch:
        """The launch of a run that waited."""
        found = json.loads(request)
        plan = Plan.from_wire(found.pop("plan").encode())
        found.pop("inputs")
        found["quota"] = Quota(*map(int, found.pop("quota").split()))
        return cls(plan=plan, run_id=run_id, frames=frames, blobs={}, **found)


def prepare(
    flow: Flow, inputs: Inputs, *, types: Types, all_outputs: bool, run_id: str | None, open_inputs: bool,
    deadline: float | None, priority: int, retention_ms: int, quota: Quota | None = None,
) -> Launch:  # fmt: skip
    """Check a start and encode its inputs, before anything is written.

    Raises:
        UnknownInputError: A value is for no input of the flow.
        FloatingIOError: An input has no value.
        InvalidValueError: A value does not fit its type.
        QuotaExceededError: The inputs are more than the run may have.
        ConfigurationError: The run id or the deadline cannot be used.
    """
    if deadline is not None and not deadline > 0:
        raise ConfigurationError(f"deadline={deadline!r} cannot be used: pass seconds from now, above 0")
    plan = flow.plan
    values = _by_stream(inputs)
    unknown = set(values) - set(plan.inputs)
    if unknown:
        raise UnknownInputError(unknown=unknown, inputs=plan.inputs, flow=flow.name)
    missing = set(plan.inputs) - set(values)
    if missing and not open_inputs:
        raise FloatingIOError(missing=missing, flow=flow.name)
    blobs: dict[str, bytes] = {}
    frames = {name: encode(types.codec(plan, name), some, blobs) for name, some in values.items()}
    launch = Launch(
        plan, check_name("run id", run_id) if run_id is not None else secrets.token_hex(12), frames, blobs, open_inputs,
        all_outputs, retention_ms, int(1000 * deadline) if deadline else 0, Level.of(priority).value,
        secrets.token_hex(8), quota or Quota(),
    )  # fmt: skip
    _check_quota(launch)
    return launch


def _check_quota(launch: Launch) -> None:
    most = max((sum(frame.count for frame in some) for some in launch.frames.values()), default=0)
    for name, limit, found in (
        ("bytes", launch.quota.bytes, launch.size_bytes),
        ("open_values", launch.quota.open_values, most),
    ):
        if limit and found > limit:
            raise QuotaExceededError(run_id=launch.run_id, quota=name, limit=limit, found=found)


def encode(codec: ValueCodec, values: Sequence[Any], blobs: dict[str, bytes]) -> list[Frame]:
    """Encode the values of one input, each with its place as lineage."""
    frames = []
    for encoded in codec.frames(values):
        blobs.update((blob.digest, blob.body) for blob in encoded.blobs)
        flags = WITH_BLOBS if encoded.blobs else PLAIN
        frames.append(Frame(encoded.count, flags, span((), encoded.start, encoded.count), encoded.payload))
    return frames


def _by_stream(inputs: Inputs) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {}
    if isinstance(inputs, Mapping):
        return {name: [value] for name, value in inputs.items()}
    for item in inputs:
        if not isinstance(item, IOVal):
            raise ConfigurationError(
                f"inputs has a {type(item).__name__}: pass `IOVal(name=..., value=...)` for each value, "
                "or a mapping of names to values"
            )
        values.setdefault(item.name, []).append(item.value)
    return values


class Launcher:
    """Records runs in one shard."""

    def __init__(self, protocol: ShardProtocol, plans: Plans, contracts: Contracts, seals: Seals) -> None:
        self._protocol = protocol
        self._plans = plans
        self._contracts = contracts
        self._seals = seals

    async def launch(self, launch: Launch) -> tuple[str, bool]:
        """Record a run, or find that it exists.

        Returns:
            Its state, and whether it is what `launch` asks for: the same plan, with the same streams kept for readers.

        Raises:
            StoreUnavailableError: The store cannot be reached.
        """
        modes = await self.modes(launch.plan)
        if modes is None:
            status, state = await self._wait(launch)
            # A service may have announced the last task between our look and our record.
            if status == "EXISTS" or (modes := await self.modes(launch.plan)) is None:
                return state, status == "OK"
        return await self.start(launch, modes)

    async def modes(self, plan: Plan) -> Mapping[str, Mode] | None:
        """The mode of each task of a plan; None if one was never announced."""
        refs = {node.ref for node in plan.nodes}
        found = await self._contracts.find(refs)
        return None if len(found) < len(refs) else {ref: Mode(found[ref]["mode"]) for ref in refs}

    async def start(self, launch: Launch, modes: Mapping[str, Mode]) -> tuple[str, bool]:
        """Record a run whose tasks are all known; returns the same as `launch`."""
        bound = BoundPlan.of(launch.plan, modes, tapped=launch.tapped)
        for _ in range(_TRIES):
            submission = await self._submission(launch, bound)
            # Last, because until the run is recorded they are kept for a minute only.
            await self._protocol.put_blobs(launch.run_id, launch.blobs)
            status, state, digest = await self._protocol.submit(submission)
            if status == "NOPLAN":
                await self._plans.write(bound)
                status, state, digest = await self._protocol.submit(submission)
            if status in ("OK", "EXISTS"):
                self._plans.keep(bound)
                return state, digest == bound.digest
        raise _lost(launch)

    async def _submission(self, launch: Launch, bound: BoundPlan) -> Submission:
        counters = bound.start_fields | {"all": int(launch.all_outputs), "open": int(launch.open_inputs)}
        staged: list[tuple[str, int, str, int, int]] = []
        inline: list[tuple[int, Frame]] = []
        # The script counts what it publishes; blobs, and what was staged, are counted here.
        counters["bytes"] = sum(map(len, launch.blobs.values())) if is_small(launch.frames) else launch.size_bytes
        token = secrets.token_hex(6)
        place = Place(launch.run_id, launch.origin, bound.digest, bound.plan)
        for name, plain in launch.frames.items():
            index = bound.stream_index[name]
            frames = self._seals.frames(place, index, plain)
            if is_small(launch.frames):
                inline += [(index, frame) for frame in frames]
            else:
                if index not in bound.taps:
                    # The script counts what it puts into run streams; this goes to the tasks alone.
                    counters[f"v:{index}"] = sum(frame.count for frame in frames)
                staged += await self._stage(launch, bound, index, token, frames)
        complete = [] if launch.open_inputs else [bound.stream_index[name] for name in launch.plan.inputs]
        return Submission(
            launch.run_id, bound.digest, launch.origin, launch.retention_ms, launch.level, launch.deadline_ms, counters,
            staged, inline, complete, bound.starters, launch.quota.text,
        )  # fmt: skip

    async def _stage(
        self, launch: Launch, bound: BoundPlan, index: int, token: str, frames: Sequence[Frame]
    ) -> list[tuple[str, int, str, int, int]]:
        """Bring a large input in, once for its readers and once for each task that takes its values one by one."""
        places = [("s", index)] if index in bound.taps else []
        stream = bound.plan.streams[index]
        places += [
            ("b", node)
            for node in map(bound.node_index.__getitem__, stream.consumers)
            if bound.modes[node] is Mode.EACH
        ]
        count = sum(frame.count for frame in frames)
        staged = []
        for kind, place in places:
            key = await stage(self._protocol, launch.run_id, token, kind, place, frames)
            staged.append((kind, place, key, count, len(frames)))
        return staged

    async def _wait(self, launch: Launch) -> tuple[str, str]:
        """Record a run some of whose tasks nobody has announced."""
        index = {stream.name: place for place, stream in enumerate(launch.plan.streams)}
        for _ in range(_TRIES):
            token = secrets.token_hex(6)
            staged = [
                await stage(self._protocol, launch.run_id, token, "b", index[name], self._waiting(launch, name, frames))
                for name, frames in launch.frames.items()
            ]
            await self._protocol.put_blobs(launch.run_id, launch.blobs)
            status, state = await self._protocol.wait(
                launch.run_id, origin=launch.origin, retention_ms=launch.retention_ms, request=launch.request,
                taps=" ".join(str(index[name]) for name in launch.tapped), level=launch.level, staged=staged,
                deadline_ms=launch.deadline_ms,
            )  # fmt: skip
            if status != "GONE":
                return status, state
        raise _lost(launch)

    def _waiting(self, launch: Launch, name: str, frames: Sequence[Frame]) -> list[Frame]:
        return [self._seals.waiting(launch.waiting_place, name, frame) for frame in frames]


def _lost(launch: Launch) -> StoreUnavailableError:
    return StoreUnavailableError(
        where=f"run {launch.run_id!r}", problem="its inputs were lost before it was recorded", fix="Start it again"
    )


def is_small(frames: Mapping[str, Iterable[Frame]]) -> bool:
    """Whether inputs may travel in the call that records the run."""
    every = [frame for some in frames.values() for frame in some]
    return len(every) <= _INLINE_FRAMES and sum(len(frame.values) for frame in every) <= _INLINE_BYTES


async def stage(
    protocol: ShardProtocol, run_id: str, token: str, kind: str, place: int, frames: Sequence[Frame]
) -> str:
    """Bring frames in, in calls of bounded size; returns the key that they are under."""
    key = ""
    for number, (first, behind) in enumerate(parts(frames), 1):
        key = await protocol.stage(run_id, token, kind, place, number, frames[first:behind])
    return key
