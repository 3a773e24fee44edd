"""Blob: a packed value too large for a frame, stored beside it; BlobRef: what stands for it inside the frame."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from datamesh.errors import TamperedDataError

_LAYOUT: Final = struct.Struct(">32sQ")

REF_BODY_BYTES: Final = _LAYOUT.size


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Where a large value is, and how to tell that it is the one.

    Attributes:
        digest: SHA-256 of the packed value, 64 lower-case hex digits.
        size_bytes: Length of the packed value.
    """

    digest: str
    size_bytes: int

    def pack(self) -> bytes:
        """Return the fixed-length body that an ext object on the wire carries."""
        return _LAYOUT.pack(bytes.fromhex(self.digest), self.size_bytes)

    @classmethod
    def unpack(cls, body: bytes) -> BlobRef:
        """Read what `pack` wrote.

        Raises:
            struct.error: It is of another length.
        """
        digest, size_bytes = _LAYOUT.unpack(body)
        return cls(digest.hex(), size_bytes)

    def verify(self, body: bytes, *, where: str) -> None:
        """Refuse a body that is not the one this stands for.

        Raises:
            TamperedDataError: Its length or its hash differs.
        """
        if len(body) != self.size_bytes:
            raise TamperedDataError(
                where=where, problem=f"blob {self.digest[:12]} has {len(body)} bytes instead of {self.size_bytes}"
            )
        if hashlib.sha256(body).hexdigest() != self.digest:
            raise TamperedDataError(
                where=where, problem=f"blob {self.digest[:12]} has another content than was written"
            )


@dataclass(frozen=True, slots=True)
class Blob:
    """A packed value on its way to the store.

    Attributes:
        digest: SHA-256 of `body`, 64 lower-case hex digits: its name in the store.
        size_bytes: Length of `body`.
        body: The packed value.
    """

    digest: str
    size_bytes: int
    body: bytes

    @classmethod
    def of(cls, body: bytes) -> Blob:
        """Name `body` by its hash."""
        return cls(hashlib.sha256(body).hexdigest(), len(body), body)

    @property
    def ref(self) -> BlobRef:
        """What stands for it in a frame."""
        return BlobRef(self.digest, self.size_bytes)
