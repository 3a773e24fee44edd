"""The flow of the demo, as all its processes know it: files to documents to passages to counted words.

    path -> read -> document -> split -> passage -> count -> counted
              '---> skipped       '----> finished

Each value says which service made it, so that the asking process can tell who did what.
"""

from dataclasses import dataclass

from datamesh.model.flow import Flow
from datamesh.model.task import Task


@dataclass(frozen=True, slots=True)
class Document:
    """The text of a file."""

    path: str
    text: str
    size_bytes: int
    read_by: str


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that is not searched, and why."""

    path: str
    reason: str
    read_by: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document; `line` is its first one, from 1."""

    path: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A document that was split into so many passages."""

    path: str
    passages: int
    size_bytes: int
    read_by: str
    split_by: str


@dataclass(frozen=True, slots=True)
class Counted:
    """A passage and how often each word stands in it."""

    path: str
    line: int
    text: str
    words: dict[str, int]
    counted_by: str


read = Task("demo.read", inputs={"path": str}, outputs={"document": Document, "skipped": Skipped})
split = Task("demo.split", inputs={"document": Document}, outputs={"passage": Passage, "finished": Finished})
count = Task("demo.count", inputs={"passage": Passage}, outputs={"counted": Counted})


def documents_flow() -> Flow:
    """Return the flow from `path` to `counted`, `finished` and `skipped`."""
    return Flow.from_tasks(read, split, count, name="documents").resolve()
