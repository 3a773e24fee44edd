"""Types: what this process knows of the types of a flow's streams, to check inputs and to read results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from datamesh.codec.values import ValueCodec
from datamesh.model.plan import Plan
from datamesh.supervise.served import Served


class Types:
    """Codecs by stream: as the flow declares it, else as an implementation in this service does, else untyped."""

    def __init__(self, served: Mapping[str, Served], *, max_value_bytes: int) -> None:
        self._served = served
        self._max_value_bytes = max_value_bytes
        self._codecs: dict[tuple[str, str], tuple[Plan, ValueCodec]] = {}

    def codec(self, plan: Plan, stream: str) -> ValueCodec:
        """The codec of a stream."""
        key = (plan.digest, stream)
        known = self._codecs.get(key)
        # Plans with the same wiring may declare different types; those are not on the wire and not in the digest.
        if known is None or (known[0] is not plan and known[0].types.get(stream) != plan.types.get(stream)):
            known = self._codecs[key] = (plan, self._find(plan, stream))
        return known[1]

    def _find(self, plan: Plan, stream: str) -> ValueCodec:
        annotation = plan.types.get(stream, Any)
        if annotation is Any:
            annotation = self._implemented(plan, stream)
        return ValueCodec(annotation, max_value_bytes=self._max_value_bytes, where=f"stream {stream!r}")

    def _implemented(self, plan: Plan, stream: str) -> Any:
        for node in plan.nodes:
            served = self._served.get(node.ref)
            if served is None:
                continue
            for output, written in node.outputs:
                if written == stream:
                    return served.binding.output_types.get(output, Any)
        readers = [
            served.binding.input_types.get(parameter, Any)
            for node in plan.nodes
            if (served := self._served.get(node.ref)) is not None
            for parameter, read in node.inputs
            if read == stream and not plan.stream(stream).producers
        ]
        return next((annotation for annotation in readers if annotation is not Any), Any)
