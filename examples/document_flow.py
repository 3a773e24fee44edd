"""The flow of `datamesh demo` in one file: read, split, count, and a question about the passages.

Three tasks, wired by the names of their streams. For a folder of yours: `python document_flow.py FOLDER WORD`. Here it
is one process; `datamesh worker document_flow:supervisor`, in this folder, takes a share of the work. A file that
cannot be read does not end the run: it is a value of a stream of its own.

Prints:
    1 skipped: logo.png
    guide.txt:3: Streams end after their last value.
    notes.txt:1: A stream has any number of readers.
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
from pydantic import BaseModel

from datamesh import Flow, IOVal, Supervisor, task


class Passage(BaseModel):
    """A paragraph; `line` is its first one."""

    path: str
    line: int
    text: str


class Count(BaseModel):
    """How often each word stands in a passage."""

    passage: Passage
    words: dict[str, int]


@task(outputs={"document": tuple[str, str], "skipped": str})
def read(path: str) -> IOVal[Any]:
    """One file: its name and text, or only its name. Synchronous, so it runs in a thread."""
    try:
        return IOVal("document", (path, Path(path).read_text("utf-8")))
    except (OSError, UnicodeDecodeError):
        return IOVal("skipped", path)


@task(outputs="passage")
def split(document: tuple[str, str]) -> Iterator[Passage]:
    """One to many: each `yield` is a value of its own, which any service may take."""
    path, text = document
    line = 1
    for paragraph in text.split("\n\n"):
        yield Passage(path=path, line=line, text=paragraph.strip())
        line += paragraph.count("\n") + 2


@task(outputs="counted")
def count(passage: Passage) -> Count:
    """One to one, for many passages at once."""
    words = passage.text.lower().replace(".", " ").split()
    return Count(passage=passage, words={word: words.count(word) for word in words})


supervisor = Supervisor(tasks=[read, split, count])


async def main(paths: list[str], word: str) -> None:
    flow = Flow.from_tasks(read, split, count, name="documents").resolve()
    best: list[tuple[int, Passage]] = []
    async with supervisor:
        run = await supervisor.start_flow(flow, [IOVal("path", path) for path in paths])
        async for found in run["counted"]:  # while the files are still being read
            score = sum(times for counted, times in found.words.items() if counted.startswith(word))
            best.append((score, found.passage))
        skipped = [Path(path).name for path in await run["skipped"].collect()]
    print(f"{len(skipped)} skipped: {', '.join(skipped)}")
    for score, passage in sorted(best, key=lambda pair: (-pair[0], pair[1].path)):
        if score:
            print(f"{Path(passage.path).name}:{passage.line}: {passage.text}")


def files_under(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


def write_sample(folder: Path) -> Path:
    (folder / "guide.txt").write_text("How it works.\n\nStreams end after their last value.\n", "utf-8")
    (folder / "notes.txt").write_text("A stream has any number of readers.\n", "utf-8")
    (folder / "logo.png").write_bytes(b"\x89PNG\x00")
    return folder


if __name__ == "__main__":
    if len(sys.argv) == 3:
        anyio.run(main, files_under(Path(sys.argv[1])), sys.argv[2])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            anyio.run(main, files_under(write_sample(Path(temporary))), "stream")
