"""Tasks whose values may be the death of whoever runs them, for tests that look at who dies."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import pydantic

from datamesh import Context, Depends, IOVal, Retry, Task, task
from datamesh.model.policies import RetryLater

builds: list[str] = []
"""What was built in this process, in order."""


class Person(pydantic.BaseModel):
    name: str
    born: int = 0


def connection() -> Iterator[str]:
    builds.append("connection")
    yield f"connection {builds.count('connection')} of {os.getpid()}"


async def session(context: Context) -> str:
    builds.append("session")
    return f"session of {context.run_id}"


async def late_connection() -> str:
    await asyncio.sleep(0.6)
    return "late"


Connection = Annotated[str, Depends(connection, scope="service")]


def fall(how: str) -> None:
    """End this process."""
    match how:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segv":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "leave children":
            # They hold on to everything that they inherit.
            if os.fork() == 0:
                time.sleep(20)
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)


touchy_names = Task(name="suspects.touchy", inputs=["word"], outputs=["pid"])


@touchy_names
async def touchy(word: str) -> int:
    fall(word)
    return os.getpid()


@task(name="suspects.threaded", outputs="pid")
def threaded(word: str) -> int:
    fall(word)
    return os.getpid()


@task(name="suspects.skipped", outputs="survived", on_error="skip")
async def skipped(word: str) -> str:
    fall(word)
    return word


@task(name="suspects.split", outputs="part", on_error="skip")
async def split(words: str) -> AsyncIterator[str]:
    for word in words.split(","):
        yield word
        await asyncio.sleep(0.05)
        fall(word)


@task(name="suspects.counting", outputs="number")
async def counting(limit: int) -> AsyncIterator[int]:
    for number in range(abs(limit)):
        yield number
    if limit < 0:
        fall("kill")


@task(name="suspects.counting_in_thread", outputs="number")
def counting_in_thread(limit: int) -> Iterator[int]:
    yield from range(limit)


@task(name="suspects.sorting", outputs=["even", "odd"])
async def sorting(limit: int) -> AsyncIterator[IOVal[int]]:
    for number in range(limit):
        yield IOVal("odd" if number % 2 else "even", number)


@task(name="suspects.mistaken", outputs="number")
def mistaken(limit: int) -> Iterator[int]:
    yield 1
    yield "two"  # type: ignore[misc]
    while True:
        yield 3


@task(name="suspects.older", outputs="older")
def older(person: Person) -> Person:
    return Person(name=person.name, born=person.born - 1)


@task(name="suspects.turned", outputs="turned")
async def turned(content: bytes) -> bytes:
    return content[::-1]


@task(name="suspects.raising", outputs="never", retry=Retry(attempts=3, backoff=2.0, jitter=0.0, not_on=(KeyError,)))
async def raising(kind: str) -> int:
    match kind:
        case "key":
            raise KeyError("not again")
        case "later":
            raise RetryLater(7.5)
        case "exit":
            sys.exit(4)
        case "cancel":
            raise asyncio.CancelledError
    raise LookupError(f"no {kind} here")


@task(name="suspects.depending", outputs="found")
async def depending(
    word: str,
    context: Context,
    link: Connection,
    visit: Annotated[str, Depends(session, scope="call")],
) -> list[str]:
    return [word, link, visit, context.task, str(context.attempt), context.delivery_id]


@task(name="suspects.slow", outputs="slept", timeout=0.3)
async def slow(seconds: float, link: Annotated[str, Depends(late_connection, scope="service")]) -> float:
    time.sleep(seconds)  # noqa: ASYNC251 - it blocks the event loop
    return seconds


@task(name="suspects.hesitant", outputs="number", first_output_timeout=0.3)
async def hesitant(seconds: float) -> AsyncIterator[int]:
    await asyncio.sleep(seconds)
    yield 1
    await asyncio.sleep(0.5)
    yield 2


@task(name="suspects.endless", outputs="never")
async def endless(path: str) -> None:
    Path(path).write_text(str(os.getpid()))  # noqa: ASYNC240 - a few bytes
    await asyncio.Event().wait()


@task(name="suspects.blocked", outputs="never")
async def blocked(path: str) -> None:
    Path(path).write_text(str(os.getpid()))  # noqa: ASYNC240 - a few bytes
    time.sleep(3600)  # noqa: ASYNC251 - it blocks the event loop


@task(name="suspects.talking", outputs="said")
async def talking(word: str, context: Context) -> str:
    context.progress(1, 2)
    logging.getLogger("suspects").warning("heard %s", word, extra={"word": word, "number": 2**80})
    print("printed", word)
    return word


@task(name="suspects.starting", outputs="status")
def starting(word: str) -> int:
    return subprocess.run([sys.executable, "-c", "pass"], check=False).returncode


@task(name="suspects.signalled", outputs="survived")
async def signalled(word: str) -> str:
    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(0.05)
    return word


@task(name="suspects.marking", outputs="number")
async def marking(limit: int, context: Context) -> AsyncIterator[int]:
    for number in range(limit):
        yield number
        await context.checkpoint(number)


def not_made_here() -> Any:
    """A function of a function: nobody can import it."""

    async def inner(word: str) -> str:
        return word

    return inner
