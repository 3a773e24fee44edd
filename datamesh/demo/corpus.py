"""Corpus: which files are read."""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

from datamesh.errors import ConfigurationError

_LEFT_OUT = frozenset({"__pycache__", "dist-packages", "idlelib", "pydoc_data", "site-packages", "test", "tests"})
_INSTALLED = ("LICENSE*", "METADATA", "*.md", "*.rst", "*.txt")


def found_files(paths: Sequence[Path]) -> list[str]:
    """Return the absolute paths of files and of all files under folders, in order; hidden ones are left out.

    Raises:
        ConfigurationError: There is nothing at a path.
    """
    files: dict[str, None] = {}
    for path in paths:
        if not path.exists():
            raise ConfigurationError(f"there is no file or folder {path}")
        files |= dict.fromkeys(_under(path.absolute()) if path.is_dir() else [str(path.absolute())])
    return list(files)


def default_files() -> list[str]:
    """Return what is on every installation: the standard library's modules, and the readme and licence of each package.

    Modules carry their documentation in themselves. Their tests are left out.
    """
    return [*_modules(Path(sysconfig.get_path("stdlib"))), *_about_packages(Path(sysconfig.get_path("purelib")))]


def _under(folder: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(parent, name) for name in sorted(names) if not name.startswith("."))


def _modules(library: Path) -> Iterator[str]:
    for parent, folders, names in os.walk(library):
        folders[:] = sorted(set(folders) - _LEFT_OUT)
        yield from (os.path.join(parent, name) for name in sorted(names) if name.endswith(".py"))


def _about_packages(packages: Path) -> Iterator[str]:
    for about in sorted(packages.glob("*.dist-info")):
        yield from sorted({str(path) for pattern in _INSTALLED for path in about.glob(pattern) if path.is_file()})
