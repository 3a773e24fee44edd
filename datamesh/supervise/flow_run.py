"""FlowRun: one execution of a flow, in the hands of whoever started it or asks for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any

from datamesh.errors import UnknownRunError
from datamesh.model.io import IO
from datamesh.model.plan import Plan
from datamesh.model.run import RunEvent, RunResult, RunState, RunStatus
from datamesh.store.frames import Entry
from datamesh.store.store import ShardStore
from datamesh.store.streams import InputWriter, Signatures, StreamReader, run_error
from datamesh.supervise.status import run_status
from datamesh.supervise.types import Types


class FlowRun(dict[str, IO[Any]]):
    """The streams of a run by name, and what may be done with it.

    A mapping that is a `dict`, so that it may be passed and annotated as one. Without `all_outputs` it has the outputs
    that no task of the flow consumes; with it, every stream.

    Attributes:
        id: Of the run; `supervisor.get_run(id)` gives the same in any process.
        inputs: The inputs of the flow by name, writable if the run was started with `open_inputs=True`.
    """

    def __init__(
        self, run_id: str, plan: Plan, shard: ShardStore, types: Types, *, all_outputs: bool, open_inputs: bool
    ) -> None:
        self.id = run_id
        self._plan = plan
        self._shard = shard
        self._types = types
        self._signatures = Signatures(shard.protocol, shard.seals, run_id, plan)
        self._index = {stream.name: index for index, stream in enumerate(plan.streams)}
        names = [stream.name for stream in plan.streams] if all_outputs else plan.outputs
        super().__init__({name: IO[Any](name, self._reader(name)) for name in names})
        self.inputs: Mapping[str, IO[Any]] = MappingProxyType(
            {name: self._input(name, open_inputs) for name in plan.inputs}
        )

    def __missing__(self, name: str) -> IO[Any]:
        if name in self._index:
            raise KeyError(f"{name} (a task consumes it: start the flow with `all_outputs=True` to read it too)")
        raise KeyError(name)

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__

    def __repr__(self) -> str:
        return f"<FlowRun {self.id} of {self._plan.flow}: {', '.join(self)}>"

    async def status(self) -> RunStatus:
        """Tell where the run stands.

        Raises:
            UnknownRunError: It is gone; its retention is over.
        """
        return await run_status(self._shard, self.id, self._plan)

    async def wait(self) -> RunStatus:
        """Wait until the run has ended, in whatever way, and tell how.

        Raises:
            UnknownRunError: It is gone; its retention is over.
        """
        async for _ in self.events():
            pass
        return await self.status()

    async def result(self) -> RunResult:
        """Wait for all outputs and collect them, by name; the result also has counts of `skipped` and `dead` values.

        Raises:
            RunError: The run did not end well.
        """
        values = {name: await io.collect() for name, io in self.items()}
        status = await self.wait()
        if status.state is not RunState.DONE:
            failure = await self._shard.protocol.command("HGET", self._shard.keys.run(self.id), "failure")
            error = run_error(self.id, status.state.value, failure or b"")
            if error is not None:
                raise error
        return RunResult(values, skipped=status.skipped, dead=status.dead)

    async def cancel(self) -> RunStatus:
        """Cancel the run: nothing of it settles any more, running code is interrupted, readers get the error.

        A run that has ended already stays as it is.

        Raises:
            UnknownRunError: It is gone; its retention is over.
        """
        state = await self._shard.protocol.end(self.id, state=RunState.CANCELLED.value)
        if not state:
            raise UnknownRunError(run_id=self.id)
        return await self.status()

    async def events(self) -> AsyncIterator[RunEvent]:
        """Facts about the run from now on, the last one is the state in which it ended.

        Raises:
            UnknownRunError: It is gone; its retention is over.
        """
        key, after = self._shard.keys.events(self.id), "0"
        state = await self._shard.protocol.listen(self.id)
        if not state:
            raise UnknownRunError(run_id=self.id)
        if RunState(state).is_final:
            status = await self.status()
            yield RunEvent(state, self.id, status.ended or 0.0)
            return
        while True:
            for entry in await self._shard.tails.read(key, after, run_key=self._shard.keys.run(self.id)):
                after = entry.entry_id
                event = self._event(entry)
                yield event
                if event.subject == self.id:
                    return

    def _event(self, entry: Entry) -> RunEvent:
        kind, subject = entry.fields[b"kind"].decode(), entry.fields[b"subject"].decode()
        if subject != self.id:
            index = int(subject)
            subject = self._plan.streams[index].name if kind == "closed" else self._plan.nodes[index].name
        return RunEvent(kind, subject, int(entry.entry_id.partition("-")[0]) / 1000)

    def _reader(self, name: str) -> StreamReader:
        codec = self._types.codec(self._plan, name)
        shard = self._shard
        return StreamReader(shard.protocol, shard.tails, self._signatures, self.id, self._index[name], codec)

    def _input(self, name: str, is_open: bool) -> IO[Any]:
        if not is_open:
            return IO(
                name,
                self._reader(name),
                read_only="the run was started with complete inputs; start it with `open_inputs=True`",
            )
        codec = self._types.codec(self._plan, name)
        shard, index = self._shard, self._index[name]
        writer = InputWriter(shard.protocol, shard.room, self._signatures, self.id, name, index, codec)
        return IO(name, self._reader(name), writer)
