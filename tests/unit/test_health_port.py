"""The health port: a small HTTP that answers what it was given, and nothing more than that."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from datamesh.errors import ConfigurationError
from datamesh.observe.health_port import Answer, HealthPort


def broken() -> Answer:
    raise RuntimeError("cannot tell")


@pytest.fixture
def port() -> Iterator[HealthPort]:
    answers: dict[str, Callable[[], Answer]] = {
        "/well": lambda: (True, {"a": 1}),
        "/ill": lambda: (False, {"why": "tired"}),
        "/broken": broken,
    }
    port = HealthPort(answers, seconds=1.0)
    port.start()
    yield port
    port.close()


def ask(port: HealthPort, method: str, path: str, **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port.port, timeout=5)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def send(port: HealthPort, raw: bytes) -> bytes:
    """What comes back until the port hangs up."""
    with socket.create_connection(("127.0.0.1", port.port), timeout=5) as connection:
        connection.sendall(raw)
        answer = b""
        try:
            while chunk := connection.recv(4096):
                answer += chunk
        except ConnectionResetError:
            pass  # it hung up while there was more to read
        return answer


def test_well_is_200_and_ill_is_503_with_the_facts(port: HealthPort) -> None:
    status, body, headers = ask(port, "GET", "/well")
    assert (status, json.loads(body)) == (200, {"a": 1})
    assert (headers["Content-Type"], headers["Connection"]) == ("application/json", "close")
    assert headers["Cache-Control"] == "no-store"
    status, body, _ = ask(port, "GET", "/ill?verbose=1")
    assert (status, json.loads(body)) == (503, {"why": "tired"})


def test_head_is_answered_without_a_body(port: HealthPort) -> None:
    status, body, headers = ask(port, "HEAD", "/ill")
    assert (status, body) == (503, b"")
    assert int(headers["Content-Length"]) == len(b'{"why": "tired"}')


def test_an_unknown_path_is_404(port: HealthPort) -> None:
    for path in ("/", "/Well", "/well/", "/../well"):
        assert ask(port, "GET", path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get"])
def test_any_other_method_is_405(port: HealthPort, method: str) -> None:
    answer = send(port, f"{method} /well HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET, HEAD\r\n" in answer


@pytest.mark.parametrize("raw", [b"GET /well", b"GET /well SPDY/3", b"GET  /well HTTP/1.1", b"", b"\x16\x03\x01"])
def test_what_is_no_request_is_400(port: HealthPort, raw: bytes) -> None:
    assert send(port, raw + b"\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_request_may_not_be_large(port: HealthPort) -> None:
    assert send(port, b"GET /well HTTP/1.1\r\nX: " + b"x" * 20_000)[:12] in (b"HTTP/1.1 431", b"")
    assert ask(port, "GET", "/well")[0] == 200


def test_a_slow_request_is_dropped_and_holds_nobody_up(port: HealthPort) -> None:
    with socket.create_connection(("127.0.0.1", port.port), timeout=5) as slow:
        slow.sendall(b"GET /well HT")
        assert ask(port, "GET", "/well")[0] == 200
        assert slow.recv(1) == b""


def test_a_connection_answers_once(port: HealthPort) -> None:
    request = b"GET /well HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    assert send(port, request * 2).count(b"HTTP/1.1 ") == 1


def test_too_many_at_once_are_refused(port: HealthPort) -> None:
    waiting = [socket.create_connection(("127.0.0.1", port.port), timeout=5) for _ in range(64)]
    try:
        for connection in waiting:
            connection.sendall(b"G")
        assert send(port, b"").startswith(b"HTTP/1.1 503 ")
    finally:
        for connection in waiting:
            connection.close()


def test_an_answer_that_cannot_be_given_is_500_and_logged(port: HealthPort, caplog: pytest.LogCaptureFixture) -> None:
    assert ask(port, "GET", "/broken")[0] == 500
    assert "the health of /broken could not be told" in caplog.text


def test_a_port_that_is_taken_is_a_clear_error(port: HealthPort) -> None:
    with pytest.raises(ConfigurationError, match=rf"health port 127.0.0.1:{port.port} cannot be listened on"):
        HealthPort({}, port=port.port).start()


def test_closing_ends_the_thread_and_frees_the_port() -> None:
    first = HealthPort({})
    first.close()
    first.start()
    first.close()
    assert "datamesh-health" not in [thread.name for thread in threading.enumerate()]
    second = HealthPort({}, port=first.port)
    second.start()
    second.close()
