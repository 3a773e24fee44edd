"""Annotation: what a declared type says about its values, compiled once: how to check them, dump them and name them."""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, ForwardRef, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ConfigDict, FailFast, ImportString, TypeAdapter
from pydantic.errors import PydanticSchemaGenerationError
from pydantic.json_schema import GenerateJsonSchema
from pydantic.warnings import ArbitraryTypeWarning

from datamesh.codec.schemas import has_part_of
from datamesh.errors import ContractMismatchError

_ARRAYS: Final = frozenset({"numpy.ndarray", "numpy.generic", "torch.Tensor"})
_SCALARS: Final = frozenset(
    {"int", "float", "bool", "none", "str", "bytes", "date", "time", "datetime", "timedelta", "decimal", "fraction"}
    | {"uuid", "complex", "literal", "enum"}
)
_SINGLE: Final = frozenset({"list", "set", "frozenset", "deque"})
_MOMENTARY: Final = {"generator": "an iterator is used up once", "callable": "a function stays in its process"}
_IMPORTS: Final = "it imports what a sender names"
_LOOK_UP: Final = "Send a name, and look it up among those that you allow"
_SENDABLE: Final = "a type whose values can be sent"
_FIX: Final = (
    "Use plain types, a dataclass, a pydantic model, numpy or torch, "
    "or give the type `__get_pydantic_core_schema__` with a serializer"
)


@dataclass(frozen=True, slots=True)
class CompiledAnnotation:
    """A declared type, ready for use.

    Attributes:
        annotation: As it was declared.
        text: Its short name, for messages.
        adapter: Checks and dumps a list of its values in one call.
        anything: Nothing is declared: nothing is checked.
        plain: Checked values are sent as they are: they need no dump, and are nested no deeper than the type is.
    """

    annotation: Any
    text: str
    adapter: TypeAdapter[list[Any]]
    anything: bool
    plain: bool

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema; a type that has none stands in it as `{"x-python-type": name}`."""
        listed = self.adapter.json_schema(by_alias=False, schema_generator=_PythonTypesToo)
        definitions = {"$defs": listed["$defs"]} if "$defs" in listed else {}
        return {**listed.get("items", {}), **definitions}


def compile_annotation(annotation: Any, *, where: str) -> CompiledAnnotation:
    """Compile a type.

    Args:
        annotation: Any type that pydantic knows, or one of numpy or torch; `Any` for no checks. No forward reference.
        where: What is declared, for the error.

    Raises:
        ContractMismatchError: No value of the type can be checked, or sent.
    """
    text = type_text(annotation)
    if isinstance(annotation, (str, ForwardRef)):
        raise ContractMismatchError(
            where=where, expected=_SENDABLE, found=f"the text {text!r}", fix="Resolve the annotation before you pass it"
        )
    try:
        adapter, unknown = _adapter(annotation)
    except Exception as exc:  # pydantic has many, and types may run code of their own
        problem = str(exc).partition("\n")[0]
        raise ContractMismatchError(where=where, expected=_SENDABLE, found=f"{text} ({problem})", fix=_FIX) from exc
    if unknown:
        names = ", ".join(map(type_text, unknown))
        found = text if names == text else f"{text}, with {names} in it"
        raise ContractMismatchError(where=where, expected=_SENDABLE, found=found, fix=_FIX)
    if has_part_of(adapter.core_schema, ImportString):
        raise ContractMismatchError(where=where, expected=_SENDABLE, found=f"{text}: {_IMPORTS}", fix=_LOOK_UP)
    item = _item_schema(adapter)
    for problem in filter(None, (_MOMENTARY.get(part["type"]) for part in _parts(item))):
        raise ContractMismatchError(where=where, expected=_SENDABLE, found=f"{text}: {problem}", fix="Use a `list`")
    return CompiledAnnotation(annotation, text, adapter, annotation in (Any, object), _is_plain(item))


# -------------------------------------------------------------------------------------------------- adapter


def _adapter(annotation: Any) -> tuple[TypeAdapter[list[Any]], list[type]]:
    # Classes that pydantic does not know are let in by `isinstance` only, and of those only arrays can be sent.
    listed: Any = Annotated[list[annotation], FailFast()]
    try:
        return _completed(listed, None), []
    except PydanticSchemaGenerationError:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ArbitraryTypeWarning)
            adapter = _completed(listed, ConfigDict(arbitrary_types_allowed=True))
    classes = dict.fromkeys(_instance_classes(adapter.core_schema))
    return adapter, [cls for cls in classes if not _is_array(cls) and not _is_known(cls)]


def _completed(listed: Any, config: ConfigDict | None) -> TypeAdapter[list[Any]]:
    adapter: TypeAdapter[list[Any]] = TypeAdapter(listed, config=config)
    if not adapter.pydantic_complete:
        adapter.rebuild(force=True, raise_errors=True)
    return adapter


def _instance_classes(schema: Any) -> Iterator[type]:
    if isinstance(schema, (list, tuple)):
        for part in schema:
            yield from _instance_classes(part)
    elif isinstance(schema, dict):
        if schema.get("type") == "is-instance":
            yield schema["cls"]
        for key, part in schema.items():
            if key not in ("metadata", "serialization", "config"):
                yield from _instance_classes(part)


def _is_array(cls: Any) -> bool:
    return isinstance(cls, type) and any(f"{base.__module__}.{base.__qualname__}" in _ARRAYS for base in cls.__mro__)


def _is_known(cls: Any) -> bool:
    try:
        TypeAdapter(cls)
    except PydanticSchemaGenerationError:
        return False
    return True


# --------------------------------------------------------------------------------------------------- schema


def _item_schema(adapter: TypeAdapter[list[Any]]) -> Mapping[str, Any]:
    listed: Mapping[str, Any] = adapter.core_schema
    return listed.get("items_schema", {"type": "any"}) if listed["type"] == "list" else listed


def _parts(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for part in _inside(schema):
        yield from _parts(part)


def _inside(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    kind, unknown = schema["type"], {"type": "any"}
    if kind in _SINGLE:
        return [schema.get("items_schema", unknown)]
    if kind == "dict":
        return [schema.get("keys_schema", unknown), schema.get("values_schema", unknown)]
    if kind == "tuple":
        return list(schema["items_schema"])
    if kind == "nullable":
        return [schema["schema"]]
    if kind == "union":
        return [choice[0] if isinstance(choice, tuple) else choice for choice in schema["choices"]]
    return []


def _is_plain(schema: Mapping[str, Any]) -> bool:
    return all(
        "serialization" not in part
        and (part["type"] in _SCALARS or bool(_inside(part)) or part.get("items_schema") == [])
        for part in _parts(schema)
    )


class _PythonTypesToo(GenerateJsonSchema):
    def emit_warning(self, kind: Any, detail: str) -> None:
        """Keep quiet: what has no JSON form has a wire form all the same."""

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        return {"x-python-type": type_text(schema["cls"]) if "cls" in schema else schema["type"]}


# ----------------------------------------------------------------------------------------------------- text


def type_text(annotation: Any) -> str:
    """Return the short name of a type: `list[int]`, `Document | None`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin in (Union, types.UnionType):
        return " | ".join(map(type_text, arguments))
    if origin is not None:
        return f"{type_text(origin)}[{', '.join(map(_argument_text, arguments))}]"
    if annotation in (None, types.NoneType):
        return "None"
    if isinstance(annotation, TypeVar):
        return annotation.__name__
    return getattr(annotation, "__qualname__", str(annotation)).rpartition("<locals>.")[2].removeprefix("typing.")


def _argument_text(argument: Any) -> str:
    if isinstance(argument, list):
        return f"[{', '.join(map(type_text, argument))}]"
    return "..." if argument is ... else type_text(argument)
