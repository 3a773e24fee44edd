"""Discarding: an entry that cannot be run is buried with the reason, or left to services that may understand it."""

from __future__ import annotations

import logging

from datamesh.errors import DatameshError, TamperedDataError
from datamesh.model.bound import BoundPlan
from datamesh.model.modes import Mode
from datamesh.store.frames import Delivery, raw_fields
from datamesh.store.protocol import ShardProtocol

_log = logging.getLogger("datamesh.delivery")


def check_place(delivery: Delivery, bound: BoundPlan, ref: str) -> None:
    """Check that a delivery is for the task in whose work stream it stands.

    Raises:
        TamperedDataError: Its plan has no such task there.
    """
    nodes = bound.plan.nodes
    if delivery.node >= len(nodes) or nodes[delivery.node].ref != ref:
        raise TamperedDataError(
            where=f"delivery {delivery.id}", problem=f"node {delivery.node} of plan {delivery.digest} is not {ref}"
        )
    is_whole = bound.modes[delivery.node] is Mode.STREAM
    if is_whole == bool(delivery.frame.count):
        raise TamperedDataError(
            where=f"delivery {delivery.id}", problem=f"{ref} does not take {delivery.frame.count} values"
        )


async def discard(
    protocol: ShardProtocol, member: str, delivery: Delivery, problem: str, *, again_ms: int
) -> None:  # fmt: skip
    """Take an entry out of its work stream.

    Where that fails the entry stays with this member, and is met again by whoever takes over from it.

    Args:
        protocol: Of the shard.
        member: Holds the entry.
        delivery: The entry, as far as it could be read.
        problem: Why it cannot be run.
        again_ms: When an entry of a later version comes back for others to take.
    """
    delay_ms = again_ms if delivery.is_newer else 0
    what = "put off" if delay_ms else "buried"
    _log.error("entry %s of %s is %s: %s", delivery.entry_id, delivery.work, what, problem)
    delivery.raw = delivery.raw or raw_fields(delivery)
    try:
        await protocol.discard(member, delivery, problem, delay_ms=delay_ms)
    except (DatameshError, OSError) as error:
        _log.error("entry %s of %s cannot be %s: %s", delivery.entry_id, delivery.work, what, error)
