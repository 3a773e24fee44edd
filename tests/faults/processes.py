"""Services in processes of their own, which tests kill, stop and continue by their ids."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Self

READY_SECONDS = 20.0


class Service:
    """One process that serves tasks of `service.py`.

    Args:
        url: Of its Redis.
        tasks: Names in `flows.py`.
        module: What the process runs.
        folder: In which it runs; the one of the tests if left out.
        settings: Options of its supervisor, and what `service.py` is asked for (`test_ledger=`, ...).
    """

    def __init__(
        self, url: str, *tasks: str, module: str = "tests.faults.service", folder: str | None = None,
        **settings: str | float | int,
    ) -> None:  # fmt: skip
        environment = {name: value for name, value in os.environ.items() if not name.startswith("DATAMESH_")}
        options = {"url": url, "lease": 1.0} | settings
        environment |= {f"DATAMESH_{name.upper()}": str(value) for name, value in options.items()}
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `end`
        self._is_ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *tasks],
            env=environment, stdout=subprocess.PIPE, stderr=self._log, cwd=folder,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """How the process ended; None while it lives."""
        return self._process.poll()

    @property
    def is_ready(self) -> bool:
        """Whether it has said that it works, and has not ended since."""
        if not self._is_ready and self.returncode is None:
            assert self._process.stdout is not None
            readable, _, _ = select.select([self._process.stdout], [], [], 0)
            self._is_ready = bool(readable) and self._process.stdout.readline().strip() == b"ready"
        return self._is_ready and self.returncode is None

    def wait_for_line(self, seconds: float = READY_SECONDS) -> str:
        """Return the next line that the process prints."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline().decode().strip() if readable else ""
        assert line, f"the service said nothing within {seconds} s:\n{self.log()}"
        return line

    def wait_until_ready(self) -> Self:
        """Wait until it takes work."""
        assert self.wait_for_line() == "ready"
        self._is_ready = True
        return self

    def log(self) -> str:
        """What it wrote to its log so far."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace")

    def kill(self) -> None:
        """End it without any chance to tidy up."""
        self._process.kill()
        self._process.wait(10)

    def terminate(self) -> None:
        """Ask it to end in good order."""
        self._process.terminate()

    def tell(self) -> str:
        """Have it write where its threads and tasks stand, and return its log."""
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        return self.log()

    def stop(self) -> None:
        """Take the processor away from it."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Give it back."""
        self._process.send_signal(signal.SIGCONT)

    def wait(self, seconds: float) -> int:
        """Wait for its own end and return how that was."""
        return self._process.wait(seconds)

    def end(self) -> None:
        """Make sure that it is gone."""
        if self._process.poll() is None:
            self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


@contextmanager
def services(
    count: int, url: str, *tasks: str, module: str = "tests.faults.service", **settings: str | float | int
) -> Iterator[list[Service]]:
    """Start `count` services alike and wait until they work."""
    started: list[Service] = []
    try:
        for _ in range(count):
            started.append(Service(url, *tasks, module=module, folder=None, **settings))
        yield [service.wait_until_ready() for service in started]
    finally:
        for service in started:
            service.end()
