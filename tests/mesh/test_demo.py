"""`datamesh demo` over real files, with services in processes of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.mesh.commands import PATIENCE, ROOT, begun, datamesh, new_mesh
from tests.servers import Server

HANDLED = re.compile(r"handled ([\d,]+) values: read ([\d,]+), split ([\d,]+), count ([\d,]+)")


def number(text: str) -> int:
    return int(text.replace(",", ""))


def handled(said: str) -> list[list[int]]:
    """Of each service: all, read, split, count."""
    return [[number(text) for text in found] for found in HANDLED.findall(said)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of every kind: texts in three encodings, a large one, and what cannot be read."""
    (tmp_path / "deep").mkdir()
    (tmp_path / "guide.txt").write_text("Introduction\n" * 40 + "\nThe walrus\nsleeps on ice.\n", "utf-8")
    (tmp_path / "deep" / "latin.txt").write_bytes("Ein Walroß im Café".encode("latin-1"))
    (tmp_path / "deep" / "wide.txt").write_text("Zwei Walrosse im Café", "utf-16")
    (tmp_path / "large.txt").write_text("one line of many, number five\n\n" * 8000, "utf-8")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff.txt")).write_text("walrus")
    return tmp_path


def processes(said: str) -> list[int]:
    found = re.search(r"services: process(?:es)? ([\d, ]+);", said)
    assert found is not None, said
    return [int(pid) for pid in found[1].split(", ")]


def assert_gone(pids: Iterable[int]) -> None:
    until = time.monotonic() + 15
    for pid in pids:
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < until, f"service {pid} was left behind"
            time.sleep(0.05)


def test_any_folder_is_searched_and_what_cannot_be_read_is_told(folder: Path) -> None:
    done = datamesh("demo", folder, "--find", "sleeping walrus")
    assert done.returncode == 0, done.stderr
    assert f"{folder}/guide.txt:42" in done.stdout
    assert "sleeps on ice." in done.stdout
    for name, reason in {
        "picture.png": "is not text",
        "broken": "No such file or directory",
        "pipe": "is no regular file",
        "odd?.txt": "has a name that is not UTF-8",
    }.items():
        assert f"{folder}/{name} {reason}" in done.stdout
    assert_gone(processes(done.stderr))


def test_every_value_is_handled_once_by_some_service(folder: Path) -> None:
    done = datamesh("demo", folder, "--services", "3", "--find", "café")
    passages = re.search(r"5 files \(.*\), ([\d,]+) passages", done.stdout)
    assert passages is not None, done.stdout
    everything, read, split, count = map(sum, zip(*handled(done.stdout), strict=True))
    assert (read, split, count) == (8, 5, number(passages[1]))
    assert f"{everything:,} values, " in done.stdout
    assert "latin.txt:1" in done.stdout
    assert "wide.txt:1" in done.stdout


def test_the_documentation_of_this_installation_is_searched_by_two_services() -> None:
    done = datamesh("demo")
    assert done.returncode == 0, done.stderr
    assert "contextlib.py:" in done.stdout
    assert "class suppress(AbstractContextManager)" in done.stdout
    services = handled(done.stdout)
    assert len(services) == 2
    assert all(count > 100 for _, _, _, count in services)


def test_of_a_very_long_line_the_place_of_the_word_is_shown(tmp_path: Path) -> None:
    (tmp_path / "line.txt").write_text("some filler " * 50050 + "walrus " + "more filler " * 50, "utf-8")
    done = datamesh("demo", tmp_path, "--find", "walrus", "--services", "1", "--hits", "1")
    (shown,) = [line for line in done.stdout.splitlines() if "walrus" in line]
    assert shown.startswith("    …")
    assert len(shown) < 260


def test_no_match_is_said(folder: Path) -> None:
    done = datamesh("demo", folder, "--find", "zebra", "--services", "1")
    assert done.returncode == 0
    assert "no passage has any of the words 'zebra'" in done.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing", "there is no file or folder"),
        ("void", "there are no files under"),
        ("binary", "there is nothing to search"),
    ],
)
def test_nothing_to_search_is_an_error(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "void").mkdir()
    (tmp_path / "binary").mkdir()
    (tmp_path / "binary" / "a.bin").write_bytes(bytes(range(256)))
    done = datamesh("demo", tmp_path / name)
    assert done.returncode == 1
    assert f"error: {said}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_no_service_is_left_however_it_ends(number: signal.Signals, code: int) -> None:
    with begun(["demo"], mesh=new_mesh()) as demo:
        pids = _started(demo)
        time.sleep(0.8)
        demo.send_signal(number)
        assert demo.wait(timeout=PATIENCE) == code
    assert_gone(pids)


def test_a_killed_service_is_made_up_for_by_the_other(folder: Path) -> None:
    with begun(["demo", folder, "--find", "walrus"], mesh=new_mesh()) as demo:
        os.kill(_started(demo)[0], signal.SIGKILL)
        said, _ = demo.communicate(timeout=PATIENCE)
        assert demo.returncode == 0
    assert "sleeps on ice." in said


def test_it_ends_when_every_service_has(folder: Path) -> None:
    with begun(["demo", folder], mesh=new_mesh()) as demo:
        for pid in _started(demo):
            os.kill(pid, signal.SIGKILL)
        _, errors = demo.communicate(timeout=PATIENCE)
        assert demo.returncode == 1
    assert "error: every service has ended before the run has" in errors


def test_a_service_reads_only_what_its_settings_allow(folder: Path) -> None:
    mesh = new_mesh()
    allowed = {"DOCUMENTS_ROOT": str(folder / "deep")}
    with begun(["worker", "services.documents.main:supervisor"], mesh=mesh, others=allowed):
        done = datamesh("demo", folder, "--services", "0", "--find", "café", mesh=mesh)
    assert done.returncode == 0, done.stderr
    assert "2 files (" in done.stdout
    assert f"is not under {folder}/deep 6" in done.stdout
    assert "latin.txt:1" in done.stdout


@pytest.mark.redis
def test_in_a_redis_of_the_user_everything_of_the_run_expires(folder: Path, server: Server) -> None:
    done = datamesh("demo", folder, "--find", "walrus", "--url", server.url, others={"DATAMESH_MESH": ""})
    assert done.returncode == 0, done.stderr
    assert server.url.removeprefix("redis://") in done.stderr
    runs = list(server.client.scan_iter("{datamesh-demo:*}:run:*"))
    assert runs
    assert all(0 < server.client.ttl(key) <= 60 for key in runs)
    assert server.client.zcard("{datamesh-demo:0}:members") == 0


def _started(demo: subprocess.Popen[str]) -> list[int]:
    assert demo.stderr is not None
    return processes(demo.stderr.readline())


def test_the_source_of_the_demo_can_be_searched_too() -> None:
    done = datamesh("demo", ROOT / "datamesh" / "demo", "--find", "robertson relevance", "--hits", "1")
    assert "datamesh/demo/search.py:" in done.stdout
