"""Asking the embedded server a word or two over its socket, without a client: quick, and cheap to import."""

from __future__ import annotations

import socket
from pathlib import Path

_ANSWER_TIMEOUT = 0.5


def ask(path: Path, *words: str) -> bytes | None:
    """Send one command to the server at `path` and return the first bytes of its answer.

    Returns:
        None where nobody listens; empty where somebody does but did not answer within half a second, or hung up.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_TIMEOUT)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except TimeoutError:
            return b""
        try:
            connection.sendall(_command(words))
            return connection.recv(1024)
        except (TimeoutError, ConnectionError):
            return b""


def answers(path: Path) -> bool:
    """Tell whether a server is up; also one that loads its keys or is busy with a script."""
    return bool(ask(path, "PING"))


def is_loading(path: Path) -> bool:
    """Tell whether the server is still reading its keys from disk, and refuses commands until it has."""
    return (ask(path, "PING") or b"").startswith(b"-LOADING")


def persists(path: Path) -> bool:
    """Tell whether the server at `path` writes its keys to disk."""
    return b"\r\nyes\r\n" in (ask(path, "CONFIG", "GET", "appendonly") or b"")


def _command(words: tuple[str, ...]) -> bytes:
    parts = (f"${len(word)}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{''.join(parts)}".encode()
