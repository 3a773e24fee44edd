"""Settings: the options of a supervisor, from arguments and from the environment.

The one place that reads `DATAMESH_*` there.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datamesh.errors import ConfigurationError
from datamesh.model.names import check_name

PREFIX = "DATAMESH_"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a supervisor behaves.

    Attributes:
        mesh: Namespace that services share.
        concurrency: Invocations at once.
        lease: Seconds without a heartbeat after which others may take over its work.
        retention: Seconds that a finished run is kept.
        grace: Seconds to drain.
        labels: Facts about this service, shown to people.
        signing_keys: Secrets that services share, each of at least 16 characters. The first signs all that is written,
            any of them is accepted, so that keys can be changed one after the other.
        max_value_bytes: Largest value that may be sent.
        allow_eviction: Work on a Redis that may evict keys when its memory is full, and so lose work.
    """

    mesh: str = "datamesh"
    concurrency: int = 100
    lease: float = 10.0
    retention: float = 3600.0
    grace: float = 25.0
    labels: Mapping[str, str] = field(default_factory=dict)
    signing_keys: tuple[str, ...] = field(default=(), repr=False)
    max_value_bytes: int = 512 * 2**20
    allow_eviction: bool = False

    def __post_init__(self) -> None:
        check_name("mesh", self.mesh)
        _check(
            isinstance(self.concurrency, int) and self.concurrency >= 1,
            "concurrency",
            self.concurrency,
            "a whole number from 1",
        )
        _check(_is_number(self.lease) and 0.2 <= self.lease <= 3600, "lease", self.lease, "0.2 to 3600 seconds")
        _check(_is_number(self.retention) and self.retention >= 0.001, "retention", self.retention, "seconds above 0")
        _check(_is_number(self.grace) and self.grace >= 0, "grace", self.grace, "seconds from 0")
        _check(isinstance(self.labels, Mapping), "labels", self.labels, "a mapping of names to texts")
        keys = self.signing_keys
        is_keys = isinstance(keys, tuple | list) and all(isinstance(key, str) and len(key) >= 16 for key in keys)
        _check(is_keys, "signing_keys", "...", "a list of texts of at least 16 characters each")
        object.__setattr__(self, "signing_keys", tuple(keys))
        _check(isinstance(self.allow_eviction, bool), "allow_eviction", self.allow_eviction, "True or False")
        most = self.max_value_bytes
        _check(isinstance(most, int) and most >= 1024, "max_value_bytes", most, "a whole number from 1024")

    @property
    def lease_ms(self) -> int:
        return int(self.lease * 1000)

    @property
    def retention_ms(self) -> int:
        return max(1, int(self.retention * 1000))

    @classmethod
    def of(cls, options: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
        """Combine options with the environment; an option wins.

        Args:
            options: As they were passed.
            environment: Read for `DATAMESH_<NAME>`; the process's own if left out.

        Raises:
            ConfigurationError: An option does not exist, or a value cannot be used.
        """
        names = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(options) - names)
        if unknown:
            raise ConfigurationError(
                f"there is no option {', '.join(unknown)}: the options are {', '.join(sorted(names))}"
            )
        environment = os.environ if environment is None else environment
        values = {name: _read(name, environment[_variable(name)]) for name in names if environment.get(_variable(name))}
        return cls(**{**values, **options})


def environment_url() -> str | None:
    """Return `DATAMESH_URL`, if it is set."""
    return os.environ.get(f"{PREFIX}URL") or None


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _read(name: str, text: str) -> Any:
    try:
        if name in ("concurrency", "max_value_bytes"):
            return int(text)
        if name in ("lease", "retention", "grace"):
            return float(text)
        if name == "allow_eviction":
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
        if name == "labels":
            return dict(pair.split("=", 1) for pair in text.split(","))
        if name == "signing_keys":
            return tuple(text.split(","))
    except (ValueError, KeyError) as error:
        raise ConfigurationError(f"{_variable(name)}={text!r} cannot be read: {error}") from error
    return text


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check(fits: bool, name: str, value: object, accepted: str) -> None:
    if not fits:
        raise ConfigurationError(
            f"{name}={value!r} cannot be used: it takes {accepted} ({_variable(name)} in the environment)"
        )
