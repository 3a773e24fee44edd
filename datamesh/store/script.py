"""Scripts: the Lua files beside this module, read once, with their digests."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

_WITH_GRAPH = frozenset({"submit", "push", "settle", "promote", "end", "wait", "redrive"})


@dataclass(frozen=True, slots=True)
class Script:
    """One script as the server runs it."""

    name: str
    source: str
    digest: str
    """SHA-1 of the source, by which the server knows it."""


def load_script(name: str) -> Script:
    """Read `scripts/<name>.lua`, with `state.lua` and `graph.lua` in front where the script moves values."""
    folder = files("datamesh.store") / "scripts"
    source = (folder / f"{name}.lua").read_text("utf-8")
    if name in _WITH_GRAPH:
        shared = [(folder / f"{part}.lua").read_text("utf-8") for part in ("state", "graph")]
        source = "".join((*shared, source))
    return Script(name, source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


SCRIPTS = {
    name: load_script(name)
    for name in (
        "beat", "blob", "discard", "end", "join", "leave", "listen", "plan", "promote", "push", "reap", "recover",
        "redrive", "settle", "stage", "submit", "sweep", "take", "wait",
    )
}  # fmt: skip
"""All scripts by name; read at import, so that a broken installation shows at once."""
