"""Where the files of an embedded server live: a directory that belongs to the user and is closed to everybody else."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from datamesh.errors import ConfigurationError, StoreUnavailableError

_SOCKET_PATH_BYTES = 107 if sys.platform == "linux" else 103
"""The longest path that the kernel lets a socket have; without the final NUL."""


@dataclass(frozen=True, slots=True)
class Places:
    """The files of one mesh's embedded server; `datamesh.store.embedded` says what each is for."""

    directory: Path
    mesh: str

    @property
    def lock(self) -> Path:
        return self.directory / f"{self.mesh}.lock"

    @property
    def owners(self) -> Path:
        return self.directory / f"{self.mesh}.owners"

    @property
    def guardian(self) -> Path:
        return self.directory / f"{self.mesh}.guardian"

    @property
    def socket(self) -> Path:
        return self.directory / f"{self.mesh}.sock"

    @property
    def log(self) -> Path:
        return self.directory / f"{self.mesh}.log"


def runtime_places(mesh: str, runtime_dir: Path | None = None) -> Places:
    """Choose and make the directory for the files that live as long as the server.

    `runtime_dir` if given; else `$XDG_RUNTIME_DIR/datamesh` or `<temporary directory>/datamesh-<uid>`, whichever first
    can be used and is short enough for a socket. Every process with the same environment chooses the same.

    Raises:
        StoreUnavailableError: The path is too long, or the directory is not this user's alone.
    """
    candidates = [runtime_dir.absolute()] if runtime_dir else list(_runtime_directories())
    for directory in candidates:
        places = Places(directory, mesh)
        if len(os.fsencode(places.socket)) <= _SOCKET_PATH_BYTES:
            make_private(directory)
            return places
    raise StoreUnavailableError(
        where=f"embedded server of mesh {mesh!r}",
        problem=f"the path {places.socket} is over the {_SOCKET_PATH_BYTES} bytes that a socket may have",
        fix="Set XDG_RUNTIME_DIR or TMPDIR to a shorter path, or shorten the name of the mesh",
    )


def data_directory(mesh: str, data_dir: Path | None = None) -> Path:
    """Choose and make the directory for what a server that persists keeps on disk.

    `<data_dir>/<mesh>` if given, else `$XDG_DATA_HOME/datamesh/<mesh>`, else `~/.local/share/datamesh/<mesh>`.

    Raises:
        ConfigurationError: The mesh has a name that cannot be the name of a directory.
        StoreUnavailableError: The directory is not this user's alone.
    """
    if mesh in (".", ".."):
        raise ConfigurationError(f"a mesh named {mesh!r} cannot be kept on disk: give it another name")
    home = _absolute(os.environ.get("XDG_DATA_HOME")) or Path.home() / ".local" / "share"
    directory = (data_dir.absolute() if data_dir else home / "datamesh") / mesh
    make_private(directory)
    return directory


def make_private(directory: Path) -> None:
    """Make `directory` with mode 0700, or check that it is that already.

    Raises:
        StoreUnavailableError: It is a link, belongs to somebody else, is open to others, or cannot be made.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise _unusable(directory, error.strerror or str(error)) from error
    if not stat.S_ISDIR(found.st_mode):
        raise _unusable(directory, "it is a link or a file")
    if found.st_uid != os.geteuid():
        raise _unusable(directory, f"it belongs to user {found.st_uid}, this process runs as {os.geteuid()}")
    if found.st_mode & 0o077:
        raise _unusable(directory, f"others may use it: its mode is {stat.S_IMODE(found.st_mode):04o}, not 0700")
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        raise _unusable(directory, "this process may not write there")


def _runtime_directories() -> Iterator[Path]:
    given = _absolute(os.environ.get("XDG_RUNTIME_DIR"))
    # After `su` the variable still names the directory of the user before.
    if given and os.access(given, os.W_OK | os.X_OK) and given.is_dir() and given.stat().st_uid == os.geteuid():
        yield given / "datamesh"
    yield Path(tempfile.gettempdir()).absolute() / f"datamesh-{os.geteuid()}"


def _absolute(value: str | None) -> Path | None:
    """The XDG specification has relative paths ignored."""
    return Path(value) if value and os.path.isabs(value) else None


def _unusable(directory: Path, problem: str) -> StoreUnavailableError:
    return StoreUnavailableError(
        where=f"directory {directory} of the embedded server",
        problem=problem,
        fix="Make it a directory of your own with mode 0700, or set DATAMESH_URL to a Redis of your own",
    )
