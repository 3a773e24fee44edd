"""ArgumentPlan: the arguments of a function besides its inputs, as a flat list of steps, compiled once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import anyio

from datamesh.depends.building import CLEANUP_SECONDS, Leave, clean_up, open_value
from datamesh.depends.context import Context
from datamesh.depends.graph import Graph, Replacements
from datamesh.depends.layout import Layout
from datamesh.depends.overrides import Overrides
from datamesh.depends.scopes import RunScope
from datamesh.depends.signatures import Signatures
from datamesh.model.modes import Form

Call = Callable[..., Any]


class ArgumentPlan:
    """What a function is given besides its inputs, and how to get it.

    Args:
        function: Whose parameters these are.
        inputs: Names of the task's inputs.
        signatures: What was read of the function before; read now if it is left out.
        replaced: Overrides to compile in.

    Attributes:
        is_empty: Nothing is to be given: call the function with its inputs alone.
        wants_context: Whether anything asks for the context; if not, None does for one.

    Raises:
        DependencyError: A parameter cannot be resolved; see `Graph.of_function`.
    """

    __slots__ = (
        "_function",
        "_has_cleanup",
        "_inputs",
        "_is_immediate",
        "_lasting",
        "_signatures",
        "_steps",
        "_under",
        "_wants",
        "is_empty",
        "wants_context",
    )

    def __init__(
        self,
        function: Call,
        inputs: Iterable[str] = (),
        *,
        signatures: Signatures | None = None,
        replaced: Replacements | None = None,
    ) -> None:
        self._function = function
        self._inputs = tuple(inputs)
        self._signatures = signatures or Signatures()
        self._under: tuple[Replacements, ArgumentPlan] | None = None
        graph = Graph(self._signatures, inputs=self._inputs, replaced=replaced)
        layout = Layout(graph.of_function(function))
        self._wants = layout.wants
        self._lasting = tuple((node.scope == "service", node.key, node) for node in layout.lasting)
        self._steps = tuple((node.call, node.form, wants) for node, wants in layout.steps)
        forms = {node.form for node, _ in layout.steps}
        self._is_immediate = forms <= {Form.FUNCTION}
        self._has_cleanup = Form.ASYNC_GENERATOR in forms
        self.is_empty = not self._wants
        self.wants_context = layout.wants_context

    def solve_now(self, run: RunScope, context: Context | None = None) -> dict[str, Any] | None:
        """Return the arguments if that takes no waiting and leaves nothing to clean up, else None: then use `solve`.

        Args:
            run: The run's scope.
            context: Of this invocation; may be None unless `wants_context`.

        Raises:
            BaseException: What a dependency raised.
        """
        if run.overrides.replaced:
            return self.under(run.overrides)._solve_now(run, context)
        return self._solve_now(run, context)

    def is_ready(self, run: RunScope) -> bool:
        """Tell whether `solve_now` would answer, without calling anything.

        Args:
            run: The run's scope.
        """
        plan = self.under(run.overrides)
        return plan._is_immediate and all(
            key in (run.service.values if is_of_service else run.values) for is_of_service, key, _ in plan._lasting
        )

    def is_immediate(self, run: RunScope) -> bool:
        """Tell whether `solve_now` answers once the values that outlast an invocation are built."""
        return self.under(run.overrides)._is_immediate

    def _solve_now(self, run: RunScope, context: Context | None) -> dict[str, Any] | None:
        if not self._is_immediate:
            return None
        slots: list[Any] = [context]
        for is_of_service, key, _ in self._lasting:
            values = run.service.values if is_of_service else run.values
            if key not in values:
                return None
            slots.append(values[key])
        for call, _, wants in self._steps:
            slots.append(call(**{name: slots[slot] for name, slot in wants}) if wants else call())
        return {name: slots[slot] for name, slot in self._wants}

    def solve(self, run: RunScope, context: Context | None = None) -> CallScope:
        """Return an async context manager that gives the arguments and cleans up when the invocation is over.

        Leave it in the task that entered it. What it is left with is thrown into the generators; see `CallScope`.

        Args:
            run: The run's scope.
            context: Of this invocation; may be None unless `wants_context`.
        """
        return CallScope(self.under(run.overrides) if run.overrides.replaced else self, run, context)

    def under(self, overrides: Overrides) -> ArgumentPlan:
        """Return the plan while `overrides` is in force; compiled once for each change of them.

        Raises:
            DependencyError: An override does not fit in.
        """
        replaced = overrides.replaced
        if not replaced:
            return self
        if self._under is None or self._under[0] is not replaced:
            signatures = Signatures(self._signatures, overrides.signatures)
            plan = ArgumentPlan(self._function, self._inputs, signatures=signatures, replaced=replaced)
            self._under = (replaced, plan)
        return self._under[1]


class CallScope:
    """The arguments of one invocation, for `async with`.

    Every generator sees the error that the invocation ended with, and none of them can hide it: when the function
    failed, its error goes on, with a note for each cleanup that failed too. Without one, the first failure of a cleanup
    does. Cleanups are not cut short by cancellation, and may take 10 seconds in all.

    Raises:
        BaseException: On entering, what a dependency raised.
        TimeoutError: On leaving, the cleanups took too long.
    """

    __slots__ = ("_context", "_guard", "_leaves", "_plan", "_run")

    def __init__(self, plan: ArgumentPlan, run: RunScope, context: Context | None) -> None:
        self._plan = plan
        self._run = run
        self._context = context
        self._leaves: list[Leave] = []
        self._guard: anyio.CancelScope | None = None

    async def __aenter__(self) -> dict[str, Any]:
        # The guard is entered before any generator is: a task group that one of them holds must be left within it.
        if self._plan._has_cleanup:
            self._guard = anyio.CancelScope()
            self._guard.__enter__()
        try:
            return await self._open()
        except BaseException as error:
            await self._leave(error)
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._leaves or self._guard is not None:
            await self._leave(error)

    async def _open(self) -> dict[str, Any]:
        plan, run = self._plan, self._run
        slots: list[Any] = [self._context]
        for is_of_service, key, node in plan._lasting:
            values = run.service.values if is_of_service else run.values
            slots.append(values[key] if key in values else await run.get(node))
        for call, form, wants in plan._steps:
            arguments = {name: slots[slot] for name, slot in wants}
            if form is Form.FUNCTION:
                slots.append(call(**arguments))
            else:
                slots.append(await open_value(call, form, arguments, self._leaves))
        return {name: slots[slot] for name, slot in plan._wants}

    async def _leave(self, error: BaseException | None) -> None:
        if self._guard is None:
            await clean_up(self._leaves, error)
            return
        self._guard.shield = True
        self._guard.deadline = anyio.current_time() + CLEANUP_SECONDS
        failure: BaseException | None = None
        try:
            await clean_up(self._leaves, error)
        except BaseException as raised:
            failure = raised
        if self._left_late(failure or error):
            failure = None if error else TimeoutError(f"cleaning dependencies up took over {CLEANUP_SECONDS:g} seconds")
        if failure is not None:
            raise failure

    def _left_late(self, ended_by: BaseException | None) -> bool:
        """Leave the guard; tell whether its own deadline is what ended the cleanup."""
        guard, self._guard = self._guard, None
        assert guard is not None
        return bool(guard.__exit__(type(ended_by) if ended_by else None, ended_by, None))
