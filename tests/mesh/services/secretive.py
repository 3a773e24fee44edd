"""Tasks that are given secrets and put them where they do not belong, for tests of what is seen of it."""

import logging
from typing import Annotated

from pydantic import BaseModel, SecretStr, TypeAdapter

from datamesh import Context, Retry, Secret, Task
from datamesh.observe.logs import LogFormat, LogLevel, write_logs
from tests.mesh.services.serving import serve


class Login(BaseModel):
    """A user and a password; what it says of itself shows none."""

    user: str
    password: SecretStr
    token: Annotated[str, Secret()] = ""


measure = Task(name="secretive.measure", inputs={"login": Login}, outputs=["length"])
blurt = Task(name="secretive.blurt", inputs={"login": Login}, outputs=["never"])
bury = Task(name="secretive.bury", inputs={"login": Login}, outputs=["never"])
reject = Task(name="secretive.reject", inputs={"login": Login}, outputs=["never"])
misfit = Task(name="secretive.misfit", inputs=["number"], outputs=["same"])
flaky = Task(name="secretive.flaky", inputs=["number"], outputs=["same"])
large = Task(name="secretive.large", inputs=["text"], outputs=["text2"])


@measure
async def _measure(login: Login, context: Context) -> int:
    context.log.info("measuring %r with %s", login, login.token, extra={"login": login, "token": login.token})
    return len(login.password.get_secret_value()) + len(login.token)


@blurt
async def _blurt(login: Login) -> int:
    logging.getLogger("shop").warning("about to fail with %s", login.password.get_secret_value())
    raise ValueError(
        f"{login.user}: {login.password.get_secret_value()} and {login.token} at redis://u:url-canary-55@h"
    )


@bury(on_error="dead")
async def _bury(login: Login) -> int:
    raise LookupError(f"cannot log in with {login.password.get_secret_value()!r}, {login.token!r}")


@reject(on_error="dead")
async def _reject(login: Login) -> int:
    return TypeAdapter(int).validate_python(login.token)


@misfit(on_error="dead")
async def _misfit(number: int) -> int:
    return number


@flaky(retry=Retry(attempts=3, backoff=0.05))
async def _flaky(number: int, context: Context) -> int:
    if context.attempt < 2:
        raise RuntimeError("again")
    return number


@large
async def _large(text: str) -> str:
    return text * 2


if __name__ == "__main__":
    write_logs(LogFormat.JSON, LogLevel.DEBUG)
    serve(lease=1.0, grace=2.0)
