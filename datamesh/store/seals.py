"""Seals: what is signed of a run in the store, and for which place.

A frame is signed for its run, its plan and its stream, with its lineages, so that it cannot be given to another run or
another task. The mark of a delivery is signed together with the frame that it belongs to. Without keys nothing is
signed and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from datamesh.codec.seal import NoSeal, Sealing
from datamesh.model.bound import BoundPlan
from datamesh.model.plan import Plan
from datamesh.store.frames import Burial, Delivery, Frame, Requeue, Settlement


class Place(NamedTuple):
    """A run as frames are signed for it.

    Attributes:
        run_id: Of the run.
        origin: Token of its start.
        digest: Of its bound plan.
        plan: The plan.
    """

    run_id: str
    origin: str
    digest: str
    plan: Plan

    @classmethod
    def of(cls, delivery: Delivery, bound: BoundPlan) -> Place:
        """The run that a delivery is of."""
        return cls(delivery.run_id, delivery.origin, delivery.digest, bound.plan)


class Seals:
    """Signs and checks what one mesh keeps.

    Args:
        sealing: Of the keys of this service.
    """

    def __init__(self, sealing: Sealing) -> None:
        self._sealing = sealing
        self.is_on = not isinstance(sealing, NoSeal)
        self.key_ids = sealing.key_ids

    # ------------------------------------------------------------------------------------------------- frames

    def frame(self, place: Place, stream: int, frame: Frame) -> Frame:
        """Sign a frame of a stream of a run."""
        if not self.is_on or not frame.count:
            return frame
        return frame._replace(values=self._sealing.seal(frame.values, *_facts(place, stream, frame)))

    def frames(self, place: Place, stream: int, frames: Sequence[Frame]) -> list[Frame]:
        """Sign frames of one stream."""
        return [self.frame(place, stream, frame) for frame in frames]

    def opened(self, place: Place, stream: int, frame: Frame) -> Frame:
        """Check a frame and take its signature off.

        Raises:
            TamperedDataError: It was not written for this place by a service of this mesh.
        """
        if not self.is_on or not frame.count:
            return frame
        where = f"stream {place.plan.streams[stream].name!r} of run {place.run_id!r}"
        return frame._replace(values=self._sealing.open(frame.values, *_facts(place, stream, frame), where=where))

    # --------------------------------------------------------------------------------------- waiting for tasks

    def waiting(self, place: Place, name: str, frame: Frame) -> Frame:
        """Sign a frame of an input of a run that has no bound plan yet; the digest of `place` is that of its plan."""
        facts = _waiting_facts(place, name, frame)
        return frame._replace(values=self._sealing.seal(frame.values, *facts)) if self.is_on else frame

    def opened_waiting(self, place: Place, name: str, frame: Frame) -> Frame:
        """Check such a frame and take its signature off.

        Raises:
            TamperedDataError: It was not written for this place by a service of this mesh.
        """
        facts = _waiting_facts(place, name, frame)
        where = f"input {name!r} of run {place.run_id!r}"
        return frame._replace(values=self._sealing.open(frame.values, *facts, where=where)) if self.is_on else frame

    # ---------------------------------------------------------------------------------------------- deliveries

    def delivery(self, delivery: Delivery, bound: BoundPlan) -> Delivery:
        """Check a delivery as it was taken, with its mark, and take the signatures off.

        Raises:
            TamperedDataError: It was not written for this place by a service of this mesh.
        """
        if not self.is_on:
            return delivery
        place, frame, mark = Place.of(delivery, bound), delivery.frame, delivery.mark
        if frame.count:
            frame = self.opened(place, _input(bound, delivery.node), frame)
        if mark:
            where = f"the mark of delivery {delivery.id}"
            mark = self._sealing.open(mark, *_mark_facts(place, delivery.node, frame), where=where)
        return replace(delivery, frame=frame, mark=mark)

    def settlement(self, settlement: Settlement, bound: BoundPlan) -> Settlement:
        """Sign all that a settlement writes."""
        if not self.is_on:
            return settlement
        delivery = settlement.delivery
        place, node = Place.of(delivery, bound), delivery.node
        return replace(
            settlement,
            mark=self._mark(place, node, delivery.frame, settlement.mark),
            outputs=[(stream, self.frame(place, stream, frame)) for stream, frame in settlement.outputs],
            retries=[self._requeue(place, bound, node, again) for again in settlement.retries],
            returned=[self._requeue(place, bound, node, again) for again in settlement.returned],
            burials=[self._burial(place, bound, node, burial) for burial in settlement.burials],
        )

    def _own(self, place: Place, bound: BoundPlan, node: int, frame: Frame) -> Frame:
        return self.frame(place, _input(bound, node), frame) if frame.count else frame

    def _requeue(self, place: Place, bound: BoundPlan, node: int, again: Requeue) -> Requeue:
        mark = self._mark(place, node, again.frame, again.mark)
        return again._replace(frame=self._own(place, bound, node, again.frame), mark=mark)

    def _burial(self, place: Place, bound: BoundPlan, node: int, burial: Burial) -> Burial:
        mark = self._mark(place, node, burial.frame, burial.mark)
        return burial._replace(frame=self._own(place, bound, node, burial.frame), mark=mark)

    def _mark(self, place: Place, node: int, frame: Frame, mark: bytes) -> bytes:
        return self._sealing.seal(mark, *_mark_facts(place, node, frame)) if mark else mark


def _facts(place: Place, stream: int, frame: Frame) -> tuple[str | int | bytes, ...]:
    # Writers of an open input do not know the lineages: the script that adds their values gives them.
    lineages = frame.lineages if place.plan.streams[stream].producers else b""
    return ("frame", place.run_id, place.origin, place.digest, stream, lineages, frame.count, frame.flags)


def _waiting_facts(place: Place, name: str, frame: Frame) -> tuple[str | int | bytes, ...]:
    return ("waiting", place.run_id, place.origin, place.digest, name, frame.lineages, frame.count, frame.flags)


def _mark_facts(place: Place, node: int, frame: Frame) -> tuple[str | int | bytes, ...]:
    return ("mark", place.run_id, place.origin, place.digest, node, frame.lineages, frame.values)


def _input(bound: BoundPlan, node: int) -> int:
    """The stream whose values a node takes one by one."""
    (_, stream), *_ = bound.plan.nodes[node].inputs
    return bound.stream_index[stream]
