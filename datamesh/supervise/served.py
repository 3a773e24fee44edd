"""Served: an implementation made ready to run in this service, with codecs for its values and a place to run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datamesh.codec.values import ValueCodec
from datamesh.depends.binding import Binding
from datamesh.errors import ConfigurationError
from datamesh.execute.executor import Executor
from datamesh.supervise.slots import Slots


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """What a delivery needs to be run.

    Attributes:
        binding: The implementation.
        inputs: Codec by parameter.
        outputs: Codec by output of the task.
        executor: Where it runs if it is synchronous.
        slots: Its own limit on invocations at once, if it has one.
        max_value_bytes: Largest value that may be sent.
    """

    binding: Binding
    inputs: Mapping[str, ValueCodec]
    outputs: Mapping[str, ValueCodec]
    executor: Executor
    slots: Slots | None
    max_value_bytes: int

    @classmethod
    def of(
        cls, binding: Binding, *, executors: Mapping[str, Executor], default: Executor, max_value_bytes: int
    ) -> Served:
        """Make an implementation ready.

        Raises:
            ConfigurationError: It asks for an executor that the supervisor does not have.
            ContractMismatchError: Values of one of its types cannot be checked.
        """
        task = binding.task.name
        limit = binding.options.concurrency
        return cls(
            binding,
            {name: ValueCodec(kind, max_value_bytes=max_value_bytes, where=f"input {name!r} of task {task!r}")
             for name, kind in binding.input_types.items()},
            {name: ValueCodec(kind, max_value_bytes=max_value_bytes, where=f"output {name!r} of task {task!r}")
             for name, kind in binding.output_types.items()},
            _executor(binding, executors, default),
            None if limit is None else Slots(limit),
            max_value_bytes,
        )  # fmt: skip

    @property
    def ref(self) -> str:
        return self.binding.ref

    @property
    def concurrency(self) -> int | None:
        return self.binding.options.concurrency

    @property
    def pressure(self) -> str:
        """Its marks as the scripts read them; empty for the default."""
        marks = self.binding.options.backpressure
        return "" if marks is None else f"{marks.high} {marks.resume}"

    def contract(self) -> dict[str, Any]:
        """What is announced of it: the binding's contract and a digest of the schema of each type."""
        contract = self.binding.contract()
        codecs = {
            **{f"input {n}": c for n, c in self.inputs.items()},
            **{f"output {n}": c for n, c in self.outputs.items()},
        }
        contract["schemas"] = {name: _digest(codec.schema) for name, codec in sorted(codecs.items())}
        return contract


def _executor(binding: Binding, executors: Mapping[str, Executor], default: Executor) -> Executor:
    wanted = binding.options.executor
    if wanted is None:
        return default
    if isinstance(wanted, Executor):
        return wanted
    if wanted not in executors:
        raise ConfigurationError(
            f"{binding.describe()} wants executor {wanted!r}: "
            f"this supervisor has {', '.join(sorted(executors)) or 'none by name'}"
        )
    return executors[wanted]


def _digest(schema: Any) -> str:
    return hashlib.sha256(json.dumps(schema, sort_keys=True, default=str).encode()).hexdigest()[:16]
