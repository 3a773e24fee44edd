"""The worker of the document flow: `datamesh worker services.documents.main:supervisor`."""

from pathlib import Path
from typing import Any

from datamesh import IOVal, Supervisor
from datamesh.demo.documents import Skipped, count, read, split
from datamesh.demo.tasks import count_words, read_file, service_name, split_document
from services.documents.settings import Settings

settings = Settings.of()
split(split_document)
count(count_words)


@read
def read_below_root(path: str) -> IOVal[Any]:
    """Read one file if it is under the root: what may be read is for this service to say, not for whoever asks."""
    if not Path(path).resolve().is_relative_to(settings.root):
        return IOVal("skipped", Skipped(path, f"is not under {settings.root}", service_name()))
    return read_file(path)


supervisor = Supervisor(tasks=[read, split, count])
