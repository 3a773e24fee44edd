"""Supervisor: what a service attaches to take part in a mesh."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, ClassVar, Self

from datamesh.depends.binding import Binding, bind
from datamesh.depends.overrides import Overrides
from datamesh.errors import ConfigurationError, UnknownRunError, UnresolvedFlowError
from datamesh.execute.executor import Executor
from datamesh.execute.local import LocalExecutor
from datamesh.model.flow import Flow
from datamesh.model.names import check_name
from datamesh.model.plan import Plan
from datamesh.model.policies import Quota
from datamesh.model.registry import registry
from datamesh.model.run import RunState
from datamesh.model.task import Task
from datamesh.settings import Settings, environment_url
from datamesh.store.connect import Endpoint, endpoint_of
from datamesh.store.durability import Durability, confirm, probe
from datamesh.store.embedded import EmbeddedServer
from datamesh.store.locate import Deployment, locate
from datamesh.store.memory import memory_client
from datamesh.store.store import Store
from datamesh.supervise.dead import DeadLetters
from datamesh.supervise.flow_run import FlowRun
from datamesh.supervise.health import Health, ServiceState
from datamesh.supervise.launch import Inputs, Launch, prepare
from datamesh.supervise.served import Served
from datamesh.supervise.serving import serve
from datamesh.supervise.session import Session
from datamesh.supervise.signals import Signals
from datamesh.supervise.types import Types

_log = logging.getLogger("datamesh.supervisor")
Dependency = Callable[..., Any]


def _compile(task: Task, function: Callable[..., Any], options: dict[str, Any]) -> Binding:
    return bind(task, function, **options)


registry.compiler = _compile


class _Instance:
    """`Supervisor.instance`: the attached supervisor. The package's one global."""

    def __init__(self) -> None:
        self.attached: Supervisor | None = None

    def __get__(self, owner: object, kind: type | None = None) -> Supervisor:
        if self.attached is None:
            raise ConfigurationError(
                "no supervisor is attached: "
                "add `Supervisor.attach(executor=LocalExecutor())` at the start of the program"
            )
        return self.attached


_instance = _Instance()


class Supervisor:
    """Runs tasks of this service and starts flows on the mesh.

    It works in the event loop that uses it: from `async with supervisor`, from `await supervisor.serve()`, or by itself
    from the first `start_flow` on. Making one does no I/O.

    Args:
        client: A Redis client whose server is used; of redis-py, synchronous, asynchronous or cluster.
        url: Of that server instead.
        executor: Where synchronous functions run; a `LocalExecutor` if left out.
        executors: Several by name, for tasks that ask for one; the first is the default unless `executor` is given.
        tasks: Serve these alone; else every task that has an implementation in this process when work begins.
        name: Of the service, for people.
        options: See `Settings`; each may be set as `DATAMESH_<NAME>` in the environment instead.

    Raises:
        ConfigurationError: An option does not exist or a value cannot be used.
    """

    instance: ClassVar[_Instance] = _instance
    """The attached supervisor; a call of it is the same supervisor."""

    def __init__(
        self, client: object | None = None, *, url: str | None = None, executor: Executor | None = None,
        executors: Mapping[str, Executor] | None = None, tasks: Iterable[Any] | None = None, name: str | None = None,
        **options: Any,
    ) -> None:  # fmt: skip
        self.settings = Settings.of(options)
        self.location = locate(url, environment_url(), self.settings.mesh, client=client)
        self._client = client
        self._executors = _checked(executors or {})
        self._executor = executor or next(iter(self._executors.values()), None) or LocalExecutor()
        self._refs = None if tasks is None else frozenset(_ref(task) for task in tasks)
        self._name = None if name is None else check_name("service", name)
        self._overrides = Overrides(plans=lambda: [binding.plan for binding in self._bindings()])
        self._server: EmbeddedServer | None = None
        self._session: Session | None = None
        self._opening: asyncio.Task[Session] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._types: Types | None = None

    def __call__(self) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<Supervisor of mesh {self.settings.mesh!r} on {self.location}>"

    @classmethod
    def attach(
        cls, client: object | None = None, *, url: str | None = None, executor: Executor | None = None,
        executors: Mapping[str, Executor] | None = None, tasks: Iterable[Any] | None = None, name: str | None = None,
        **options: Any,
    ) -> Self:  # fmt: skip
        """Make the supervisor of this program and set `Supervisor.instance`. Does no I/O.

        Takes what `Supervisor` takes.

        Raises:
            ConfigurationError: One is attached already, or an argument cannot be used.
        """
        if _instance.attached is not None:
            raise ConfigurationError(
                f"{_instance.attached!r} is attached already: "
                "use `Supervisor.instance`, or `Supervisor(...)` for one more"
            )
        made = cls(client, url=url, executor=executor, executors=executors, tasks=tasks, name=name, **options)
        _instance.attached = made
        return made

    @classmethod
    def detach(cls) -> None:
        """Forget the attached supervisor, for tests; what it does goes on until it is closed."""
        _instance.attached = None

    # ------------------------------------------------------------------------------------------------ working

    async def __aenter__(self) -> Self:
        await self.session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.drain()

    async def serve(self) -> None:
        """Work until SIGTERM or SIGINT, then drain. A second signal exits at once.

        Raises:
            ServiceBrokenError: A part of the service broke again and again.
            StoreUnavailableError: Redis cannot be reached.
        """
        with Signals() as signals:
            await serve(self, signals)

    def health(self) -> Health:
        """How the service is. Costs no call to Redis, and may be asked from any thread."""
        return Health(ServiceState.STARTING) if self._session is None else self._session.health()

    async def drain(self) -> None:
        """Take nothing more, finish what has begun within the grace period, give back the rest, and stop."""
        if self._session is not None:
            await self._session.drain(self.settings.grace)
        if self._keeper is not None:
            self._keeper.cancel()
        await self._executor.aclose()
        await asyncio.to_thread(self._release_server)

    async def session(self) -> Session:
        """The work in this event loop; begun now if it has not.

        Raises:
            StoreUnavailableError: Redis cannot be reached.
            ContractMismatchError: A task was announced by another service in another form.
        """
        if self._session is not None and self._session.is_open and self._session.loop is asyncio.get_running_loop():
            return self._session
        if self._opening is None or self._opening.get_loop() is not asyncio.get_running_loop():
            self._opening = asyncio.create_task(self._open(), name="datamesh-open")
        try:
            return await asyncio.shield(self._opening)
        finally:
            if self._opening is not None and self._opening.done():
                self._opening = None

    async def _open(self) -> Session:
        if self._session is not None and self._session.loop.is_closed():
            self._session.abandon()
        endpoint = await asyncio.to_thread(self._endpoint)
        _log.info("mesh %r is on %s", self.settings.mesh, self.location)
        store = await Store.open(
            self.settings.mesh,
            endpoint,
            allow_eviction=self.settings.allow_eviction,
            signing_keys=self.settings.signing_keys,
        )
        served = {binding.ref: self._served(binding) for binding in self._bindings()}
        session = Session(store, served, self.settings, self._overrides, self._endpoint, self._name)
        self._types = Types(served, max_value_bytes=self.settings.max_value_bytes)
        try:
            await session.start()
        except BaseException:
            await session.close(leave=True)
            raise
        self._session = session
        self._keeper = asyncio.create_task(session.keep(), name="datamesh-keeper")
        return session

    def _endpoint(self) -> Endpoint:
        if self.location.deployment is Deployment.EMBEDDED and self._server is None:
            self._server = EmbeddedServer.acquire(self.location.mesh, persist=self.location.persist)
        if self.location.deployment is Deployment.MEMORY and self._client is None:
            self._client = memory_client()
        path = None if self._server is None else str(self._server.socket_path)
        return endpoint_of(self.location, self._client, path)

    def _release_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.release()

    def _bindings(self) -> list[Binding]:
        bindings: Iterable[Binding] = registry.bindings()
        return [binding for binding in bindings if self._refs is None or binding.ref in self._refs]

    def _served(self, binding: Binding) -> Served:
        return Served.of(
            binding, executors=self._executors, default=self._executor, max_value_bytes=self.settings.max_value_bytes
        )

    # --------------------------------------------------------------------------------------------------- runs

    async def start_flow(
        self, flow: Flow, inputs: Inputs = (), *, all_outputs: bool = False, run_id: str | None = None,
        open_inputs: bool = False, deadline: float | None = None, priority: int = 0, quota: Quota | None = None,
        durability: str = "acknowledged",
    ) -> FlowRun:  # fmt: skip
        """Start a run. Returns when it is durably recorded, without waiting for any task.

        Args:
            flow: Resolved.
            inputs: An `IOVal` for each value, several of one name are several values; or a mapping of names to values.
            all_outputs: Keep every stream for readers, not only those that no task consumes.
            run_id: An id of your own: the same one again gives the run that exists and never a second one.
            open_inputs: Leave the inputs open, to be written through `run.inputs` and completed.
            deadline: Seconds from now after which the run has failed.
            priority: Above 0 goes before, below 0 behind other runs.
            quota: What the run may have; see `Quota`.
            durability: What to wait for: "acknowledged" by the server, "replicated" to a replica too, or "fsync", on
                its disk.

        Raises:
            UnresolvedFlowError: `flow.resolve()` was not called.
            FloatingIOError: An input has no value.
            UnknownInputError: A value is for no input of the flow.
            InvalidValueError: A value does not fit its type.
            UnserializableValueError: A value has no form on the wire.
            PayloadTooLargeError: A value is over the limit.
            QuotaExceededError: The inputs are more than the run may have.
            NotDurableError: The run is recorded, but not known to be as durable as asked for; or the server has no
                replica, and nothing is written.
            StoreUnavailableError: Redis cannot be reached.
        """
        if not isinstance(flow, Flow):
            raise ConfigurationError(f"{flow!r} cannot be started: pass a flow, `Flow.from_tasks(...).resolve()`")
        if not flow.is_resolved:
            raise UnresolvedFlowError(flow=flow.name)
        session = await self.session()
        assert self._types is not None
        launch = prepare(
            flow, inputs, types=self._types, all_outputs=all_outputs, run_id=run_id, open_inputs=open_inputs,
            deadline=deadline, priority=priority, retention_ms=self.settings.retention_ms, quota=quota,
        )  # fmt: skip
        level = Durability.of(durability)
        await probe(session.store, launch.run_id, level)
        state, is_as_asked = await session.launcher_of(launch.run_id).launch(launch)
        await confirm(session.store, launch.run_id, level)
        if state == RunState.WAITING:
            session.tell_of_late_tasks(launch.plan, {binding.ref for binding in self._bindings()})
        if not is_as_asked:
            return await self._found(launch.run_id, launch.plan)
        shard = session.shard_of(launch.run_id)
        return FlowRun(launch.run_id, launch.plan, shard, self._types, all_outputs=all_outputs, open_inputs=open_inputs)

    async def get_run(self, run_id: str) -> FlowRun:
        """Return a run that was started anywhere in the mesh.

        Raises:
            UnknownRunError: There is none of this id.
            StoreUnavailableError: Redis cannot be reached.
        """
        check_name("run id", run_id)
        return await self._found(run_id)

    async def _found(self, run_id: str, known: Plan | None = None) -> FlowRun:
        """The run as it is recorded; `known` is preferred to a plan without its types."""
        session = await self.session()
        assert self._types is not None
        shard = session.shard_of(run_id)
        state, digest, request, whole, opened = await shard.protocol.command(
            "HMGET", shard.keys.run(run_id), "state", "plan", "request", "all", "open"
        )
        if state is None:
            raise UnknownRunError(run_id=run_id)
        if digest is None:
            waiting = Launch.of_request(run_id, request, {})
            plan, all_outputs, open_inputs = waiting.plan, waiting.all_outputs, waiting.open_inputs
        else:
            plan = (await session.members[shard.index].plans.find(digest.decode())).plan
            all_outputs, open_inputs = whole == b"1", opened == b"1"
        plan = known if known is not None and known.digest == plan.digest else plan
        return FlowRun(run_id, plan, shard, self._types, all_outputs=all_outputs, open_inputs=open_inputs)

    @property
    def dead(self) -> DeadLetters:
        """What was buried in the mesh: to look at, to send again, or to drop."""
        return DeadLetters(self.session, retention_ms=self.settings.retention_ms)

    def override(self, dependencies: Mapping[Dependency, Dependency]) -> AbstractContextManager[None]:
        """Replace dependencies while the context lasts, for tests: `with supervisor.override({get_db: fake_db}):`.

        Raises:
            DependencyError: A replacement does not fit in.
        """
        return self._overrides.use(dependencies)


def _ref(task: Any) -> str:
    ref = getattr(task, "ref", None) or getattr(getattr(task, "task", None), "ref", None)
    if not isinstance(ref, str):
        raise ConfigurationError(f"tasks has {task!r}: pass tasks, as `Task(...)` or `@task` made them")
    return ref


def _checked(executors: Mapping[str, Executor]) -> Mapping[str, Executor]:
    for name, executor in executors.items():
        if not isinstance(executor, Executor):
            raise ConfigurationError(f"executors[{name!r}] is {executor!r}: pass an Executor, such as LocalExecutor()")
    return dict(executors)
