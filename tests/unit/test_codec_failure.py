"""Failures: any exception becomes text within limits, and comes back as the error that a reader gets."""

from __future__ import annotations

import sys

import msgpack
import pytest

from datamesh.codec.failure import MAX_FRAMES, MAX_MESSAGE_BYTES, MAX_TRACEBACK_BYTES, Failure, FailureKind
from datamesh.codec.wire import pack
from datamesh.errors import FlowCancelledError, FlowTimeoutError, TamperedDataError, TaskFailedError


def failure_of(exc: BaseException, **facts: str) -> Failure:
    try:
        raise exc
    except BaseException as caught:
        return Failure.of(caught, task="split", attempt=2, **facts)


class Text(str):
    def __getitem__(self, _: object) -> str:
        raise RuntimeError("no")


class Rude(Exception):
    def __init__(self, answer: object) -> None:
        self.answer = answer

    def __str__(self) -> str:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer  # type: ignore[return-value]

    __repr__ = __str__


def test_tells_what_where_and_how() -> None:
    failure = failure_of(ValueError("bad page"), run_id="r1", service="s1")
    assert failure == Failure(
        kind=FailureKind.FAILED,
        task="split",
        attempt=2,
        remote_type="ValueError",
        message="bad page",
        remote_traceback=failure.remote_traceback,
        run_id="r1",
        service="s1",
    )
    assert failure.remote_traceback.startswith("Traceback (most recent call last):\n")
    assert failure.remote_traceback.endswith("ValueError: bad page\n")
    assert "in failure_of" in failure.remote_traceback
    assert "r1" not in failure.remote_traceback, "the values of variables are shown"


def test_comes_back_and_raises_again() -> None:
    failure = failure_of(ValueError("bad page\n\x1b[2J"), run_id="r1", service="s1")
    restored = Failure.unpack(failure.pack())
    assert restored == failure
    error = restored.error()
    assert isinstance(error, TaskFailedError)
    facts = (error.task, error.attempt, error.remote_type, error.run_id, error.service)
    assert facts == ("split", 2, "ValueError", "r1", "s1")
    assert error.message == r"bad page\n\x1b[2J"
    assert error.remote_traceback == failure.remote_traceback


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (FlowCancelledError(run_id="r"), FailureKind.CANCELLED),
        (FlowTimeoutError(run_id="r"), FailureKind.TIMEOUT),
        (TimeoutError(), FailureKind.FAILED),
        (KeyboardInterrupt(), FailureKind.FAILED),
    ],
    ids=repr,
)
def test_kinds(exc: BaseException, kind: FailureKind) -> None:
    restored = Failure.unpack(failure_of(exc, run_id="r").pack())
    assert restored.kind is kind
    expected = {FailureKind.FAILED: TaskFailedError}.get(kind, type(exc))
    assert type(restored.error()) is expected


@pytest.mark.parametrize(
    "answer",
    [
        RuntimeError("x"),
        KeyboardInterrupt(),
        SystemExit(1),
        RecursionError(),
        None,
        5,
        Text("text"),
        "\ud800 \0 \u202e",
        "x" * 10**6,
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_an_exception_cannot_hide_behind_its_text(answer: object) -> None:
    failure = failure_of(Rude(answer))
    assert failure.remote_type == f"{__name__}.Rude"
    assert failure.message.isprintable()
    assert "in failure_of" in failure.remote_traceback
    assert Failure.unpack(failure.pack()) == failure


def test_texts_have_limits() -> None:
    failure = Failure(task="t" * 1000, message="é" * 9000, remote_traceback="".join(f"line {n}\n" for n in range(9000)))
    assert len(failure.message.encode()) <= MAX_MESSAGE_BYTES
    assert failure.message.endswith("é[...]")
    assert len(failure.remote_traceback.encode()) <= MAX_TRACEBACK_BYTES
    assert failure.remote_traceback.startswith("[...]")
    assert failure.remote_traceback.endswith("line 8999\n")
    assert len(failure.task) == 256
    assert Failure.unpack(failure.pack()) == failure
    whole = Failure(message="x" * MAX_MESSAGE_BYTES, remote_traceback="y" * MAX_TRACEBACK_BYTES)
    assert (len(whole.message), len(whole.remote_traceback)) == (MAX_MESSAGE_BYTES, MAX_TRACEBACK_BYTES)


def test_a_long_message_leaves_room_for_the_frames() -> None:
    failure = failure_of(ValueError("x" * 100_000))
    assert "in failure_of" in failure.remote_traceback
    assert failure.remote_traceback.startswith("Traceback")


def test_deep_recursion_keeps_the_last_frames() -> None:
    def deeper(left: int) -> None:
        deepest(left)

    def deepest(left: int) -> None:
        assert 1 / left
        deeper(left - 1)

    with pytest.raises(ZeroDivisionError) as caught:
        deeper(200)
    failure = Failure.of(caught.value, task="a", attempt=1)
    assert failure.remote_traceback.count("in deep") == MAX_FRAMES
    assert "1 / left" in failure.remote_traceback


def test_causes_and_groups_are_told() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as exc:
            raise ExceptionGroup("many", [ValueError("one")]) from exc
    except ExceptionGroup as exc:
        failure = Failure.of(exc, task="a", attempt=1)
    for text in ("KeyError: 'inner'", "direct cause", "ValueError: one"):
        assert text in failure.remote_traceback


def test_control_characters_are_shown() -> None:
    failure = Failure(message="a\nb\x1b[31m\u202e\u2028\x9b", remote_traceback="a\nb\r\x1b\n")
    assert failure.message == r"a\nb\x1b[31m\u202e\u2028\x9b"
    assert failure.remote_traceback == "a\nb\\r\\x1b\n"


def test_a_failure_elsewhere_keeps_its_facts() -> None:
    inner = failure_of(ValueError("bad page")).error()
    failure = failure_of(inner)
    assert failure.message == "task 'split' failed at attempt 2: ValueError: bad page"
    assert failure.remote_type == "datamesh.errors.TaskFailedError"
    assert failure.remote_traceback.startswith("Traceback (most recent call last):\n")
    assert "That was in task 'split'" in failure.remote_traceback
    huge = TaskFailedError(task="a", attempt=1, remote_type="T", message="m", remote_traceback="far\n" * 9000)
    text = failure_of(huge).remote_traceback
    assert "far\n" in text
    assert "in failure_of" in text


def test_what_a_later_version_adds_is_left_out() -> None:
    later = {"kind": "quota", "message": "m", "task": "t", "attempt": 1, "colour": ["red"]}
    assert Failure.unpack(pack(later)) == Failure(task="t", attempt=1, message="m")


@pytest.mark.parametrize(
    "facts",
    [
        *(5, [], {}, {"kind": "failed"}, {"kind": "failed", "message": 5}, {"kind": ["failed"], "message": ""}),
        *({"kind": "failed", "message": "", "attempt": value} for value in ("1", -1, True, 1.5, None)),
        *({"kind": "failed", "message": "", name: b"x"} for name in ("task", "run_id", "remote_traceback")),
    ],
    ids=str,
)
def test_refuses_other_facts(facts: object) -> None:
    with pytest.raises(TamperedDataError):
        Failure.unpack(msgpack.packb(facts))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x81", b"\x91" * 500, b"\xc0" * 70_000])
def test_refuses_other_bytes(payload: bytes) -> None:
    with pytest.raises(TamperedDataError):
        Failure.unpack(payload)


def test_recursion_near_the_limit_is_survived() -> None:
    def at_depth(left: int) -> Failure:
        return at_depth(left - 1) if left else Failure.of(ValueError("x"), task="a", attempt=1)

    frame, depth = sys._getframe(), 0
    while frame := frame.f_back:  # type: ignore[assignment]
        depth += 1
    failure = at_depth(sys.getrecursionlimit() - depth - 20)
    assert failure.remote_type == "ValueError"
    assert failure.message == "x"


# --------------------------------------------------------------------------------------- hostile exceptions


class Nameless(type):
    def __getattribute__(cls, name: str) -> object:
        if name == "__qualname__":
            raise RuntimeError("no name")
        return super().__getattribute__(name)


class Unnamed(Exception, metaclass=Nameless):
    pass


class Liar(Exception):
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise KeyboardInterrupt


class Pretender(Exception):
    """Says that it is an error of ours, and has nothing of one."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return TaskFailedError


class Noted(Exception):
    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise SystemExit(3)


class Pickled(Exception):
    def __reduce__(self) -> tuple[object, ...]:
        raise AssertionError("it was pickled")

    __reduce_ex__ = __getstate__ = __deepcopy__ = __copy__ = __reduce__  # type: ignore[assignment]


class Endless(Exception):
    def __str__(self) -> str:
        return str(self)


class Hungry(Exception):
    def __str__(self) -> str:
        raise MemoryError


@pytest.mark.parametrize("kind", [Unnamed, Liar, Pretender, Noted, Pickled, Endless, Hungry], ids=lambda kind: "kind")
def test_an_exception_cannot_keep_its_failure_from_being_told(kind: type[Exception]) -> None:
    failure = failure_of(kind("x"))
    assert failure.kind is FailureKind.FAILED
    assert failure.remote_type
    assert failure.remote_traceback
    assert Failure.unpack(failure.pack()) == failure


def test_a_failure_has_a_largest_size() -> None:
    try:
        try:
            raise ValueError("é" * 10**6)
        except ValueError as exc:
            for n in range(500):
                exc.add_note(f"note {n} " + "n" * 10_000)
            raise RuntimeError("\n" * 10**6) from exc
    except RuntimeError as exc:
        failure = Failure.of(exc, task="t" * 10**6, attempt=1, run_id="r" * 10**6, service="\x00" * 10**6)
    assert len(failure.pack()) <= MAX_MESSAGE_BYTES + MAX_TRACEBACK_BYTES + 4 * 256 + 200


def test_the_values_of_variables_stay_where_they_are() -> None:
    def inner(password: str) -> None:
        token = password.upper()
        raise ValueError(f"{len(token)} characters are too few")

    with pytest.raises(ValueError, match="too few") as caught:
        inner("hunter2-local")
    failure = Failure.of(caught.value, task="a", attempt=1)
    assert "in inner" in failure.remote_traceback
    assert "HUNTER2-LOCAL" not in failure.remote_traceback
