"""Building: getting a value out of a callable, whatever its form, and cleaning up after it."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

from anyio import to_thread

from datamesh.model.modes import Form

CLEANUP_SECONDS = 10.0
"""Longest time that a cleanup may take. Cancellation does not cut one short, so something must."""

Call = Callable[..., Any]
Leave = Callable[[BaseException | None], Awaitable[None]]
"""Cleans one value up, given the error that ended its use."""


async def open_value(call: Call, form: Form, arguments: dict[str, Any], leaves: list[Leave]) -> Any:
    """Build a value on the event loop, and note in `leaves` how it is cleaned up."""
    match form:
        case Form.COROUTINE:
            return await call(**arguments)
        case Form.ASYNC_GENERATOR:
            opened = asynccontextmanager(call)(**arguments)
            value = await opened.__aenter__()
            leaves.append(functools.partial(_leave, opened))
            return value
        case Form.GENERATOR:
            inline = contextmanager(call)(**arguments)
            value = inline.__enter__()
            leaves.append(functools.partial(_leave_inline, inline))
            return value
        case Form.FUNCTION:
            return call(**arguments)


async def open_lasting(call: Call, form: Form, arguments: dict[str, Any], leaves: list[Leave]) -> Any:
    """Build a value that may take long: as `open_value`, with synchronous code in a thread."""
    match form:
        case Form.FUNCTION:
            return await to_thread.run_sync(functools.partial(call, **arguments))
        case Form.GENERATOR:
            opened = _in_thread(contextmanager(call)(**arguments))
            value = await opened.__aenter__()
            leaves.append(functools.partial(_leave, opened))
            return value
        case _:
            return await open_value(call, form, arguments, leaves)


@asynccontextmanager
async def _in_thread(blocking: AbstractContextManager[Any]) -> AsyncIterator[Any]:
    value = await to_thread.run_sync(blocking.__enter__)
    try:
        yield value
    finally:
        await to_thread.run_sync(blocking.__exit__, None, None, None)


async def _leave(opened: AbstractAsyncContextManager[Any], error: BaseException | None) -> None:
    await opened.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)


async def _leave_inline(opened: AbstractContextManager[Any], error: BaseException | None) -> None:
    opened.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)


async def clean_up(leaves: list[Leave], error: BaseException | None) -> None:
    """Clean values up, the last one built first, each of them whatever happens to the others.

    Args:
        leaves: Emptied, so that nothing is cleaned up twice.
        error: What ended the use of the values; every one of them sees it.

    Raises:
        BaseException: Without `error`, the first failure of a cleanup. With it nothing: the caller raises `error`,
            which has a note on each failure. A cancellation that arrives here is raised in any case.
    """
    failure = error
    while leaves:
        leave = leaves.pop()
        try:
            await leave(failure)
        except BaseException as raised:
            failure = _graver(failure, raised)
    if failure is not None and failure is not error:
        raise failure


def _graver(failure: BaseException | None, raised: BaseException) -> BaseException:
    """Which of two errors goes on; the other is left as a note, or as the context that Python keeps anyway."""
    if failure is None or failure is raised:
        return raised
    if isinstance(failure, Exception) and not isinstance(raised, Exception):
        return raised
    failure.add_note(f"a dependency's cleanup failed too: {type(raised).__name__}: {raised}")
    return failure
