"""Commands run as users run them: in processes of their own, each test in a mesh of its own on the embedded server."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE = 40.0


def environment(mesh: str, **others: str) -> dict[str, str]:
    """The environment of a process that takes part in a mesh, and imports the package from this source."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DATAMESH_")}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return {**kept, "PYTHONPATH": path, "PYTHONWARNINGS": "error", "DATAMESH_MESH": mesh, **others}


def new_mesh() -> str:
    return f"test-{secrets.token_hex(4)}"


def python(
    *args: str | Path, mesh: str, cwd: Path = ROOT, others: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *map(str, args)], env=environment(mesh, **(others or {})), cwd=cwd,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def datamesh(
    *args: str | Path, mesh: str = "", cwd: Path = ROOT, others: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command `datamesh` to its end."""
    return python("-m", "datamesh", *args, mesh=mesh or new_mesh(), cwd=cwd, others=others)


@contextmanager
def begun(
    args: Sequence[str | Path], *, mesh: str, cwd: Path = ROOT, others: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """The command `datamesh` while it runs; killed at the end if it still does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "datamesh", *map(str, args)], env=environment(mesh, **(others or {})), cwd=cwd,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
