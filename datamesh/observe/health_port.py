"""HealthPort: answers over HTTP how a program is, from a thread and an event loop of its own.

So a program whose event loop is blocked, or that waits for something else, still answers. It knows nothing of what it
answers for: it is given a callable for each path.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from datamesh.errors import ConfigurationError

_log = logging.getLogger("datamesh.health")
_MOST_REQUEST_BYTES = 8192
_MOST_AT_ONCE = 64
_SECONDS = 5.0
"""For one request, from its first byte to the last of its answer."""

Answer = tuple[bool, Mapping[str, Any]]
"""Whether all is well (200, else 503), and the facts, as plain values."""


class HealthPort:
    """Listens on a port from `start` to `close`.

    Args:
        answers: By path. Called in the thread of the port, so they must be quick and safe to call there.
        host: Address to listen on.
        port: 0 for any that is free.
        seconds: For one request, until it is dropped.
    """

    def __init__(
        self, answers: Mapping[str, Callable[[], Answer]], *, host: str = "127.0.0.1", port: int = 0,
        seconds: float = _SECONDS,
    ) -> None:  # fmt: skip
        self._answers = dict(answers)
        self._host = host
        self._port = port
        self._seconds = seconds
        self._open = 0
        self._listening = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """That is listened on."""
        return self._port

    def start(self) -> None:
        """Listen, and answer from now on.

        Raises:
            ConfigurationError: The address cannot be listened on.
        """
        try:
            family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
            self._socket = socket.create_server((self._host, self._port), family=family, backlog=_MOST_AT_ONCE)
        except OSError as error:
            raise ConfigurationError(
                f"health port {self._host}:{self._port} cannot be listened on: {error}. Choose another port, or stop "
                "what uses it"
            ) from error
        self._port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen()), name="datamesh-health", daemon=True)
        self._thread.start()
        self._listening.wait(self._seconds)
        _log.info("health is answered on %s:%d", self._host, self._port)

    def close(self) -> None:
        """Answer no more."""
        if self._thread is None or self._loop is None or self._closing is None:
            return
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(self._seconds)

    async def _listen(self) -> None:
        self._loop, self._closing = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=_MOST_REQUEST_BYTES)
        async with server:
            self._listening.set()
            await self._closing.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            async with asyncio.timeout(self._seconds):
                writer.write(await self._reply(reader) if self._open <= _MOST_AT_ONCE else _busy())
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            _log.debug("a request for health was not finished")
        finally:
            self._open -= 1
            writer.close()

    async def _reply(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        words = head.partition(b"\r\n")[0].split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        method, target, _ = words
        if method not in (b"GET", b"HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED)
        return self._answer(target.partition(b"?")[0].decode("latin-1"), with_body=method == b"GET")

    def _answer(self, path: str, *, with_body: bool) -> bytes:
        answer = self._answers.get(path)
        if answer is None:
            return _response(HTTPStatus.NOT_FOUND, with_body=with_body)
        try:
            is_well, facts = answer()
            body = json.dumps(facts, default=str).encode()
        except Exception:
            _log.exception("the health of %s could not be told", path)
            return _response(HTTPStatus.INTERNAL_SERVER_ERROR, with_body=with_body)
        return _response(HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE, body, with_body=with_body)


def _busy() -> bytes:
    return _response(HTTPStatus.SERVICE_UNAVAILABLE)


def _response(status: HTTPStatus, body: bytes = b"", *, with_body: bool = True) -> bytes:
    body = body or json.dumps({"error": status.phrase}).encode()
    head = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        head.append("Allow: GET, HEAD")
    return "\r\n".join([*head, "", ""]).encode() + (body if with_body else b"")
