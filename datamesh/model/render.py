"""Pictures of a plan for tools that draw: Mermaid, the DOT language, and files by Graphviz."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from datamesh.errors import ConfigurationError
from datamesh.model.plan import Node, Plan

_FORMATS = {".svg": "svg", ".png": "png", ".pdf": "pdf", ".jpg": "jpg", ".jpeg": "jpg"}

_DOT_STYLE = """\
  rankdir=LR;
  nodesep=0.35;
  ranksep=0.7;
  node [fontname="Helvetica", fontsize=12, shape=box, style="rounded,filled", fillcolor="#e8f0fe", color="#3367d6"];
  edge [fontname="Helvetica", fontsize=10, color="#5f6368", fontcolor="#3c4043", arrowsize=0.7];"""

_DOT_TERMINAL = 'shape=oval, style="filled", fillcolor="#f1f3f4", color="#9aa0a6"'
_DOT_WAITING = "peripheries=2"


class _Edge(NamedTuple):
    source: str
    target: str
    stream: str


def to_mermaid(plan: Plan) -> str:
    """Return a left-to-right Mermaid flowchart.

    Tasks are boxes, waiting ones with a second frame; inputs and outputs of the flow are rounded; an edge between tasks
    carries the name of its stream.
    """
    ids = _ids(plan)
    lines = ["---", f"title: {_quoted(plan.flow)}", "---", "flowchart LR"]
    lines += [f"  {ids['stream', name]}([{_quoted(name)}])" for name in _terminals(plan)]
    for node in plan.nodes:
        start, end = ("[[", "]]") if node.wait else ("[", "]")
        lines.append(f"  {ids['task', node.name]}{start}{_quoted(_label(node, '<br/>'))}{end}")
    for source, target, stream in _edges(plan, ids):
        label = f"|{_quoted(stream)}|" if stream else ""
        lines.append(f"  {source} -->{label} {target}")
    return "\n".join(lines) + "\n"


def to_dot(plan: Plan) -> str:
    """Return a left-to-right digraph in the DOT language, in the same signs as `to_mermaid`."""
    ids = _ids(plan)
    lines = [f"digraph {_quoted(plan.flow)} {{", _DOT_STYLE]
    lines += [f"  {ids['stream', name]} [label={_quoted(name)}, {_DOT_TERMINAL}];" for name in _terminals(plan)]
    for node in plan.nodes:
        frame = f", {_DOT_WAITING}" if node.wait else ""
        lines.append(f"  {ids['task', node.name]} [label={_quoted(_label(node, chr(10)))}{frame}];")
    for source, target, stream in _edges(plan, ids):
        label = f" [label={_quoted(stream)}]" if stream else ""
        lines.append(f"  {source} -> {target}{label};")
    return "\n".join([*lines, "}"]) + "\n"


def picture(plan: Plan, path: Path) -> Path:
    """Draw a plan into a file whose suffix tells the format; see `Flow.visualize`."""
    form = _FORMATS.get(path.suffix.lower())
    if form is None:
        raise ConfigurationError(
            f"cannot draw into {str(path)!r}: let the name of the file end in one of {', '.join(_FORMATS)}"
        )
    graphviz = _graphviz()
    try:
        drawn = graphviz.Source(to_dot(plan)).pipe(format=form)
    except graphviz.ExecutableNotFound as error:
        raise ConfigurationError(
            "the program `dot` of Graphviz is not on the path: install it (`apt install graphviz`, "
            "`brew install graphviz`, or see https://graphviz.org/download), or use `to_mermaid()`"
        ) from error
    path.write_bytes(drawn)
    return path


def _graphviz() -> ModuleType:
    try:
        return importlib.import_module("graphviz")
    except ImportError as error:
        raise ConfigurationError(
            "drawing into a file needs the package `graphviz`: `pip install graphviz`, or use `to_mermaid()`"
        ) from error


def _ids(plan: Plan) -> dict[tuple[str, str], str]:
    """Ids that are no keyword of any language, whatever tasks and streams are called."""
    tasks = {("task", node.name): f"t{index}" for index, node in enumerate(plan.nodes)}
    streams = {("stream", stream.name): f"s{index}" for index, stream in enumerate(plan.streams)}
    return {**tasks, **streams}


def _terminals(plan: Plan) -> tuple[str, ...]:
    return (*plan.inputs, *plan.outputs)


def _edges(plan: Plan, ids: dict[tuple[str, str], str]) -> Iterator[_Edge]:
    for stream in plan.streams:
        end = ids["stream", stream.name]
        sources = [ids["task", name] for name in stream.producers]
        targets = [ids["task", name] for name in stream.consumers]
        label = stream.name if sources and targets else ""
        yield from (_Edge(source, target, label) for source in sources or [end] for target in targets or [end])


def _label(node: Node, newline: str) -> str:
    return f"{node.title}{newline + 'waits' if node.wait else ''}"


def _quoted(text: str) -> str:
    """A quoted string of all three languages, YAML's for Mermaid's title included; newlines become `\\n`."""
    return json.dumps(text, ensure_ascii=False)
