"""Arrays: numpy arrays and scalars and torch tensors, as a dtype, a shape and a raw buffer.

An array's body is `meta length, head length` (big-endian 16 bits each), the meta (msgpack: dtype and shape), padding,
and at the head's length the elements in C order. The padding puts the elements where they are aligned to 16 bytes in
the bytes that a reader has, so that it can use them where they lie.

Neither library is imported before a value needs it. Tensors travel over the CPU and without their gradients.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgpack

from datamesh.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np

_HEAD: Final = struct.Struct(">HH")
_ALIGNMENT: Final = 16
_DTYPE: Final = re.compile(r"[<>|][biufcSUVmM][0-9]+(\[[0-9]*[a-zA-Z]+\])?")
_TORCH_DTYPE: Final = re.compile(r"[a-z][a-z0-9_]*")

STANDALONE_HEADER_BYTES: Final = 6
"""What stands before the body of an array that is a whole value: an ext header with a 32-bit length."""


class Unsendable(Exception):
    """An object has no form on the wire; carries its type and what to do."""

    def __init__(self, kind: type, problem: str) -> None:
        self.kind = kind
        self.problem = problem
        super().__init__(kind, problem)


@dataclass(frozen=True, slots=True)
class RawArray:
    """An array taken apart: what its bytes mean, and the bytes, not copied."""

    dtype: Any
    shape: tuple[int, ...]
    buffer: memoryview | bytes
    kind: type

    def joined(self) -> bytes:
        """Return the body as it stands inside other objects."""
        return b"".join((self.head(0), self.buffer))

    def head(self, offset: int) -> bytes:
        """Return what stands before the elements, for a body that begins at `offset` of the reader's bytes.

        Raises:
            Unsendable: The dtype takes more than 64 KiB to describe.
        """
        meta: bytes = msgpack.packb([self.dtype, self.shape])
        bare = _HEAD.size + len(meta)
        size = bare + -(bare + offset) % _ALIGNMENT
        if size > 0xFFFF:
            raise Unsendable(self.kind, "its dtype is too long: send its columns one by one")
        return (_HEAD.pack(len(meta), size) + meta).ljust(size, b"\0")


def _taken_apart(body: bytes | memoryview) -> tuple[Any, list[int], memoryview]:
    view = memoryview(body)
    meta_bytes, head_bytes = _HEAD.unpack_from(view)
    dtype, shape = msgpack.unpackb(view[_HEAD.size : _HEAD.size + meta_bytes])
    if not isinstance(shape, list) or any(type(length) is not int or length < 0 for length in shape):
        raise ValueError("an array's shape is not a list of lengths")
    return dtype, shape, view[head_bytes:]


def _check_size(shape: list[int], itemsize: int, buffer: memoryview) -> None:
    if math.prod(shape) * itemsize != len(buffer):
        raise ValueError(f"an array of shape {shape} and {itemsize} bytes an element has {len(buffer)} bytes")


@contextmanager
def _installed(library: str) -> Iterator[None]:
    try:
        yield
    except ImportError as exc:
        raise ConfigurationError(
            f"a value is made with {library}, which cannot be imported here ({exc}): install it where values of this "
            "stream are read"
        ) from exc


# --------------------------------------------------------------------------------------------------- numpy


def from_numpy(array: np.ndarray[Any, Any]) -> RawArray:
    """Take a numpy array apart.

    Raises:
        Unsendable: Its class or its dtype means more than the bytes say (masked arrays, objects, custom dtypes).
    """
    import numpy as np

    kind = type(array)
    if kind not in (np.ndarray, np.memmap):
        raise Unsendable(
            kind, "what the class adds would be lost: send `numpy.asarray(...)` of it and the rest beside it"
        )
    form = _dtype_to_wire(array.dtype, kind)
    flat = np.asarray(array, order="C").reshape(-1)
    buffer = flat.view(np.uint8).data if flat.nbytes else b""
    return RawArray(form, array.shape, buffer, kind)


def from_numpy_scalar(scalar: np.generic) -> RawArray:
    """Take a numpy scalar apart, as an array of no dimensions.

    Raises:
        Unsendable: As for arrays.
    """
    import numpy as np

    array = np.asarray(scalar)
    return RawArray(_dtype_to_wire(array.dtype, type(scalar)), (), array.tobytes(), type(scalar))


def _dtype_to_wire(dtype: np.dtype[Any], kind: type) -> Any:
    form = None if dtype.hasobject or not dtype.itemsize else _described(dtype)
    if form is None:
        fix = "`.tolist()`" if dtype.hasobject else '`.view("u1")` or another dtype'
        raise Unsendable(kind, f"its dtype {dtype} has no raw form: send {fix}")
    return form


def _described(dtype: np.dtype[Any]) -> Any:
    try:
        form = dtype.str if dtype.names is None else dtype.descr
        return form if _dtype_from_wire(form) == dtype else None
    except (TypeError, ValueError):  # a layout that numpy itself cannot describe
        return None


def _dtype_from_wire(form: Any) -> np.dtype[Any]:
    import numpy as np

    return np.lib.format.descr_to_dtype(_checked_form(form))


def _checked_form(form: Any) -> Any:
    if not isinstance(form, str):
        return [_checked_field(*field) for field in form]
    if not _DTYPE.fullmatch(form):
        raise ValueError("an array's dtype is none of the plain ones")
    return form


def _checked_field(name: Any, form: Any, shape: Any = ()) -> tuple[Any, ...]:
    titled = tuple(name) if isinstance(name, list) else name
    return (titled, _checked_form(form), tuple(shape)) if shape else (titled, _checked_form(form))


def to_numpy(body: bytes | memoryview) -> np.ndarray[Any, Any]:
    """Put a numpy array together over the bytes themselves: it is read-only and keeps them alive.

    Raises:
        ConfigurationError: numpy is not installed.
        ValueError: The body is none that `from_numpy` gives.
    """
    with _installed("numpy"):
        import numpy as np
    form, shape, buffer = _taken_apart(body)
    dtype = _dtype_from_wire(form)
    _check_size(shape, dtype.itemsize, buffer)
    if dtype.hasobject:
        raise ValueError("an array's dtype has objects")
    array = np.frombuffer(buffer, dtype) if len(buffer) else np.empty(0, dtype)
    array = array.reshape(shape)
    array.flags.writeable = False
    return array


def to_numpy_scalar(body: bytes | memoryview) -> Any:
    """Put a numpy scalar together.

    Raises:
        ConfigurationError: numpy is not installed.
        ValueError: The body is none that `from_numpy_scalar` gives.
    """
    array = to_numpy(body)
    if array.shape != ():
        raise ValueError("a scalar has a shape")
    return array[()]


# --------------------------------------------------------------------------------------------------- torch


def from_torch(tensor: Any) -> RawArray:
    """Take a torch tensor apart; one on a GPU is copied to the CPU.

    Raises:
        Unsendable: It is no dense tensor of numbers.
    """
    import torch

    kind = type(tensor)
    if kind not in (torch.Tensor, torch.nn.Parameter):
        raise Unsendable(kind, "what the class adds would be lost: send a plain tensor")
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta or tensor.is_nested:
        raise Unsendable(kind, "it is not dense: send `.to_dense()` or `.dequantize()` of it")
    dense = tensor.detach().resolve_conj().resolve_neg().cpu().contiguous()
    # numpy has no bfloat16 and no float8, so the elements cross over as bytes.
    buffer = dense.reshape(-1).view(torch.uint8).numpy().data if dense.numel() else b""
    return RawArray(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), buffer, kind)


def to_torch(body: bytes | memoryview) -> Any:
    """Put a tensor together on the CPU; copied, since torch has no read-only tensors.

    Raises:
        ConfigurationError: torch is not installed.
        ValueError: The body is none that `from_torch` gives.
    """
    with _installed("torch"):
        import torch
    name, shape, buffer = _taken_apart(body)
    # Not by getattr: torch imports some of its modules when they are named.
    dtype = vars(torch).get(name) if isinstance(name, str) and _TORCH_DTYPE.fullmatch(name) else None
    if not isinstance(dtype, torch.dtype):
        raise ValueError("a tensor's dtype is none that this torch has")
    _check_size(shape, dtype.itemsize, buffer)
    if not len(buffer):
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(buffer), dtype=dtype).reshape(shape)
