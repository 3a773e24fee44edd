"""Encrypted connections, and users of whom the server lets only some things."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from datamesh import Flow, IOVal, StoreUnavailableError, Supervisor, Task
from datamesh.model.registry import registry
from tests.servers import Server, free_ports, program

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

echo = Task("echo", inputs={"number": int}, outputs={"same": int})


@pytest.fixture
def flow() -> Iterator[Flow]:
    with registry.isolated():

        @echo
        async def _echo(number: int) -> int:
            return number

        yield Flow.from_tasks(echo).resolve()


async def runs(supervisor: Supervisor, flow: Flow) -> None:
    async with supervisor:
        run = await supervisor.start_flow(flow, [IOVal("number", 7)])
        assert await run["same"].collect() == [7]


# -------------------------------------------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority, a certificate of localhost and one of a client, each with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl on this machine")
    folder = tmp_path_factory.mktemp("tls")
    _openssl(folder, "req", "-x509", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.crt", *_NEW_KEY)
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        _openssl(folder, "req", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr", *_NEW_KEY[:-2])
        _openssl(
            folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.crt", "-days", "2", "-extfile", "names",
        )  # fmt: skip
    return folder


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def secure(certificates: Path) -> Iterator[int]:
    """The port of a server that speaks TLS alone there, and wants certificates of its clients."""
    if program("redis") is None:
        pytest.skip("there is no redis server on this machine")
    (port,) = free_ports(1)
    options = ["--tls-port", str(port), "--tls-auth-clients", "yes", "--tls-ca-cert-file", str(certificates / "ca.crt")]
    options += ["--tls-cert-file", str(certificates / "server.crt"), "--tls-key-file", str(certificates / "server.key")]
    with Server("redis", options=options):
        yield port


def own(certificates: Path) -> dict[str, str]:
    return {
        "ssl_ca_certs": str(certificates / "ca.crt"),
        "ssl_certfile": str(certificates / "client.crt"),
        "ssl_keyfile": str(certificates / "client.key"),
    }


async def test_a_url_with_certificates(certificates: Path, secure: int, mesh: str, flow: Flow) -> None:
    query = "&".join(f"{name}={value}" for name, value in own(certificates).items())
    for scheme in ("rediss", "valkeys"):
        await runs(Supervisor(url=f"{scheme}://localhost:{secure}?{query}", mesh=mesh, tasks=[echo]), flow)


@pytest.mark.parametrize("module", [redis, redis.asyncio])
async def test_a_client_with_certificates(certificates: Path, secure: int, mesh: str, flow: Flow, module: Any) -> None:
    client = module.Redis(host="localhost", port=secure, ssl=True, **own(certificates))
    await runs(Supervisor(client=client, mesh=mesh, tasks=[echo]), flow)


async def test_what_is_not_right_is_said(certificates: Path, secure: int, mesh: str) -> None:
    own_certificate = f"ssl_certfile={certificates}/client.crt&ssl_keyfile={certificates}/client.key"
    for url, said in {
        f"rediss://localhost:{secure}?{own_certificate}": r"TLS failed.*ssl_ca_certs",
        f"rediss://127.0.0.2:{secure}?{own_certificate}&ssl_ca_certs={certificates}/ca.crt": r"127\.0\.0\.2",
        f"redis://localhost:{secure}": "Redis at localhost",
        f"rediss://localhost:{secure}?ssl_ca_certs={certificates}/none.crt": "(?i)certificate|no such file",
    }.items():
        with pytest.raises(StoreUnavailableError, match=f"(?s){said}"):
            await Supervisor(url=url, mesh=mesh).session()


# ------------------------------------------------------------------------------------------------------ users


@pytest.fixture
def user(server: Server, mesh: str) -> Iterator[str]:
    """Name and password of a user who may use the keys of the mesh with all commands but those of an operator."""
    server.client.acl_setuser(
        "app", enabled=True, passwords=["+s3cr3t/:@"], keys=[f"{{{mesh}*"], channels=["*"],
        categories=["+@all", "-@admin", "-@dangerous"], commands=["+client|unblock"],
    )  # fmt: skip
    yield "app:s3cr3t%2F%3A%40"
    server.client.acl_deluser("app")


def as_user(server: Server, user: str) -> str:
    return server.url.replace("unix://", f"unix://{user}@")


async def test_a_user_without_the_rights_of_an_operator(server: Server, user: str, mesh: str, flow: Flow) -> None:
    await runs(Supervisor(url=as_user(server, user), mesh=mesh, tasks=[echo]), flow)


@pytest.mark.parametrize("command", ["evalsha", "hmget", "get", "xadd"])
async def test_a_missing_right_is_named(server: Server, user: str, mesh: str, flow: Flow, command: str) -> None:
    server.client.execute_command("ACL", "SETUSER", "app", f"-{command}")
    with pytest.raises(StoreUnavailableError, match=f"(?i){command}"):
        await runs(Supervisor(url=as_user(server, user), mesh=mesh, tasks=[echo]), flow)


async def test_keys_that_are_not_allowed(server: Server, user: str, mesh: str, flow: Flow) -> None:
    with pytest.raises(StoreUnavailableError, match=r"NOPERM.*key"):
        await runs(Supervisor(url=as_user(server, user), mesh="other", tasks=[echo]), flow)


async def test_a_wrong_password_is_not_shown(server: Server, user: str, mesh: str) -> None:
    with pytest.raises(StoreUnavailableError, match="password") as caught:
        await Supervisor(url=as_user(server, "app:wrong-one"), mesh=mesh).session()
    assert "wrong-one" not in str(caught.value)
