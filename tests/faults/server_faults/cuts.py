"""Cuts: what a power loss leaves of an append-only file, made by cutting a copy of it."""

from __future__ import annotations

import random
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.servers import Server, wait_until

_FOLDER = "appendonlydir"
_SIZE = re.compile(rb"([*$])(\d+)\r\n")


@dataclass(frozen=True, slots=True)
class Record:
    """One command of the file, or a group of them between MULTI and EXEC.

    Attributes:
        start: Its first byte.
        end: Behind its last byte.
        is_group: Whether it is what a script has written, more than one command.
    """

    start: int
    end: int
    is_group: bool


class Recording:
    """A copy of the append-only file of a server, from which new starts are made."""

    def __init__(self, server: Server) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="dm-aof-", dir="/tmp"))
        shutil.copytree(server.directory / _FOLDER, self._folder / _FOLDER)
        (self._log,) = (self._folder / _FOLDER).glob("*.incr.aof")
        self._bytes = self._log.read_bytes()
        self.records = _records(self._bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def draw(self, chance: random.Random, *, inside: bool, after: int = 0) -> int:
        """Choose where to cut.

        Args:
            chance: Of the place.
            inside: In the middle of what a script has written; else where a record ends.
            after: Not before this byte.
        """
        records = [record for record in self.records if record.end > after and (record.is_group or not inside)]
        record = chance.choice(records)
        return chance.randrange(record.start + 1, record.end) if inside else record.end

    def start(self, server: Server, *, cut: int) -> None:
        """Start a server that has only this much of the file."""
        server.stop(kill=True)
        shutil.rmtree(server.directory / _FOLDER, ignore_errors=True)
        shutil.copytree(self._folder / _FOLDER, server.directory / _FOLDER)
        (server.directory / _FOLDER / self._log.name).write_bytes(self._bytes[:cut])
        server.start()


def size_of(server: Server) -> int:
    """Bytes that a server has written since it started with an empty file."""
    (log,) = (server.directory / _FOLDER).glob("*.incr.aof")
    return log.stat().st_size


def rewrite(server: Server) -> None:
    """Have the server write its file anew, and wait for that."""
    before = server.client.info("persistence")["aof_last_cow_size"]
    server.client.bgrewriteaof()

    def is_written() -> bool:
        told = server.client.info("persistence")
        assert told["aof_last_bgrewrite_status"] == "ok", (before, told)
        return not told["aof_rewrite_in_progress"] and not told["aof_rewrite_scheduled"]

    wait_until(is_written)


def _records(content: bytes) -> list[Record]:
    records: list[Record] = []
    at, group = 0, -1
    while found := _command(content, at):
        start, (words, at) = at, found
        match words[0].upper():
            case b"MULTI":
                group = start
            case b"EXEC":
                records.append(Record(group, at, True))
                group = -1
            case _ if group < 0:
                records.append(Record(start, at, False))
    return records


def _command(content: bytes, at: int) -> tuple[list[bytes], int] | None:
    """Read a command in the form that clients send: its words, and what is behind it. None: all of it is not there."""
    sizes = _SIZE.match(content, at)
    if sizes is None:
        return None
    words = []
    count, at = int(sizes[2]), sizes.end()
    for _ in range(count):
        size = _SIZE.match(content, at)
        if size is None or size.end() + int(size[2]) + 2 > len(content):
            return None
        words.append(content[size.end() : size.end() + int(size[2])])
        at = size.end() + int(size[2]) + 2
    return words, at
