"""Settings of the service, from the environment. Those of the mesh (`DATAMESH_URL`, ...) datamesh reads itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, slots=True)
class Settings:
    """How the service is deployed.

    Attributes:
        root: Only files under it are read, whatever a flow asks for (`DOCUMENTS_ROOT`, `/documents`).
    """

    root: Path = Path("/documents")

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the settings."""
        return cls(Path(environment.get("DOCUMENTS_ROOT") or "/documents").resolve())
