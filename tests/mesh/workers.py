"""Workers: the command `datamesh worker` in a process of its own, with a look at its health and its log."""

from __future__ import annotations

import http.client
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.mesh.commands import PATIENCE, begun
from tests.servers import wait_until


class WorkerProcess:
    """A worker that runs; its log is read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[dict[str, Any]] = []
        self.loose: list[str] = []
        self._reading = threading.Thread(target=self._read, name="log of a worker", daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                self.lines.append(json.loads(line))
            except ValueError:
                self.loose.append(line)

    @property
    def log(self) -> str:
        """The messages so far."""
        return "\n".join(str(line["message"]) for line in list(self.lines)) + "\n" + "".join(self.loose)

    def until_logged(self, text: str, *, seconds: float = PATIENCE) -> None:
        wait_until(lambda: text in self.log, seconds=seconds, what=lambda: self.log)

    @property
    def port(self) -> int:
        (line,) = [line["message"] for line in self.lines if "health is answered on" in line["message"]]
        return int(line.rpartition(":")[2])

    def ask(self, path: str) -> tuple[int, dict[str, Any]]:
        """Status and facts that the health port gives."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def end(self, number: int, *, seconds: float = PATIENCE) -> tuple[int, float]:
        """Send a signal; its exit code, and how long it took to exit."""
        began = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(seconds)
        took = time.monotonic() - began
        self._reading.join(5.0)
        return code, took


@contextmanager
def working(
    module: str, *, url: str, mesh: str, cwd: Path, ready: bool = True, others: Mapping[str, str] | None = None
) -> Iterator[WorkerProcess]:
    """A worker of a module in `cwd`, once it is ready for work; killed at the end if it still runs."""
    command = ["worker", module, "--log-format", "json", "--health-port", "0"]
    with begun(command, mesh=mesh, cwd=cwd, others={"DATAMESH_URL": url, **(others or {})}) as process:
        worker = WorkerProcess(process)
        worker.until_logged("health is answered on")
        if ready:
            wait_until(lambda: worker.ask("/readyz")[0] == 200, seconds=PATIENCE, what=lambda: worker.log)
        yield worker
