"""A process's hold on the embedded server: joined or started, and let go."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from datamesh.errors import StoreUnavailableError
from datamesh.model.names import check_name
from datamesh.store.embedded.launch import launch
from datamesh.store.embedded.locks import Deadline, exclusive, share, try_exclusive
from datamesh.store.embedded.places import Places, data_directory, runtime_places
from datamesh.store.embedded.probe import answers, is_loading, persists


class EmbeddedServer:
    """A hold on the private server of a mesh, which lives at least until `release()` or the end of this process.

    Holds are counted, so one process may have several. As a context manager it releases at the end.
    """

    def __init__(self, *, mesh: str, socket_path: Path, owner: int) -> None:
        self.mesh = mesh
        self.socket_path = socket_path
        self._owner: int | None = owner

    @classmethod
    def acquire(
        cls,
        mesh: str,
        *,
        persist: bool = False,
        runtime_dir: Path | None = None,
        data_dir: Path | None = None,
        timeout: float = 10.0,
    ) -> EmbeddedServer:
        """Join the server of `mesh`, or start it, and return when it answers.

        Blocks: some milliseconds to join, a tenth of a second to start. The user's other processes that ask at the same
        time get the same server.

        Args:
            mesh: Name of the mesh; each has a server of its own.
            persist: Keep the keys on disk, synced every second, and have them back at the next start.
            runtime_dir: Directory for the socket and the locks instead of the user's own; made with mode 0700.
            data_dir: Directory that the keys are kept under instead of the user's own.
            timeout: Seconds until giving up. A server that then still loads what it has kept is given out as it is.

        Raises:
            ConfigurationError: `mesh` cannot be a name.
            StoreUnavailableError: There is no server to start, it does not start, its directories cannot be trusted, it
                runs without `persist` and that was asked for, or this is Windows.
        """
        check_name("mesh", mesh)
        where = f"embedded server of mesh {mesh!r}"
        _refuse_windows(where, sys.platform)
        deadline = Deadline(timeout)
        try:
            places = runtime_places(mesh, runtime_dir)
            kept = data_directory(mesh, data_dir) if persist else None
            server = cls(mesh=mesh, socket_path=places.socket, owner=_join(places, kept, deadline))
        except OSError as error:
            fix = "Try again, or set DATAMESH_URL to a Redis of your own"
            raise StoreUnavailableError(where=where, problem=str(error), fix=fix) from error
        _wait_while_loading(places.socket, deadline)
        return server

    @property
    def url(self) -> str:
        """Address for a Redis client."""
        return f"unix://{quote(str(self.socket_path))}"

    def release(self) -> None:
        """Let go: if nobody else holds the server, it ends within moments. Any further call does nothing."""
        owner, self._owner = self._owner, None
        if owner is not None:
            # Closed, not unlocked: a forked child that shares the hold keeps it.
            os.close(owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def __repr__(self) -> str:
        state = "released" if self._owner is None else "held"
        return f"EmbeddedServer(mesh={self.mesh!r}, socket_path={str(self.socket_path)!r}, {state})"


def _join(places: Places, kept: Path | None, deadline: Deadline) -> int:
    """Return a descriptor that holds a share in a running server."""
    with exclusive(places.lock, deadline, f"the process that is starting or ending the server of {places.socket}"):
        owner = share(places.owners, deadline, "the guardian of the server to let go of its owners")
        try:
            _make_answer(places, kept, deadline)
        except BaseException:
            os.close(owner)
            raise
        return owner


def _make_answer(places: Places, kept: Path | None, deadline: Deadline) -> None:
    """Wait for the server that another process's guardian has, or is about to have; launch one where there is none."""
    while (guard := try_exclusive(places.guardian)) is None:
        if answers(places.socket):
            return _check_persists(places, kept)
        deadline.pause(f"the server to answer on {places.socket}")
    try:
        launch(places, guard, kept, deadline)
    finally:
        os.close(guard)


def _wait_while_loading(socket_path: Path, deadline: Deadline) -> None:
    # Without the lock, so that others may join meanwhile; and not beyond the deadline: clients repeat what is refused.
    with suppress(TimeoutError):
        while is_loading(socket_path):
            deadline.pause("the server to load its keys")


def _check_persists(places: Places, kept: Path | None) -> None:
    if kept and not persists(places.socket):
        raise StoreUnavailableError(
            where=f"embedded server of mesh {places.mesh!r}",
            problem="it runs already, started by a process that did not ask for its keys to be kept on disk",
            fix="Ask for it in all processes of the mesh, or use another mesh",
        )


def _refuse_windows(where: str, platform: str) -> None:
    if platform == "win32":
        raise StoreUnavailableError(
            where=where,
            problem="there is no embedded server on Windows",
            fix="Set DATAMESH_URL to a Redis, for example in WSL or Docker",
        )
