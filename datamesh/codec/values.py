"""ValueCodec: the values of one stream to frames and back, checked against the stream's declared type both ways."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from pydantic import Secret, SecretBytes, SecretStr, ValidationError

from datamesh.codec.annotation import compile_annotation
from datamesh.codec.blob import Blob, BlobRef
from datamesh.codec.ext import Lowering, plain_lowering
from datamesh.codec.frame import EncodedFrame, array_of, fits_inline
from datamesh.codec.limits import INLINE_LIMIT_BYTES, MAX_FRAME_VALUES, MAX_VALUE_BYTES, Limits, shape_problem
from datamesh.codec.problems import names_in, problem_text
from datamesh.codec.secrets import declares_secrets, note_secrets
from datamesh.codec.wire import pack, pack_ref, unpack, unpack_frame
from datamesh.errors import (
    ConfigurationError,
    InvalidValueError,
    PayloadTooLargeError,
    TamperedDataError,
    UnserializableValueError,
)
from datamesh.model.redaction import redacted_text

_SMALL: Final = frozenset({int, float, bool, type(None)})
_ATOMS: Final = _SMALL | {str, bytes}
_MAX_PROBLEMS: Final = 3
_PROBLEM_CHARACTERS: Final = 500


def _reveal(secret: Any) -> Any:
    return secret.get_secret_value()


# A secret is sent only by a stream that declares it, so that no reader gets one unawares as plain text.
_declared_lowering: Final = Lowering({SecretStr: _reveal, SecretBytes: _reveal, Secret: _reveal})


class ValueCodec:
    """Turns values of one type into frames and back. Built once per type; may be used from any thread.

    Checking follows pydantic's lax mode: `"3"` is accepted as an int and becomes one, `"abc"` is refused. A `float`
    may be `nan` or infinite, unless the annotation says `allow_inf_nan=False`. Fields travel under their names, not
    their aliases; computed and excluded fields stay behind, and so do fields that only a subclass declares. An enum's
    members travel as their values, so a `Literal` of such members can be read only if the enum is a `StrEnum` or
    `IntEnum`, and of a union of an enum and its values' type, the value comes back.

    Args:
        annotation: The declared type; `Any` for no checks on either side.
        max_value_bytes: Most bytes of one value, packed. At most 4 GiB - 1.
        where: Which stream or parameter it is, for errors.

    Raises:
        ContractMismatchError: No value of the type can be sent.
        ConfigurationError: `max_value_bytes` is out of its range.
    """

    def __init__(self, annotation: Any, *, max_value_bytes: int = MAX_VALUE_BYTES, where: str = "value") -> None:
        if not 1 <= max_value_bytes < 2**32:
            raise ConfigurationError(f"max_value_bytes is {max_value_bytes}: use a number from 1 to 4294967295")
        self._type = compile_annotation(annotation, where=where)
        self._lowering = plain_lowering if self._type.anything else _declared_lowering
        self._has_secrets = declares_secrets(self._type.adapter.core_schema)
        self._blob_limits = Limits.for_values(max_value_bytes)
        # What is checked against a type that is not recursive needs no look at its depth.
        self._frame_limits = Limits(max_bytes=INLINE_LIMIT_BYTES, max_depth=None if self._type.plain else 64)
        self.where = where

    @property
    def annotation(self) -> Any:
        """The type as it was declared."""
        return self._type.annotation

    @property
    def text(self) -> str:
        """Its short name, for messages."""
        return self._type.text

    @cached_property
    def schema(self) -> dict[str, Any]:
        """Its JSON schema: equal for types whose values have the same form. Not to be changed."""
        return self._type.schema()

    def __repr__(self) -> str:
        return f"ValueCodec({self.text})"

    # ---------------------------------------------------------------------------------------- Python's side

    def check(self, values: Sequence[Any]) -> list[Any]:
        """Return the values as the type wants them.

        Raises:
            InvalidValueError: One does not fit; `index` tells which.
        """
        if self._type.anything:
            return list(values)
        return self._checked(values if type(values) is list else list(values))

    def _checked(self, values: list[Any], **options: Any) -> list[Any]:
        try:
            checked = self._type.adapter.validate_python(values, **options)
        except ValidationError as exc:
            # Not chained: its text shows the value, and values don't belong in logs.
            raise self._invalid(values, exc) from None
        except Exception as exc:  # a validator is user code and raises what it likes
            raise self._refused(values, exc, options) from exc
        if self._has_secrets:
            note_secrets(checked)
        return checked

    def _invalid(self, values: list[Any], exc: ValidationError) -> InvalidValueError:
        errors = exc.errors(include_url=False)
        index = next((error["loc"][0] for error in errors if error["loc"]), None)
        problems = [problem_text(error, values, self._declared_names) for error in errors[:_MAX_PROBLEMS]]
        return InvalidValueError(
            where=self.where,
            expected=self.text,
            problem="; ".join(problems)[:_PROBLEM_CHARACTERS],
            index=index if isinstance(index, int) else None,
        )

    @cached_property
    def _declared_names(self) -> frozenset[str]:
        return names_in(self._type.adapter.core_schema)

    def _refused(self, values: list[Any], exc: Exception, options: dict[str, Any]) -> InvalidValueError:
        problem = redacted_text(f"a validator raised {type(exc).__name__}: {exc}")[:_PROBLEM_CHARACTERS]
        index = next((index for index, value in enumerate(values) if self._raises(value, options)), None)
        return InvalidValueError(where=self.where, expected=self.text, problem=problem, index=index)

    def _raises(self, value: Any, options: dict[str, Any]) -> bool:
        try:
            self._type.adapter.validate_python([value], **options)
        except Exception:  # again user code
            return True
        return False

    # ----------------------------------------------------------------------------------------------- encode

    def frames(self, values: Sequence[Any]) -> list[EncodedFrame]:
        """Check the values and cut them into frames, in order.

        Equal values give equal bytes in every process, so that a repeated task can be compared with its first attempt.

        Raises:
            InvalidValueError: One does not fit the type; `index` tells which.
            UnserializableValueError: One has no form on the wire.
            PayloadTooLargeError: One is over `max_value_bytes`.
        """
        objects = self._dumped(self.check(values))
        if 1 < len(objects) <= MAX_FRAME_VALUES:
            return self._framed(objects, 0)
        frames: list[EncodedFrame] = []
        for start in range(0, len(objects), MAX_FRAME_VALUES):
            frames += self._framed(objects[start : start + MAX_FRAME_VALUES], start)
        return frames

    def _dumped(self, values: list[Any]) -> list[Any]:
        if self._type.plain or (self._type.anything and _ATOMS.issuperset(map(type, values))):
            return values
        try:
            return self._dump(values)
        except Exception:  # a serializer is user code: find the value that it fails on
            return [self._dumped_alone(value, index) for index, value in enumerate(values)]

    def _dump(self, values: list[Any]) -> list[Any]:
        dumped: list[Any] = self._type.adapter.dump_python(values, round_trip=True, by_alias=False, warnings=False)
        return dumped

    def _dumped_alone(self, value: Any, index: int) -> Any:
        try:
            return self._dump([value])[0]
        except Exception as exc:
            problem = redacted_text(f"it cannot be taken apart ({type(exc).__name__}: {exc})")[:_PROBLEM_CHARACTERS]
            raise UnserializableValueError(
                where=self._place(index), type_name=type(value).__qualname__, problem=problem
            ) from exc

    def _framed(self, objects: list[Any], start: int) -> list[EncodedFrame]:
        if not self._type.plain and not _ATOMS.issuperset(map(type, objects)):
            self._check_shapes(objects, start)
        if self._is_light(objects):
            payload = self._packed(objects)
            if payload is not None and len(payload) <= min(INLINE_LIMIT_BYTES, self._blob_limits.max_bytes):
                return [EncodedFrame(start, len(objects), payload)]
        return self._cut(objects, start)

    def _check_shapes(self, objects: list[Any], start: int) -> None:
        if not shape_problem(objects, self._blob_limits):
            return
        for index, value in enumerate(objects, start):
            if problem := shape_problem([value], self._blob_limits):
                raise UnserializableValueError(
                    where=self._place(index), type_name=type(value).__qualname__, problem=f"{problem}: flatten it"
                )

    def _is_light(self, objects: list[Any]) -> bool:
        # Whether it pays to pack them all at once: the first one tells how large the others may be.
        first = objects[0]
        if len(objects) == 1 or type(first) in _SMALL:
            return len(objects) > 1
        if _weight(first) > INLINE_LIMIT_BYTES:
            return False
        sample = self._packed(first)
        return sample is not None and len(sample) * len(objects) <= 4 * INLINE_LIMIT_BYTES

    def _packed(self, value: Any) -> bytes | None:
        try:
            return pack(value, lowering=self._lowering)
        except UnserializableValueError:  # `_cut` packs them one by one and names the one
            return None

    def _cut(self, objects: list[Any], start: int) -> list[EncodedFrame]:
        frames: list[EncodedFrame] = []
        parts: list[bytes] = []
        blobs: list[Blob] = []
        room = 0
        for index, value in enumerate(objects, start):
            part, blob = self._part(value, index)
            if parts and not fits_inline(room + len(part)):
                frames.append(EncodedFrame(index - len(parts), len(parts), array_of(parts), tuple(blobs)))
                parts, blobs, room = [], [], 0
            parts.append(part)
            blobs += blob
            room += len(part)
        frames.append(EncodedFrame(start + len(objects) - len(parts), len(parts), array_of(parts), tuple(blobs)))
        return frames

    def _part(self, value: Any, index: int) -> tuple[bytes, tuple[Blob, ...]]:
        limits, where = self._blob_limits, self._place(index)
        weight = _weight(value)
        if weight <= limits.max_bytes:
            packed = pack(value, where=where, lowering=self._lowering)
            weight = len(packed)
        if weight > limits.max_bytes:
            raise PayloadTooLargeError(where=where, size_bytes=weight, limit_bytes=limits.max_bytes)
        if fits_inline(weight):
            return packed, ()
        if weight > limits.max_nodes and (problem := shape_problem(value, limits)):
            advice = f"{problem}: send it as a numpy array or in pieces"
            raise UnserializableValueError(where=where, type_name=type(value).__qualname__, problem=advice)
        blob = Blob.of(packed)
        return pack_ref(blob.ref), (blob,)

    def _place(self, index: int) -> str:
        return f"{self.where} (value {index})"

    # ----------------------------------------------------------------------------------------------- decode

    def values(self, payload: bytes | memoryview, blobs: Mapping[str, bytes] | None = None) -> list[Any]:
        """Return the values of a frame, as the type says.

        Arrays are read-only and lie in `payload` or in their blob, without a copy where that is possible.

        Args:
            payload: The values block.
            blobs: What its references stand for, by digest.

        Raises:
            InvalidValueError: One does not fit the type; `index` tells which. `value_list_or_errors` gives the others.
            TamperedDataError: The bytes, or a blob's, are not what was written.
        """
        return self._read(self._objects(payload, blobs))

    def value_list_or_errors(
        self, payload: bytes | memoryview, blobs: Mapping[str, bytes] | None = None
    ) -> list[Any | InvalidValueError]:
        """Return for each value of a frame the value or, where it does not fit the type, the error.

        Slower than `values`: for a frame that it refused.

        Raises:
            TamperedDataError: The bytes, or a blob's, are not what was written.
        """
        return [self._value_or_error(value, index) for index, value in enumerate(self._objects(payload, blobs))]

    def _value_or_error(self, value: Any, index: int) -> Any | InvalidValueError:
        try:
            return self._read([value])[0]
        except InvalidValueError as exc:
            return InvalidValueError(where=exc.where, expected=exc.expected, problem=exc.problem, index=index)

    def _objects(self, payload: bytes | memoryview, blobs: Mapping[str, bytes] | None) -> list[Any]:
        objects, has_references = unpack_frame(payload, self._frame_limits, where=self.where)
        if has_references:
            return [
                self._fetched(value, blobs or {}, self._place(index)) if type(value) is BlobRef else value
                for index, value in enumerate(objects)
            ]
        return objects

    def _fetched(self, ref: BlobRef, blobs: Mapping[str, bytes], where: str) -> Any:
        body = blobs.get(ref.digest)
        if body is None:
            raise TamperedDataError(where=where, problem=f"its blob {ref.digest[:12]} is not there (any more)")
        ref.verify(body, where=where)
        return unpack(body, self._blob_limits, where=where)

    def _read(self, objects: list[Any]) -> list[Any]:
        if self._type.anything:
            return objects
        try:
            return self._checked(objects, by_alias=True, by_name=True)
        except InvalidValueError as exc:
            return self._read_strict(objects, exc)

    def _read_strict(self, objects: list[Any], refusal: InvalidValueError) -> list[Any]:
        # A strict type accepts no dict for a dataclass and no plain value for an enum, yet that is how those travel.
        # Read laxly, they are right if they would be sent as the same bytes again: then nothing was converted.
        try:
            values = self._checked(objects, by_alias=True, by_name=True, strict=False)
            if pack(self._dump(values), lowering=self._lowering) == pack(objects, lowering=self._lowering):
                return values
        except Exception:  # user code, and reading it strictly has told what is wrong with the values
            raise refusal from None
        raise refusal


def _weight(value: Any) -> int:
    """Bytes that it takes at least, where that is known without packing it."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    nbytes = getattr(value, "nbytes", 0)
    return nbytes if isinstance(nbytes, int) else 0


ANY: Final = ValueCodec(Any)
"""For readers that know no type: nothing is checked, and models come back as the dicts that they were sent as."""
