"""`datamesh worker`: a service as a process of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import Annotated

import typer

from datamesh.cli.ending import Ending
from datamesh.cli.options import HealthHost, HealthPortNumber, Mesh, Url
from datamesh.cli.target import supervisor_of
from datamesh.errors import ConfigurationError
from datamesh.observe.health_port import Answer, HealthPort
from datamesh.observe.logs import LogFormat, LogLevel, write_logs
from datamesh.settings import PREFIX
from datamesh.store.locate import redacted
from datamesh.supervise.serving import serve
from datamesh.supervise.signals import Signals
from datamesh.supervise.supervisor import Supervisor

_DRAIN_MARGIN = 2.6
"""Seconds that a drain may take beyond its grace period."""
_LAST_SECONDS = 1.5
"""Seconds for the rest of the program once the service has ended."""
EXIT_BROKEN = 1


def worker(
    target: Annotated[
        str, typer.Argument(metavar="MODULE:SUPERVISOR", help="A Supervisor, or a function that returns one.")
    ],
    concurrency: Annotated[int | None, typer.Option(min=1, help="Invocations at once.")] = None,
    log_format: Annotated[LogFormat, typer.Option(help="Lines for people, or JSON.")] = LogFormat.CONSOLE,
    log_level: Annotated[LogLevel, typer.Option(help="From which level on.")] = LogLevel.INFO,
    url: Url = None,
    mesh: Mesh = None,
    health_port: HealthPortNumber = None,
    health_host: HealthHost = "127.0.0.1",
) -> None:
    """Serve the tasks of MODULE until SIGTERM or SIGINT.

    Then it drains: takes nothing more, finishes what it has begun within the grace period (DATAMESH_GRACE, 25 s), gives
    back the rest and exits with 0, at most 3 s after that period whatever still runs. A second signal ends it at once,
    with 130; what it held is taken over by others. If a part of it breaks again and again, it leaves the mesh and exits
    with 1.
    """
    write_logs(log_format, log_level)
    _put_in_environment("URL", url)
    _put_in_environment("MESH", mesh)
    supervisor = supervisor_of(target)
    _check(target, supervisor, url, mesh)
    if concurrency is not None:
        supervisor.settings = dataclasses.replace(supervisor.settings, concurrency=concurrency)
    if health_port is not None:
        _answer_health(supervisor, health_host, health_port)
    ending = Ending()
    signals = Signals(lambda: ending.within(supervisor.settings.grace + _DRAIN_MARGIN))
    signals.listen()
    asyncio.run(_serve(supervisor, signals, ending))
    ending.leave()


async def _serve(supervisor: Supervisor, signals: Signals, ending: Ending) -> None:
    """Serve, and see to it that the process ends soon after."""
    try:
        await serve(supervisor, signals)
    except BaseException:
        ending.within(_LAST_SECONDS, code=EXIT_BROKEN)
        raise
    ending.within(_LAST_SECONDS)


def _answer_health(supervisor: Supervisor, host: str, port: int) -> None:
    """On the port `/healthz`: whether it had better be started anew; and `/readyz`: whether it takes work."""

    def alive() -> Answer:
        health = supervisor.health()
        return health.is_healthy, health.to_dict()

    def ready() -> Answer:
        health = supervisor.health()
        return health.is_ready, health.to_dict()

    HealthPort({"/healthz": alive, "/readyz": ready}, host=host, port=port).start()


def _put_in_environment(name: str, value: str | None) -> None:
    """Before the module is imported, which reads it when it makes its supervisor."""
    if value is not None:
        os.environ[PREFIX + name] = value


def _check(target: str, supervisor: Supervisor, url: str | None, mesh: str | None) -> None:
    """An option that the module's own code overrules would leave people looking for their service in vain."""
    if mesh is not None and supervisor.settings.mesh != mesh:
        raise ConfigurationError(f"{target} sets mesh={supervisor.settings.mesh!r} itself: leave out --mesh {mesh}")
    if url is not None and supervisor.location.source in ("client", "url"):
        raise ConfigurationError(f"{target} chooses its Redis itself: leave out --url {redacted(url)}")
