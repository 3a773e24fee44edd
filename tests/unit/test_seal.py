"""Seals: what was written with a key and for a place is accepted there, and nothing else is."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamesh.codec.seal import SEAL_BYTES, NoSeal, Seal, sealing_of
from datamesh.errors import ConfigurationError, TamperedDataError

KEY, OLDER, FOREIGN = "a key of this mesh, long", "the key before it, long", "a key of somebody else"
WHERE = "a frame"
facts = st.lists(st.one_of(st.binary(max_size=20), st.text(max_size=20), st.integers()), max_size=5)
payloads = st.binary(max_size=300)


def problem(seal: Seal, sealed: bytes, *context: bytes | str | int) -> str:
    with pytest.raises(TamperedDataError) as caught:
        seal.open(sealed, *context, where=WHERE)
    assert caught.value.where == WHERE
    return caught.value.problem


@given(payload=payloads, context=facts)
def test_what_was_sealed_opens(payload: bytes, context: list[bytes | str | int]) -> None:
    sealed = Seal([KEY]).seal(payload, *context)
    assert len(sealed) == len(payload) + SEAL_BYTES
    assert Seal([KEY]).open(sealed, *context, where=WHERE) == payload


@given(payload=payloads, context=facts, chosen=st.data())
def test_every_bit_counts(payload: bytes, context: list[bytes | str | int], chosen: st.DataObject) -> None:
    sealed = bytearray(Seal([KEY]).seal(payload, *context))
    place = chosen.draw(st.integers(0, 8 * len(sealed) - 1))
    sealed[place // 8] ^= 1 << place % 8
    assert problem(Seal([KEY]), bytes(sealed), *context)


@given(payload=payloads, ours=facts, theirs=facts)
def test_opens_only_where_it_belongs(
    payload: bytes, ours: list[bytes | str | int], theirs: list[bytes | str | int]
) -> None:
    sealed = Seal([KEY]).seal(payload, *ours)
    if [*map(type, ours), *ours] == [*map(type, theirs), *theirs]:
        assert Seal([KEY]).open(sealed, *theirs, where=WHERE) == payload
    else:
        assert "another place" in problem(Seal([KEY]), sealed, *theirs)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("run", "stream"), ("stream", "run")),
        (("ab", "c"), ("a", "bc")),
        (("ab",), ("a", "b")),
        (("1",), (1,)),
        (("a",), (b"a",)),
        ((1, 23), (12, 3)),
        ((), ("",)),
        (("",), ("", "")),
        ((-1,), (1,)),
    ],
)
def test_contexts_that_look_alike_differ(ours: tuple[str | int, ...], theirs: tuple[str | int, ...]) -> None:
    assert "another place" in problem(Seal([KEY]), Seal([KEY]).seal(b"value", *ours), *theirs)


@given(payload=st.binary(min_size=1, max_size=60), context=facts)
def test_the_context_does_not_run_into_the_payload(payload: bytes, context: list[bytes | str | int]) -> None:
    sealed = Seal([KEY]).seal(payload, *context)
    assert problem(Seal([KEY]), sealed[1:], *context, payload[:1])
    assert problem(Seal([KEY]), payload[:1] + sealed, *context)


def test_a_key_is_changed_while_services_run() -> None:
    old, both, turned, new = Seal([OLDER]), Seal([OLDER, KEY]), Seal([KEY, OLDER]), Seal([KEY])
    steps = [(old, both), (both, turned), (turned, new)]
    for before, after in steps:
        for writer, reader in ((before, after), (after, before)):
            assert reader.open(writer.seal(b"value", "run"), "run", where=WHERE) == b"value"
    assert "not among the `signing_keys=`" in problem(new, old.seal(b"value", "run"), "run")


def test_problems_are_told_apart() -> None:
    seal, sealed = Seal([KEY]), Seal([KEY]).seal(b"value", "run")
    assert "too short" in problem(seal, sealed[: SEAL_BYTES - 1], "run")
    assert "too short" in problem(seal, b"", "run")
    assert "not signed, or with a key" in problem(seal, b"value" * 10, "run")
    assert "not signed, or with a key" in problem(seal, Seal([FOREIGN]).seal(b"value", "run"), "run")
    assert "changed" in problem(seal, b"other" + sealed[-SEAL_BYTES:], "run")
    assert "another place" in problem(seal, sealed, "other run")


def test_an_id_does_not_tell_the_key_and_a_name_of_another_key_does_not_help() -> None:
    seal, sealed = Seal([KEY, OLDER]), bytearray(Seal([FOREIGN]).seal(b"value"))
    sealed[-SEAL_BYTES:-16] = bytes.fromhex(seal.key_ids[0])
    assert "does not fit" in problem(seal, bytes(sealed))
    assert len(set(seal.key_ids)) == 2
    assert KEY not in repr(seal)


@pytest.mark.parametrize("keys", [[], [""], [KEY, ""], KEY])
def test_refuses_what_is_no_list_of_keys(keys: list[str] | str) -> None:
    with pytest.raises(ConfigurationError):
        Seal(keys)


def test_without_keys_bytes_go_through_as_they_are() -> None:
    payload = b"any bytes"
    none = sealing_of(())
    assert isinstance(none, NoSeal)
    assert none.size_bytes == 0
    assert none.seal(payload, "run") is payload
    assert none.open(payload, "run", where=WHERE) is payload
    assert isinstance(sealing_of([KEY]), Seal)
    assert sealing_of([KEY]).size_bytes == SEAL_BYTES


def test_a_large_value_is_sealed_too() -> None:
    payload = bytes(range(256)) * 4096
    assert Seal([KEY]).open(Seal([KEY]).seal(payload, "run"), "run", where=WHERE) == payload


def test_it_holds_where_assertions_are_left_out() -> None:
    program = dedent(f"""
        from datamesh.codec.seal import Seal
        from datamesh.errors import TamperedDataError
        assert False, "assertions are on"
        seal, refused = Seal([{KEY!r}]), 0
        sealed = seal.seal(b"value", "run", 3)
        for at in range(8 * len(sealed)):
            broken = bytearray(sealed)
            broken[at // 8] ^= 1 << at % 8
            try:
                seal.open(bytes(broken), "run", 3, where="here")
            except TamperedDataError:
                refused += 1
        for other in (("run", 4), ("run",), (3, "run"), ()):
            try:
                seal.open(sealed, *other, where="here")
            except TamperedDataError:
                refused += 1
        print(refused, seal.open(sealed, "run", 3, where="here"))
    """)
    done = subprocess.run([sys.executable, "-O", "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.split() == [str(8 * (5 + SEAL_BYTES) + 4), "b'value'"]
