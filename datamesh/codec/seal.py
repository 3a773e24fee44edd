"""Seal: bytes with a proof of who wrote them and for which place, for meshes whose services share a secret.

A sealed payload is `payload, key id (4 bytes), MAC (16 bytes)`. The MAC covers the payload and its context: the facts
that say where it belongs, so that bytes that were copied to another place are refused as well. Nothing is encrypted.

Source:
    Keyed BLAKE2b with a person string (RFC 7693) takes the place of HMAC: it is a MAC by itself, at twice the speed.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from typing import Final, Protocol

from datamesh.errors import ConfigurationError, TamperedDataError

Fact = bytes | str | int
"""A part of a context."""

ID_BYTES: Final = 4
MAC_BYTES: Final = 16
SEAL_BYTES: Final = ID_BYTES + MAC_BYTES
"""What a seal adds to a payload."""

_MAC_PERSON: Final = b"datamesh.mac.1"
_KEY_PERSON: Final = b"datamesh.key.1"
_ID_PERSON: Final = b"datamesh.id.1"
_LENGTH_BYTES: Final = 8


class Sealing(Protocol):
    """Puts a seal on what is written, and looks at it when it is read."""

    @property
    def size_bytes(self) -> int:
        """How many bytes it adds."""
        ...

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Names of its keys, safe to show."""
        ...

    def seal(self, payload: bytes, *context: Fact) -> bytes:
        """Return `payload` with its seal.

        Args:
            payload: Any bytes.
            context: Where they belong; whoever reads them gives the same facts, of the same types, in the same order.
        """
        ...

    def open(self, sealed: bytes, *context: Fact, where: str) -> bytes:
        """Return what `seal` was given.

        Args:
            sealed: As it was read.
            context: Where it was read.
            where: The same in words, for the error.

        Raises:
            TamperedDataError: It was not sealed with a key that is known here, for this context.
        """
        ...


class Seal:
    """Signs with the first key and accepts any, so that a key can be changed while services run.

    Add the new key at the end everywhere, then move it to the front everywhere, then take the old one away.

    Args:
        keys: Secret texts, at least one. Each should hold 128 random bits or more: whoever reads Redis sees what is
            signed, and may try out weak keys.

    Raises:
        ConfigurationError: There is none, or one is empty.
    """

    size_bytes = SEAL_BYTES

    def __init__(self, keys: Sequence[str]) -> None:
        if isinstance(keys, str) or not keys or not all(keys):
            raise ConfigurationError("signing_keys needs a list of texts, none of them empty")
        self._keys = tuple(_Key(key) for key in dict.fromkeys(keys))

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Names of the keys, in their order, safe to show: 8 hex digits each."""
        return tuple(key.id.hex() for key in self._keys)

    def seal(self, payload: bytes, *context: Fact) -> bytes:
        key = self._keys[0]
        return b"".join((payload, key.id, key.mac(payload, context)))

    def open(self, sealed: bytes, *context: Fact, where: str) -> bytes:
        if len(sealed) < SEAL_BYTES:
            raise TamperedDataError(
                where=where, problem="it is too short to be signed: it was cut, or written without `signing_keys=`"
            )
        view = memoryview(sealed)
        payload, key_id, mac = view[:-SEAL_BYTES], bytes(view[-SEAL_BYTES:-MAC_BYTES]), bytes(view[-MAC_BYTES:])
        candidates = [key for key in self._keys if key.id == key_id]
        if not candidates:
            raise TamperedDataError(
                where=where, problem="it is not signed, or with a key that is not among the `signing_keys=` here"
            )
        if not any(hmac.compare_digest(key.mac(payload, context), mac) for key in candidates):
            raise TamperedDataError(
                where=where, problem="its signature does not fit: it was changed, or was written for another place"
            )
        return bytes(payload)

    def __repr__(self) -> str:
        return f"Seal({', '.join(self.key_ids)})"


class NoSeal:
    """What a mesh without keys uses: bytes go through as they are."""

    size_bytes = 0
    key_ids: tuple[str, ...] = ()

    def seal(self, payload: bytes, *context: Fact) -> bytes:
        return payload

    def open(self, sealed: bytes, *context: Fact, where: str) -> bytes:
        return sealed

    def __repr__(self) -> str:
        return "NoSeal()"


def sealing_of(keys: Sequence[str]) -> Sealing:
    """Return what seals with these keys; without any, nothing does."""
    return Seal(keys) if keys else NoSeal()


class _Key:
    """One key, ready: its id, and the state of the hash after it."""

    __slots__ = ("_state", "id")

    def __init__(self, text: str) -> None:
        secret = text.encode("utf-8", "surrogatepass")
        self.id = hashlib.blake2b(secret, digest_size=ID_BYTES, person=_ID_PERSON).digest()
        key = hashlib.blake2b(secret, person=_KEY_PERSON).digest()
        self._state = hashlib.blake2b(key=key, digest_size=MAC_BYTES, person=_MAC_PERSON)

    def mac(self, payload: bytes | memoryview, context: Sequence[Fact]) -> bytes:
        state = self._state.copy()
        state.update(_encoded(context))
        state.update(payload)
        return state.digest()


def _encoded(context: Sequence[Fact]) -> bytes:
    """A form that no other context has, and that none begins with: each part has its type and its length in front."""
    parts = [len(context).to_bytes(_LENGTH_BYTES, "big")]
    for fact in context:
        kind, body = _part(fact)
        parts += (kind, len(body).to_bytes(_LENGTH_BYTES, "big"), body)
    return b"".join(parts)


def _part(fact: Fact) -> tuple[bytes, bytes]:
    if isinstance(fact, str):
        return b"s", fact.encode("utf-8", "surrogatepass")
    if isinstance(fact, int):
        return b"i", str(int(fact)).encode()
    return b"b", bytes(fact)
