"""Plans: bound plans as they stand in Redis, and those that this process has met."""

from __future__ import annotations

from collections import OrderedDict

from datamesh.errors import TamperedDataError
from datamesh.model.bound import BoundPlan
from datamesh.store.keys import ShardKeys
from datamesh.store.protocol import ShardProtocol

_CACHED = 4096
_SMALL = 2000


class Plans:
    """Bound plans of one shard by digest. They never change, so what was met is kept."""

    def __init__(self, protocol: ShardProtocol) -> None:
        self._protocol = protocol
        self._cached: OrderedDict[str, BoundPlan] = OrderedDict()

    def cached(self, digest: str) -> BoundPlan | None:
        """Return a plan that this process has met."""
        return self._cached.get(digest)

    async def find(self, digest: str) -> BoundPlan:
        """Return the plan of this digest.

        Raises:
            TamperedDataError: There is none, or it is another one.
        """
        bound = self._cached.get(digest)
        if bound is None:
            wire = await self._protocol.command("HGET", self._protocol.keys.plan(digest), "plan")
            if wire is None:
                raise TamperedDataError(where=f"plan {digest}", problem="it is gone from the store")
            bound = BoundPlan.from_wire(wire)
            if bound.digest != digest:
                raise TamperedDataError(where=f"plan {digest}", problem=f"its content has the digest {bound.digest}")
            self.keep(bound)
        return bound

    async def write(self, bound: BoundPlan) -> None:
        """Write a plan, for all its runs."""
        await self._protocol.write_plan(bound.digest, plan_fields(bound, self._protocol.keys))
        self.keep(bound)

    def keep(self, bound: BoundPlan) -> None:
        """Remember a plan."""
        self._cached[bound.digest] = bound
        if len(self._cached) > _CACHED:
            self._cached.popitem(last=False)


def plan_fields(bound: BoundPlan, keys: ShardKeys) -> dict[str, str | bytes]:
    """The fields of a plan's hash: its wire form for supervisors, and in plain words what the scripts need of it."""
    fields: dict[str, str | bytes] = {
        "taps": " ".join(map(str, sorted(bound.taps))),
        "nodes": str(len(bound.plan.nodes)),
        "waits": " ".join(str(index) for index in range(len(bound.plan.nodes)) if bound.waits(index)),
    }
    for index, node in enumerate(bound.plan.nodes):
        fields[f"w{index}"] = keys.work(node.ref)
        fields[f"n{index}"] = " ".join(map(str, bound.outputs[index].values()))
    for index, route in enumerate(bound.routes):
        fields[f"s{index}"] = route
    everything = "".join(f"{name} {text!s}\n" for name, text in fields.items())
    # A script reads all of a small plan at once; of a larger one it looks up what it needs.
    return {**fields, "plan": bound.wire, "all": everything if len(everything) <= _SMALL else ""}
