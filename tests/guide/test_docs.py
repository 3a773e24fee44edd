"""The documentation is true: its programs run, its links lead somewhere, and the protocol names all that there is.

How the programs of a page are written, so that they can be run:

- A block `python` begins with a comment that names its file. All of a page lie in one folder, to import each other.
- A block `console` has commands, `$ python file.py`, each followed by what it prints. A line `...` is any lines.
  A command that ends with `&` is a service: it works until the section ends, and then has to exit with 0.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from datamesh.depends.options import Options
from datamesh.model.run import RunState
from datamesh.settings import Settings
from datamesh.store import keys
from datamesh.store.keys import Level, MeshKeys, ShardKeys

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
FILE = re.compile(r"# (\w+\.py)\n")
PATIENCE = 40
"""Seconds for one command; each takes about one."""


@dataclass(frozen=True)
class Command:
    """One line of a console, and what it prints."""

    words: tuple[str, ...]
    is_service: bool
    printed: str


def text_of(path: Path) -> str:
    return path.read_text("utf-8")


def blocks(text: str, language: str) -> list[str]:
    """List the blocks of a language."""
    return [body for kind, body in FENCE.findall(text) if kind == language]


def prose(path: Path) -> str:
    """A page without its blocks."""
    return FENCE.sub("", text_of(path))


def sections(path: Path) -> dict[str, str]:
    """Split a page at its second headings."""
    _, *parts = re.split(r"^## ", text_of(path), flags=re.MULTILINE)
    return {title: body for title, _, body in (part.partition("\n") for part in parts)}


def commands(section: str) -> list[Command]:
    """List what is typed in the consoles of a section."""
    found = []
    for block in blocks(section, "console"):
        for entry in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            line, _, printed = entry.partition("\n")
            words = shlex.split(line)
            is_service = words[-1] == "&"
            found.append(Command(tuple(words[:-1] if is_service else words), is_service, printed))
    return found


def arguments(command: Command) -> list[str]:
    """The command as it is run here: with the Python that runs the tests."""
    program, *rest = command.words
    return [sys.executable, *(["-m", "datamesh"] if program == "datamesh" else []), *rest]


def environment() -> dict[str, str]:
    """What a user has: no settings but a mesh of one's own, which keeps the tests apart from each other."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DATAMESH_", "PYTEST_"))}
    path = os.pathsep.join(filter(None, (str(ROOT), kept.get("PYTHONPATH"))))
    return kept | {"DATAMESH_MESH": f"docs-{secrets.token_hex(4)}", "PYTHONPATH": path, "PYTHONUTF8": "1"}


@contextmanager
def service(command: Command, folder: Path, env: dict[str, str]) -> Iterator[None]:
    """Run a service, and have it drain at the end."""
    with (folder / f"{secrets.token_hex(4)}.log").open("w+") as log:
        process = subprocess.Popen(arguments(command), cwd=folder, env=env, stdout=log, stderr=log)
        try:
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, Path(log.name).read_text()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def run_all(todo: list[Command], folder: Path, env: dict[str, str]) -> None:
    """Run commands one after another and compare what they print."""
    if not todo:
        return
    command, *rest = todo
    if command.is_service:
        with service(command, folder, env):
            run_all(rest, folder, env)
        return
    done = subprocess.run(
        arguments(command), cwd=folder, env=env, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, f"{command.words}: {done.stdout}{done.stderr}"
    assert matches(command.printed, done.stdout), f"{command.words} printed:\n{done.stdout}{done.stderr}"
    run_all(rest, folder, env)


def matches(expected: str, printed: str) -> bool:
    """Compare output; `...` on a line of its own stands for any lines."""
    pattern = "".join(".*" if line == "...\n" else re.escape(line) for line in expected.splitlines(keepends=True))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def write_files(page: Path, folder: Path) -> list[str]:
    names = []
    for block in blocks(text_of(page), "python"):
        named = FILE.match(block)
        assert named, f"a program in {page.name} does not begin with the name of its file:\n{block[:200]}"
        (folder / named[1]).write_text(block, "utf-8")
        names.append(named[1])
    assert len(set(names)) == len(names)
    return names


# ------------------------------------------------------------------------------------------------------- programs

TUTORIAL = ROOT / "docs" / "tutorial.md"
SECTIONS = {title: body for title, body in sections(TUTORIAL).items() if commands(body)}


@pytest.mark.parametrize("title", SECTIONS)
def test_the_programs_of_the_tutorial_print_what_it_says(title: str, tmp_path: Path) -> None:
    write_files(TUTORIAL, tmp_path)
    run_all(commands(SECTIONS[title]), tmp_path, environment())


def test_every_program_of_the_tutorial_is_run(tmp_path: Path) -> None:
    typed = " ".join(word for body in SECTIONS.values() for command in commands(body) for word in command.words)
    programs = write_files(TUTORIAL, tmp_path)
    run = {name for name in programs if re.search(rf"\b{name}\b|\b{name.removesuffix('.py')}:", typed)}
    imported = {
        name
        for name in programs
        for other in run
        if f"from {name.removesuffix('.py')} import" in (tmp_path / other).read_text("utf-8")
    }
    assert set(programs) == run | imported


def test_the_first_program_is_that_of_the_examples() -> None:
    assert blocks(text_of(ROOT / "README.md"), "python") == [text_of(ROOT / "examples" / "first_program.py")]


def test_the_first_program_prints_what_the_readme_says(tmp_path: Path) -> None:
    (program,) = blocks(text_of(ROOT / "README.md"), "python")
    (tmp_path / "first_program.py").write_text(program, "utf-8")
    (command,) = [c for c in commands(text_of(ROOT / "README.md")) if "first_program.py" in c.words]
    run_all([command], tmp_path, environment())


# ---------------------------------------------------------------------------------------------------------- facts


def test_the_two_commands_of_the_readme_exist() -> None:
    main, test = blocks(text_of(ROOT / "README.md"), "sh")
    pyproject, ci = text_of(ROOT / "pyproject.toml"), text_of(ROOT / ".ci" / "run")
    assert main.strip() == "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/datamesh demo"
    assert test.strip() == 'python3 -m venv .venv && .venv/bin/pip install -e ".[dev]" && .venv/bin/python -m pytest'
    assert re.search(r'^datamesh = "datamesh\.cli\.main:main"$', pyproject, re.MULTILINE)
    assert re.search(r"^dev = \[$", pyproject, re.MULTILINE)
    assert '-e ".[dev]"' in ci
    assert ".venv/bin/python -m pytest" in ci


def test_the_changelog_has_the_version() -> None:
    (version,) = re.findall(r'^version = "(.+)"$', text_of(ROOT / "pyproject.toml"), re.MULTILINE)
    assert re.search(rf"^## .*\b{re.escape(version)}\b", text_of(ROOT / "docs" / "changelog.md"), re.MULTILINE)


def test_the_concepts_explain_every_option_and_state() -> None:
    concepts = text_of(ROOT / "docs" / "concepts.md")
    names = [field.name for kind in (Settings, Options) for field in dataclasses.fields(kind)] + list(RunState)
    assert not [name for name in names if not re.search(rf"(^\| |\W)`{name}`", concepts)]


def test_the_concepts_tell_the_defaults_of_the_settings() -> None:
    concepts = text_of(ROOT / "docs" / "concepts.md")
    told = dict(re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", concepts, re.MULTILINE))
    assert told.keys() == {"concurrency", "lease", "retention", "grace"}
    assert all(float(text) == getattr(Settings(), name) for name, text in told.items())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), f"{page.name} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}: {target.name} has no such heading"


def anchors(page: Path) -> set[str]:
    """Headings of a page, as GitHub names them."""
    titles = HEADING.findall(prose(page))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        reached.add(page)
        linked = {(page.parent / link.partition("#")[0]).resolve() for link in LINK.findall(prose(page))}
        todo += [path for path in linked if path.suffix == ".md" and path.exists() and path not in reached]
    assert reached == set(PAGES)


# ------------------------------------------------------------------------------------------------------- protocol

PROTOCOL = ROOT / "docs" / "protocol.md"


def key_patterns() -> set[str]:
    """Every key that keys.py makes, without the hash tag, as the protocol writes it."""
    shard, mesh = ShardKeys("m", 0), MeshKeys("m")
    fixed = {name for name, value in vars(shard).items() if isinstance(value, str) and value.startswith(shard.prefix)}
    made = {vars(shard)[name] for name in fixed - {"prefix", "plans", "run_prefix"}}
    made |= {shard.work("<ref>"), shard.plan("<digest>"), shard.run("<id>"), shard.blobs("<id>"), shard.events("<id>")}
    made |= {shard.stream("<id>", 0), shard.backlog("<id>", 0), shard.stage("<id>", "<token>")}
    made |= {mesh.settings, mesh.task("<ref>")}
    return {key.partition("}:")[2].replace("s:0", "s:<j>").replace("b:0", "b:<i>") for key in made}


def test_the_protocol_draws_every_key() -> None:
    drawn = "\n".join(blocks(text_of(PROTOCOL), "text"))
    missing = {key for key in key_patterns() if not re.search(rf"(?<![\w:>]){re.escape(key)}(?![\w<])", drawn)}
    assert not missing


def kinds_drawn(text: str) -> dict[str, str]:
    """Read a drawing of keys: what stands after the branch, and what kind of key it is."""
    found = re.findall(r"[├└]── (\S+) +(zset|hash|set|list|stream|string)\b", text)
    assert found
    return dict(found)


def test_the_protocol_draws_the_keys_as_the_module_does() -> None:
    drawn = kinds_drawn("\n".join(blocks(text_of(PROTOCOL), "text")))
    assert drawn == kinds_drawn(keys.__doc__ or "")


def test_the_protocol_names_every_level() -> None:
    assert all(f"`{level.value}`" in text_of(PROTOCOL) for level in Level if level.value)


def test_the_protocol_has_a_row_for_every_script_and_no_other() -> None:
    scripts = {path.stem for path in (ROOT / "datamesh" / "store" / "scripts").glob("*.lua")}
    rows = set(re.findall(r"^\| `(\w+)\.lua` \|", text_of(PROTOCOL), re.MULTILINE))
    assert rows == scripts


def test_paths_in_the_docs_exist() -> None:
    for page in PAGES:
        for path in re.findall(r"`((?:datamesh|tests|examples|services|docs)/[\w./]+)`", prose(page)):
            assert (ROOT / path).exists(), f"{page.name} names {path}, which is not there"


def test_the_tests_that_the_failure_modes_name_are_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", (ROOT / "docs" / "failure-modes.md").read_text("utf-8"))
    sources = {name: (ROOT / "tests" / name).read_text("utf-8") for name, _ in named}
    assert len(named) > 50
    assert not [f"{name}::{test}" for name, test in named if not re.search(rf"def {test}\b", sources[name])]
