"""Pictures of flows: text, Mermaid, DOT, and files by Graphviz."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from datamesh.errors import ConfigurationError
from datamesh.model.flow import Flow
from datamesh.model.task import Task

needs_graphviz = pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")


@pytest.fixture
def diamond() -> Flow:
    return Flow.from_tasks(
        Task("split", "docs", "chunk"),
        Task("embed", "chunk", "vector"),
        Task("tag", "chunk", "label"),
        Task("join", ["vector", "label"], "index", wait=True),
        name="diamond",
    ).resolve()


def drawn(*tasks: Task) -> list[str]:
    return str(Flow.from_tasks(*tasks, name="f").resolve().topology).splitlines()


def test_a_chain_is_drawn_as_a_line() -> None:
    assert drawn(Task("foobar", "foo", "bar"), Task("last", "bar", "end")) == [
        "f: 2 tasks, foo ─▶ end",
        "",
        "○   foo",
        "●   foobar   foo ─▶ bar",
        "●   last     bar ─▶ end",
        "○   end",
    ]


def test_a_diamond_is_drawn_as_one(diamond: Flow) -> None:
    assert str(diamond.topology).splitlines() == [
        "diamond: 4 tasks, docs ─▶ index",
        "",
        "○     docs",
        "●     split          docs ─▶ chunk",
        "├─●   embed          chunk ─▶ vector",
        "● │   tag            chunk ─▶ label",
        "●─╯   join (waits)   vector, label ─▶ index",
        "○     index",
    ]


def test_lines_pass_lanes_that_they_do_not_join() -> None:
    assert drawn(
        Task("a", ["x", "y"], ["p", "q", "r"]),
        Task("b", ["x", "q"], "s"),
        Task("c", ["p", "s", "y"], ["t", "u"]),
        Task("d", ["r", "x"]),
        Task("e", (), "z"),
        Task("f", ["z", "t", "x"], "end", version=2, wait=True),
    )[2:] == [
        "○             x",
        "│ ○           y",
        "├─┼─●─┬─╮     a             x, y ─▶ p, q, r",
        "│ │ │ │ │ ●   e             ─▶ z",
        "├─│─│─● │ │   b             x, q ─▶ s",
        "├─│─│─│─● │   d             r, x ─▶",
        "│ ●─┴─┴─╮ │   c             p, s, y ─▶ t, u",
        "│ │     ○ │   u",
        "●─┴───────╯   f@2 (waits)   z, t, x ─▶ end",
        "○             end",
    ]


def test_a_task_alone_is_drawn() -> None:
    assert drawn(Task("tick")) == ["f: 1 task, ─▶", "", "●   tick   ─▶"]


def test_mermaid_has_the_streams_on_the_edges(diamond: Flow) -> None:
    assert diamond.to_mermaid().splitlines() == [
        "---",
        'title: "diamond"',
        "---",
        "flowchart LR",
        '  s0(["docs"])',
        '  s4(["index"])',
        '  t0["split"]',
        '  t1["embed"]',
        '  t2["tag"]',
        '  t3[["join<br/>waits"]]',
        "  s0 --> t0",
        '  t0 -->|"chunk"| t1',
        '  t0 -->|"chunk"| t2',
        '  t1 -->|"vector"| t3',
        '  t2 -->|"label"| t3',
        "  t3 --> s4",
    ]


def test_keywords_are_only_ever_labels() -> None:
    flow = Flow.from_tasks(Task("end", "graph", "subgraph"), Task("class", "subgraph", "click"), name="node").resolve()
    for line in (flow.to_mermaid() + flow.to_dot()).splitlines():
        unquoted = "".join(line.split('"')[::2])
        assert not {"end", "class", "subgraph", "click"} & set(unquoted.split())


def test_a_task_that_comes_again_shows_its_name() -> None:
    copy = Task("copy", "a", "b")
    flow = Flow.from_tasks(copy, copy.rename(inputs={"a": "b"}, outputs={"b": "c"})).resolve()
    assert 't1["copy-2 [copy]"]' in flow.to_mermaid()


def test_dot_has_the_same_nodes_and_edges(diamond: Flow) -> None:
    lines = [line.strip() for line in diamond.to_dot().splitlines()]
    assert lines[0] == 'digraph "diamond" {'
    assert 't3 [label="join\\nwaits", peripheries=2];' in lines
    assert [line for line in lines if "->" in line] == [
        "s0 -> t0;",
        't0 -> t1 [label="chunk"];',
        't0 -> t2 [label="chunk"];',
        't1 -> t3 [label="vector"];',
        't2 -> t3 [label="label"];',
        "t3 -> s4;",
    ]


@needs_graphviz
def test_graphviz_accepts_the_dot(diamond: Flow) -> None:
    plain = subprocess.run(["dot", "-Tplain"], input=diamond.to_dot(), capture_output=True, text=True, check=True)
    assert plain.stdout.count("\nnode ") == 6
    assert plain.stdout.count("\nedge ") == 6
    assert plain.stderr == ""


@needs_graphviz
@pytest.mark.parametrize(("name", "start"), [("flow.svg", b"<?xml"), ("flow.PNG", b"\x89PNG"), ("flow.pdf", b"%PDF")])
def test_the_suffix_tells_the_format(diamond: Flow, tmp_path: Path, name: str, start: bytes) -> None:
    pytest.importorskip("graphviz")
    written = diamond.visualize(tmp_path / name)
    assert written == tmp_path / name
    assert written.read_bytes().startswith(start)


@pytest.mark.parametrize("name", ["flow", "flow.doc", "flow.svg.exe"])
def test_other_suffixes_are_refused(diamond: Flow, tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"one of \.svg, \.png"):
        diamond.visualize(tmp_path / name)


def test_without_the_package_the_error_tells_how_to_install_it(
    diamond: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)
    with pytest.raises(ConfigurationError, match="pip install graphviz"):
        diamond.visualize(tmp_path / "flow.svg")


def test_without_the_program_the_error_tells_how_to_install_it(
    diamond: Flow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("graphviz")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigurationError, match="program `dot` of Graphviz is not on the path"):
        diamond.visualize(tmp_path / "flow.svg")
    assert not (tmp_path / "flow.svg").exists()
