"""Options: what several commands have in common."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from datamesh.supervise.supervisor import Supervisor

Url = Annotated[
    str | None,
    typer.Option(help="Redis of the mesh, redis://host:port; else DATAMESH_URL, else embedded.", metavar="URL"),
]
Mesh = Annotated[
    str | None,
    typer.Option(help="Name that the services share; else DATAMESH_MESH, else datamesh.", metavar="NAME"),
]
HealthPortNumber = Annotated[
    int | None,
    typer.Option(
        min=0, max=65535, envvar="DATAMESH_HEALTH_PORT", metavar="PORT",
        help="Answer /healthz and /readyz on this port; 0 for any that is free.",
    ),
]  # fmt: skip
HealthHost = Annotated[
    str, typer.Option(envvar="DATAMESH_HEALTH_HOST", metavar="ADDRESS", help="Address of that port; 0.0.0.0 for all.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def onlooker(url: str | None, mesh: str | None) -> Supervisor:
    """Make a supervisor that implements nothing: it looks at the mesh and takes no work.

    Raises:
        ConfigurationError: The URL or the name cannot be used.
    """
    options: dict[str, Any] = {} if mesh is None else {"mesh": mesh}
    return Supervisor(url=url, tasks=(), name="command-line", **options)
