"""Location: which Redis a supervisor uses, and who said so.

In this order: a client the program passed, a URL it passed, `DATAMESH_URL`, else the embedded server. Nothing connects.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal
from urllib.parse import SplitResult, parse_qs, urlsplit

from datamesh.errors import ConfigurationError
from datamesh.model.names import check_name

Source = Literal["client", "url", "DATAMESH_URL", "embedded"]


class Deployment(StrEnum):
    """What stands behind a location, and so which client is needed."""

    CLIENT = "client"
    """A client that the program made: no URL is known."""
    SERVER = "server"
    """One Redis or Valkey."""
    CLUSTER = "cluster"
    """Redis Cluster; the URL names any of its nodes."""
    SENTINEL = "sentinel"
    """A primary that sentinels name: `redis+sentinel://host:port,host:port/service`.

    User and password before the hosts are those of the primary, `?sentinel_username=` and `?sentinel_password=` those
    of the sentinels, `?db=` is the database.
    """
    EMBEDDED = "embedded"
    """The private server that this user's processes share; the URL names the mesh."""
    MEMORY = "memory"
    """A Redis in this process's memory, for tests."""


_DEPLOYMENTS = {
    "redis": Deployment.SERVER,
    "rediss": Deployment.SERVER,
    "unix": Deployment.SERVER,
    "valkey": Deployment.SERVER,
    "valkeys": Deployment.SERVER,
    "redis+cluster": Deployment.CLUSTER,
    "rediss+cluster": Deployment.CLUSTER,
    "redis+sentinel": Deployment.SENTINEL,
    "rediss+sentinel": Deployment.SENTINEL,
    "memory": Deployment.MEMORY,
    "embedded": Deployment.EMBEDDED,
}
_CLIENT_SCHEMES = {"valkey": "redis", "valkeys": "rediss", "redis+cluster": "redis", "rediss+cluster": "rediss"}
_SECRET_PARAMETER = re.compile(r"(?i)([?&][^=&#]*(?:password|secret|token)[^=&#]*=)[^&#]*")


@dataclass(frozen=True, slots=True)
class Location:
    """Where the store is. As text, one line for the log, without secrets."""

    source: Source
    url: str
    """As given, stripped; `embedded://<mesh>` for the embedded server; empty for a client. May hold a password."""

    @property
    def deployment(self) -> Deployment:
        return _DEPLOYMENTS[_scheme(self.url)] if self.url else Deployment.CLIENT

    @property
    def client_url(self) -> str:
        """The URL in the schemes that a Redis client reads: `valkey` and `+cluster` are gone."""
        scheme, separator, rest = self.url.partition("://")
        return f"{_CLIENT_SCHEMES.get(scheme.lower(), scheme.lower())}{separator}{rest}"

    @property
    def mesh(self) -> str:
        """Whose embedded server it is; empty elsewhere."""
        return urlsplit(self.url).netloc if self.deployment is Deployment.EMBEDDED else ""

    @property
    def persist(self) -> bool:
        """Whether `embedded://...?persist=yes` was asked for: the embedded server then keeps its keys on disk."""
        return self.deployment is Deployment.EMBEDDED and parse_qs(urlsplit(self.url).query).get("persist") == ["yes"]

    def __str__(self) -> str:
        if self.deployment is Deployment.CLIENT:
            return "the client that the program passed"
        text = f"the embedded server of mesh {self.mesh!r}" if self.mesh else redacted(self.url)
        return text if self.source == "embedded" else f"{text} (from {self.source})"

    def __repr__(self) -> str:
        # The generated one would print the password into tracebacks and test reports.
        return f"Location(source={self.source!r}, url={redacted(self.url)!r})"


def locate(url: str | None, environment_url: str | None, mesh: str, *, client: object | None = None) -> Location:
    """Decide which Redis to use, without connecting to it.

    Args:
        url: What the program passed.
        environment_url: The value of `DATAMESH_URL`; empty counts as not set.
        mesh: Names the embedded server where that is taken.
        client: A Redis client that the program passed.

    Raises:
        ConfigurationError: Both a client and a URL were passed, or a URL cannot be used; passwords are not shown.
    """
    check_name("mesh", mesh)
    if client is not None:
        if url is not None:
            raise ConfigurationError("both a client and a url were passed: pass one of them")
        return Location("client", "")
    if url is not None:
        return Location("url", _checked(url, "url", mesh))
    if environment_url is not None and environment_url.strip():
        return Location("DATAMESH_URL", _checked(environment_url, "DATAMESH_URL", mesh))
    return Location("embedded", f"embedded://{mesh}")


def redacted(url: str) -> str:
    """Return `url` for logs and errors: whatever may be a password is `***`, also where the URL is malformed."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    # Up to the last "@" anywhere: a password with "/", "?" or "@" in it must not leak from a URL that does not parse.
    credentials, at, address = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    # A lone word before "@" is hidden too: to the client it is a user name, to many a reader a password.
    shown = f"{user if colon else ''}{colon}***" if at else ""
    return scheme + separator + shown + at + _SECRET_PARAMETER.sub(r"\1***", address)


def _checked(url: str, source: Source, mesh: str) -> str:
    url = url.strip()
    if _scheme(url) not in _DEPLOYMENTS or "://" not in url:
        known = ", ".join(f"{scheme}://" for scheme in _DEPLOYMENTS)
        raise ConfigurationError(f"{source} {redacted(url)!r} is of no known kind: it must begin with one of {known}")
    try:
        parts = urlsplit(url)
        problem = _problem(parts)
    except ValueError as error:
        # The text of the error may quote a part of the password, so it is neither shown nor chained.
        problem = "check the port, and percent-encode special characters in the password" if "@" in url else str(error)
    if problem:
        raise ConfigurationError(f"{source} {redacted(url)!r} cannot be used: {problem}")
    return _embedded_url(parts, mesh) if parts.scheme == "embedded" else url


def _problem(parts: SplitResult) -> str:
    match _DEPLOYMENTS[parts.scheme]:
        case Deployment.SENTINEL:
            return _sentinel_problem(parts)
        case Deployment.EMBEDDED:
            accepted = parts.path in ("", "/") and parts.query in ("", "persist=yes", "persist=no")
            return "" if accepted else "write embedded://, embedded://mesh or embedded://mesh?persist=yes"
        case _ if parts.scheme == "unix":
            return "" if parts.path.startswith("/") else "give an absolute path, unix:///path/to/socket"
        case _:
            # Reading the port is what checks it.
            return "the port 0 cannot be connected to" if parts.port == 0 else ""


def _sentinel_problem(parts: SplitResult) -> str:
    service = parts.path.strip("/")
    if not parts.netloc or not service or "/" in service:
        return f"name the sentinels and the service, {parts.scheme}://host:port,host:port/service; the database is ?db="
    for text in parts.netloc.rpartition("@")[2].split(","):
        host = urlsplit(f"//{text.strip()}")
        # Reading the port is what checks it.
        if not host.hostname or host.port == 0:
            return f"{text!r} is no address of a sentinel: write host:port"
    return ""


def _embedded_url(parts: SplitResult, mesh: str) -> str:
    name = check_name("mesh", parts.netloc or mesh)
    return f"embedded://{name}?{parts.query}" if parts.query else f"embedded://{name}"


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()
