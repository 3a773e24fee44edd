"""Findings: what must not be and was found, counted by sort."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

_EXAMPLES = 3


@dataclass
class Findings:
    """What cuts of one kind have shown."""

    cuts: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)

    def add(self, fault: str, found: list[str], where: str) -> None:
        """Note what must not be; one cut counts once for each sort of fault."""
        if found:
            self.faults[fault] += 1
            if len(self.examples) < _EXAMPLES:
                self.examples.append(f"{where}: {fault}: {found[0]}")
