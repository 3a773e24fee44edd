"""What the services of the demo do: plain functions, which a service makes the implementations of the flow's tasks."""

import os
import socket
import stat
from collections.abc import Iterator
from functools import cache
from typing import Any

from datamesh.demo import text
from datamesh.demo.documents import Counted, Document, Finished, Passage, Skipped
from datamesh.model.values import IOVal

MOST_BYTES = 16 * 2**20
"""Largest file that is read; larger ones are skipped."""


@cache
def service_name() -> str:
    """Name of this service, as its values carry it: host and process."""
    return f"{socket.gethostname()}/{os.getpid()}"


def read_file(path: str) -> IOVal[Any]:
    """Read one file. What cannot be read is a value like any other: a broken file must not end the run."""
    try:
        content = _content(path)
    except (OSError, ValueError) as error:
        return IOVal("skipped", Skipped(path, getattr(error, "strerror", None) or str(error), service_name()))
    found = text.decoded(content) if len(content) <= MOST_BYTES else None
    if found is None:
        reason = "is not text" if len(content) <= MOST_BYTES else f"is larger than {MOST_BYTES >> 20} MiB"
        return IOVal("skipped", Skipped(path, reason, service_name()))
    return IOVal("document", Document(path, found, len(content), service_name()))


def split_document(document: Document) -> Iterator[IOVal[Any]]:
    """Give the passages of a document, and at last how many they were."""
    number = 0
    for line, passage in text.passages(document.text):
        number += 1
        yield IOVal("passage", Passage(document.path, line, passage))
    yield IOVal("finished", Finished(document.path, number, document.size_bytes, document.read_by, service_name()))


def count_words(passage: Passage) -> Counted:
    """Count the words of a passage."""
    return Counted(passage.path, passage.line, passage.text, text.counted(passage.text), service_name())


def _content(path: str) -> bytes:
    if not stat.S_ISREG(os.stat(path).st_mode):
        # To read from a pipe or a device would wait for ever.
        raise OSError("is no regular file")
    with open(path, "rb") as file:
        return file.read(MOST_BYTES + 1)
