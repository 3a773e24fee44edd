"""Redaction: secrets stay out of texts, wherever the texts come from; the values themselves travel as they are."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Discriminator, Field, SecretBytes, SecretStr, Tag, field_validator
from pydantic import Secret as SecretOf
from typing_extensions import TypedDict

from datamesh.codec.failure import Failure
from datamesh.codec.values import ValueCodec
from datamesh.errors import InvalidValueError, TaskFailedError, UnserializableValueError
from datamesh.model.redaction import printable, redacted_text
from datamesh.model.secret import KnownSecrets, Secret, known_secrets

CANARY = "canary-7f3a9"


class Login(BaseModel):
    user: str
    password: SecretStr
    pins: dict[str, SecretOf[int]] = {}


@dataclass
class Marked:
    token: Annotated[str, Secret()]
    plain: str = ""


@dataclass(slots=True)
class Slotted:
    token: SecretBytes


# ------------------------------------------------------------------------------------------------------ texts


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://user:pa55@host:6379/0", "redis://user:***@host:6379/0"),
        ("rediss://:pa55@host", "rediss://:***@host"),
        ("redis://pa55@host", "redis://***@host"),
        ("at redis+cluster://u:p/a?5@5@host:1, then", "at redis+cluster://u:***@host:1, then"),
        ("https://api.test/x?api_key=pa55&page=2", "https://api.test/x?api_key=***&page=2"),
        ("https://api.test/x?user_password=pa55", "https://api.test/x?user_password=***"),
        ("('redis://a:pa55@b', 'redis://c:pa55@d')", "('redis://a:***@b', 'redis://c:***@d')"),
        ("[type=int_type, input_value='pa55', input_type=str]", "[type=int_type, input_value=***, input_type=str]"),
        ("https://docs.test/page", "https://docs.test/page"),
        ("mail to someone@host", "mail to someone@host"),
    ],
)  # fmt: skip
def test_passwords_of_urls_and_inputs_of_pydantic_are_hidden(text: str, shown: str) -> None:
    assert redacted_text(text) == shown


@pytest.mark.parametrize("part", ["a://", "input_value=", "?secret=", "://@", "a" * 30, "&token", "=,", "redis://a:"])
def test_no_text_takes_long(part: str) -> None:
    began = time.perf_counter()
    redacted_text(part * (2**20 // len(part)))
    assert time.perf_counter() - began < 5


def test_characters_that_mislead_are_escaped() -> None:
    assert printable("a\nb\x1b[31m\u202e\u2028\x9b\x00\ud800") == r"a\nb\x1b[31m\u202e\u2028\x9b\x00\ud800"
    assert printable("a\nb\r", keep="\n") == "a\nb\\r"


# ---------------------------------------------------------------------------------------------- known secrets


def test_a_secret_is_hidden_in_each_form_that_texts_have() -> None:
    secrets, secret = KnownSecrets(), 'pa"55\té/&'
    secrets.note(secret)
    for text in (secret, repr(secret), ascii(secret), json.dumps(secret), "x=pa%2255%09%C3%A9%2F%26"):
        assert secrets.hidden_in(f"<{text}>").count("***") == 1, text


def test_each_line_of_a_long_secret_is_hidden() -> None:
    secrets = KnownSecrets()
    secrets.note("-----BEGIN KEY-----\nMIIEvQIBADAN\nBgkqhkiG9w0B\n-----END KEY-----")
    assert secrets.hidden_in("  | BgkqhkiG9w0B\n  | MIIEvQIBADAN") == "  | ***\n  | ***"


def test_one_secret_may_be_part_of_another() -> None:
    secrets = KnownSecrets()
    for secret in ("abcd", "abcdefgh", "cdef"):
        secrets.note(secret)
    assert secrets.hidden_in("abcdefgh abcd") == "*** ***"


def test_the_latest_are_remembered_and_short_ones_are_not() -> None:
    secrets = KnownSecrets(latest=2)
    for secret in ("first", "second", "first", "third", "abc"):
        secrets.note(secret)
    assert secrets.hidden_in("first second third abc") == "*** second *** abc"


@pytest.mark.parametrize("value", [b"canary", bytearray(b"canary"), ["x", {"k": ("canary",)}], {"canary"}])
def test_secrets_in_containers_are_noted(value: object) -> None:
    secrets = KnownSecrets()
    secrets.note(value)
    assert secrets.hidden_in("a canary") == "a ***"


def test_a_number_may_be_secret() -> None:
    secrets = KnownSecrets()
    for number in (98765, True, None):
        secrets.note(number)
    assert secrets.hidden_in("pin 98765 True None") == "pin *** True None"


# --------------------------------------------------------------------------------------------- through a codec


def through(codec: ValueCodec, value: Any) -> Any:
    (frame,) = codec.frames([value])
    return codec.values(frame.payload)[0]


@pytest.mark.parametrize(
    ("annotation", "value", "revealed"),
    [
        (SecretStr, SecretStr("1-text"), lambda value: value.get_secret_value()),
        (SecretBytes, SecretBytes(b"1-byte"), lambda value: value.get_secret_value().decode()),
        (SecretOf[str], SecretOf("1-some"), lambda value: value.get_secret_value()),
        (list[SecretStr], [SecretStr("1-list")], lambda value: value[0].get_secret_value()),
        (dict[str, SecretStr], {"a": SecretStr("1-dict")}, lambda value: value["a"].get_secret_value()),
        (Login, Login(user="u", password=SecretStr("1-model")), lambda value: value.password.get_secret_value()),
        (Slotted, Slotted(SecretBytes(b"1-slots")), lambda value: value.token.get_secret_value().decode()),
        (Annotated[str, Secret()], "1-marked", lambda value: value),
        (Annotated[str, Secret(), Field(min_length=3)], "1-bounded", lambda value: value),
        (Marked, Marked("1-field"), lambda value: value.token),
        (Annotated[list[str], Secret()], ["1-within"], lambda value: value[0]),
    ],
)
def test_a_secret_travels_as_it_is_and_is_hidden_from_then_on(
    annotation: Any, value: Any, revealed: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    received = through(ValueCodec(annotation), value)
    secret = revealed(received)
    assert secret == revealed(value)
    assert redacted_text(f"got {secret}") == "got ***"
    failure = Failure.of(ValueError(f"{secret} is wrong"), task="login", attempt=1)
    assert failure.message == "*** is wrong"
    assert secret not in failure.remote_traceback


def test_a_process_that_only_reads_knows_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    (frame,) = ValueCodec(Login).frames(
        [Login(user="u", password=SecretStr("only-sent-1"), pins={"a": SecretOf(86420)})]
    )
    reader = KnownSecrets()
    monkeypatch.setattr("datamesh.codec.secrets.known_secrets", reader)
    ValueCodec(Login).values(frame.payload)
    assert reader.hidden_in("only-sent-1 86420 u") == "*** *** u"


def test_a_mark_says_nothing_of_the_form() -> None:
    assert ValueCodec(Annotated[str, Secret()]).schema == ValueCodec(str).schema


def test_a_failure_of_another_version_is_cleaned_when_it_is_read() -> None:
    known_secrets.note("met-later-55")
    failure = Failure(message="it was met-later-55 at redis://u:pw@h", remote_traceback="met-later-55\n")
    assert failure.message == "it was *** at redis://u:***@h"
    assert failure.remote_traceback == "***\n"


def test_a_cut_leaves_no_part_of_a_secret() -> None:
    known_secrets.note("a-long-secret-that-is-cut")
    for before in range(4060, 4110):
        failure = Failure(message="x" * before + "a-long-secret-that-is-cut" * 9)
        assert "a-lo" not in failure.message
    for after in range(16_340, 16_390):
        failure = Failure(remote_traceback="a-long-secret-that-is-cut" * 9 + "x" * after)
        assert "cut" not in failure.remote_traceback


def test_a_failure_elsewhere_is_cleaned() -> None:
    known_secrets.note("elsewhere-55")
    error = TaskFailedError(
        task="a", attempt=1, remote_type="E", message="elsewhere-55", remote_traceback="elsewhere-55"
    )
    failure = Failure.of(error, task="b", attempt=1)
    assert "elsewhere-55" not in failure.message + failure.remote_traceback


# ------------------------------------------------------------------------------- pydantic quotes what it is given


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int = 0


class Checked(BaseModel):
    text: str

    @field_validator("text")
    @classmethod
    def _refuse(cls, text: str) -> str:
        raise ValueError(f"{text!r} is no good")


class Rude(BaseModel):
    token: Annotated[str, Secret()]

    @field_validator("token", mode="after")
    @classmethod
    def _refuse(cls, token: str) -> str:
        raise LookupError(f"{token} is unknown")


class Typed(TypedDict):
    size: int


CASES: list[tuple[Any, Any]] = [
    (int, CANARY),
    (float, CANARY),
    (bool, CANARY),
    (Decimal, CANARY),
    (list[int], [CANARY]),
    (dict[str, int], {CANARY: CANARY}),
    (dict[int, int], {CANARY: 1}),
    (dict[str, dict[str, int]], {CANARY: {CANARY: CANARY}}),
    (tuple[int, str], (CANARY, 1)),
    (int | list[int], CANARY),
    (Literal["a", "b"], CANARY),
    (Annotated[str, Field(max_length=3)], CANARY),
    (Annotated[str, Field(pattern="^a$")], CANARY),
    (Annotated[Cat | Dog, Field(discriminator="kind")], {"kind": CANARY}),
    (Annotated[Annotated[Cat, Tag("c")] | Annotated[Dog, Tag("d")], Discriminator(lambda v: CANARY)], {}),
    (Strict, {CANARY: 1}),
    (Strict, {"size": CANARY}),
    (Typed, {"size": CANARY}),
    (Typed, CANARY),
    (Marked, {"token": 5, "plain": CANARY}),
    (Checked, {"text": CANARY}),
    (Rude, {"token": CANARY}),
    (Login, {"user": "u", "password": [CANARY]}),
    (SecretStr, [CANARY]),
    (Annotated[SecretStr, Field(min_length=50)], CANARY),
    (Annotated[str, Secret(), Field(min_length=50)], CANARY),
]


@pytest.mark.parametrize(("annotation", "value"), CASES, ids=lambda case: str(case)[:40])
def test_what_does_not_fit_is_not_quoted(annotation: Any, value: Any) -> None:
    with pytest.raises(InvalidValueError) as caught:
        ValueCodec(annotation).check([value])
    assert CANARY not in str(caught.value)
    assert CANARY not in caught.value.problem
    failure = Failure.of(caught.value, task="a", attempt=1)
    assert CANARY not in failure.message + failure.remote_traceback


def test_fields_are_named_where_values_are_not() -> None:
    with pytest.raises(InvalidValueError, match=r"password: Input should be a valid string \(got list\)"):
        ValueCodec(Login).check([{"user": "u", "password": ["x"]}])
    with pytest.raises(InvalidValueError, match=r"\[key\]\.\[key\]: Input should be a valid integer"):
        ValueCodec(dict[str, dict[str, int]]).check([{"some": {"word": "x"}}])


def test_a_validation_that_fails_inside_a_function_is_not_quoted() -> None:
    class Request(BaseModel):
        size: int
        password: Annotated[SecretStr, Field(min_length=40)]

    try:
        Request.model_validate({"size": f"{CANARY} {CANARY}", "password": CANARY})
    except ValueError as exc:
        failure = Failure.of(exc, task="a", attempt=1)
    assert "size" in failure.message
    assert "input_value=***, input_type=str" in failure.message
    assert CANARY not in failure.message + failure.remote_traceback


def test_what_cannot_be_taken_apart_is_not_quoted() -> None:
    class Opaque(BaseModel):
        token: Annotated[str, Secret()]

        def __getattribute__(self, name: str) -> Any:
            if name == "__dict__":
                raise LookupError("kept-apart-55")
            return super().__getattribute__(name)

    known_secrets.note("kept-apart-55")
    with pytest.raises((UnserializableValueError, InvalidValueError)) as caught:
        ValueCodec(Opaque).frames([{"token": "kept-apart-55"}])
    assert "kept-apart-55" not in str(caught.value)
