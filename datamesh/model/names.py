"""Names: one alphabet for tasks, streams, meshes and runs, so that separators in keys and scripts are always safe."""

from __future__ import annotations

import re

from datamesh.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def is_name(text: str) -> bool:
    """Whether `text` is made of 1 to 64 of the characters `A-Z a-z 0-9 _ . -`."""
    return _NAME.fullmatch(text) is not None


def check_name(kind: str, name: object) -> str:
    """Return `name`, or refuse it.

    Args:
        kind: What is named, for the message: "task", "stream", "mesh", "run id".
        name: The candidate.

    Raises:
        ConfigurationError: It is no string of 1 to 64 of the characters `A-Z a-z 0-9 _ . -`.
    """
    if not isinstance(name, str) or not is_name(name):
        raise ConfigurationError(
            f"{name!r} cannot be the name of a {kind}: use 1 to 64 of the characters A-Z a-z 0-9 _ . -"
        )
    return name
