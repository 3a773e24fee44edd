"""Tasks: what may be declared, how implementations are registered, and the short form."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest

from datamesh.errors import ConfigurationError, DependencyError
from datamesh.model.contracts import Types, fits, type_text
from datamesh.model.declare import TaskFunction, task
from datamesh.model.io import IO
from datamesh.model.registry import DuplicateImplementationWarning, Registry, registry
from datamesh.model.task import RenamedTask, Task
from datamesh.model.values import IOVal


class Marker:
    """A dependency marker of somebody else, as FastAPI's is to datamesh."""

    def __init__(self, dependency: Callable[..., Any]) -> None:
        self.dependency = dependency


class Context:
    """Stands for the class that the model knows by its name and module only."""


Context.__module__ = "datamesh.depends.context"


@pytest.fixture(autouse=True)
def own_registry() -> Iterator[Registry]:
    with registry.isolated(empty=True) as isolated:
        isolated.compiler = None
        yield isolated


# ------------------------------------------------------------------------------------------------ declaration


@pytest.mark.parametrize("names", ["foo", ["foo"], ("foo",), {"foo"}, frozenset({"foo"}), {"foo": int}])
def test_names_may_be_declared_in_every_form(names: Any) -> None:
    declared = Task("t", names, names)
    assert declared.inputs == declared.outputs == ("foo",)


def test_names_may_come_out_of_an_iterator() -> None:
    assert Task("t", (name for name in ("b", "a"))).inputs == ("b", "a")


def test_sets_are_taken_in_alphabetical_order() -> None:
    assert Task("t", {"c", "a", "b"}).inputs == ("a", "b", "c")


def test_types_are_kept_where_they_are_declared() -> None:
    declared = Task(name="t", inputs={"foo": int, "bar": list[str]}, outputs=["baz"])
    assert declared.input_types == {"foo": int, "bar": list[str]}
    assert declared.output_types == {}


def test_a_task_is_a_value() -> None:
    one, same, other = (Task("t", {"foo": kind}, "bar") for kind in (int, int, str))
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert len({one, same, other}) == 2


def test_a_task_with_a_type_that_has_no_hash_is_hashable() -> None:
    assert Task("t", {"foo": Annotated[int, []]}) in {Task("t", {"foo": Annotated[int, []]})}


def test_a_task_cannot_be_changed() -> None:
    declared = Task("t")
    with pytest.raises(dataclasses.FrozenInstanceError):
        declared.name = "u"  # type: ignore[misc]
    with pytest.raises(TypeError):
        declared.input_types["foo"] = int  # type: ignore[index]


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(TypeError, match="input"):
        Task("t", input=["foo"])  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a b"}, "'a b' cannot be the name of a task"),
        ({"name": ""}, "name of a task"),
        ({"name": "x" * 65}, "name of a task"),
        ({"inputs": ["fo o"]}, "'fo o' cannot be the name of a stream of task 't'"),
        ({"outputs": [3]}, "3 cannot be the name of a stream of task 't'"),
        ({"inputs": ["foo", "bar", "foo"]}, "input 'foo' is there twice"),
        ({"outputs": ["foo", "foo"]}, "output 'foo' is there twice"),
        ({"inputs": 5}, "inputs are 5"),
        ({"inputs": b"foo"}, "cannot be the name"),
        ({"version": 0}, "`version` is 0"),
        ({"version": True}, "`version` is True"),
        ({"version": "2"}, "`version` is '2'"),
        ({"wait": 1}, "`wait` is 1"),
        ({"description": None}, "`description` is None"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Task(**{"name": "t", **arguments})


def test_the_ref_tells_name_and_version() -> None:
    assert Task("t").ref == "t@1"
    assert Task("t", version=12).ref == "t@12"


def test_repr_shows_what_matters() -> None:
    assert repr(Task("t", "foo", ["bar"])) == "Task(name='t', inputs=['foo'], outputs=['bar'])"
    assert repr(Task("t", wait=True, version=2)) == "Task(name='t', inputs=[], outputs=[], wait=True, version=2)"


# --------------------------------------------------------------------------------------------------- renaming


def test_renaming_keeps_what_it_does_not_name() -> None:
    renamed = Task("t", ["a", "b"], ["c", "d"]).rename(inputs={"b": "x"}, outputs={"c": "y"})
    assert renamed.reads == (("a", "a"), ("b", "x"))
    assert renamed.writes == (("c", "y"), ("d", "d"))


def test_renaming_twice_goes_by_the_names_of_the_task() -> None:
    renamed = Task("t", "a", "b").rename(inputs={"a": "x"}).rename(inputs={"a": "y"}, outputs={"b": "z"})
    assert (renamed.reads, renamed.writes) == ((("a", "y"),), (("b", "z"),))


def test_outputs_can_be_swapped() -> None:
    assert Task("t", (), ["a", "b"]).rename(outputs={"a": "b", "b": "a"}).writes == (("a", "b"), ("b", "a"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": {"z": "x"}}, "there is no input 'z': its inputs are a, b"),
        ({"outputs": {"a": "x"}}, "there is no output 'a': its outputs are c, d"),
        ({"inputs": {"a": "x y"}}, "name of a stream"),
        ({"inputs": ["a"]}, "rename inputs by a mapping"),
        ({"outputs": {"c": "d"}}, "output stream 'd' is there twice"),
    ],
)
def test_renaming_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Task("t", ["a", "b"], ["c", "d"]).rename(**changes)


# ----------------------------------------------------------------------------------------------- registration


def test_a_decorated_function_is_returned_unchanged(own_registry: Registry) -> None:
    foobar = Task("foobar", "foo", "bar")

    def plain(foo: int) -> int:
        return foo + 1

    assert foobar(plain) is plain
    assert plain(1) == 2
    found = own_registry.get("foobar@1")
    assert found is not None
    assert (found.task, found.function, found.options, found.compiled) == (foobar, plain, {}, None)


def test_options_reach_the_registry(own_registry: Registry) -> None:
    @Task("t")(timeout=3, on_error="skip")
    def plain() -> None: ...

    @Task("u")()
    def other() -> None: ...

    assert [found.options for found in own_registry.implementations()] == [{"timeout": 3, "on_error": "skip"}, {}]


def test_registering_twice_warns_at_the_users_line_and_overrides(own_registry: Registry) -> None:
    declared = Task("t")

    @declared
    def first() -> None: ...

    with pytest.warns(
        DuplicateImplementationWarning, match=r"t@1 is implemented twice: .*second replaces .*first"
    ) as w:

        @declared
        def second() -> None: ...

    assert w[0].filename == __file__
    assert [found.function for found in own_registry.implementations()] == [second]


def test_versions_are_implemented_apart(own_registry: Registry) -> None:
    Task("t")(lambda: None)
    Task("t", version=2)(lambda: None)
    assert {found.task.ref for found in own_registry.implementations()} == {"t@1", "t@2"}


@pytest.mark.parametrize("arguments", [(5,), (print, print)])
def test_a_task_is_no_function_to_call(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigurationError, match="is a declaration"):
        Task("t")(*arguments)


def test_the_compiler_sees_each_registration(own_registry: Registry) -> None:
    Task("early")(print)
    own_registry.compiler = lambda task, function, options: (task.ref, function, options)
    Task("late")(timeout=1)(print)
    assert own_registry.bindings() == (("early@1", print, {}), ("late@1", print, {"timeout": 1}))


def test_what_the_compiler_refuses_is_not_registered(own_registry: Registry) -> None:
    def refuse(task: Task, function: Callable[..., Any], options: dict[str, Any]) -> Any:
        raise ConfigurationError("no")

    own_registry.compiler = refuse
    with pytest.raises(ConfigurationError, match="no"):
        Task("t")(print)
    assert own_registry.implementations() == own_registry.bindings() == ()


def test_isolation_brings_back_what_was_there(own_registry: Registry) -> None:
    Task("kept")(print)
    with own_registry.isolated() as inside:
        inside.compiler = lambda *_: "compiled"
        Task("gone")(print)
        assert len(inside.implementations()) == 2
    assert [found.task.name for found in own_registry.implementations()] == ["kept"]
    assert own_registry.compiler is None


# ------------------------------------------------------------------------------------------------- short form


def test_the_short_form_declares_and_implements(own_registry: Registry) -> None:
    @task(outputs="bar", wait=True, version=3, timeout=2)
    async def double(
        foo: IO[int],
        factor: Annotated[int, Marker(lambda: 2)],
        context: Context,
        maybe: Context | None,
        limit: int = 3,
    ) -> AsyncIterator[IOVal[int]]:
        """Double what comes in
        again and again.

        More of it.
        """
        yield IOVal("bar", 2)

    assert isinstance(double, TaskFunction)
    assert double.task == Task(
        "double",
        {"foo": int},
        {"bar": int},
        wait=True,
        version=3,
        description="Double what comes in again and again.",
    )
    found = own_registry.get("double@3")
    assert found is not None
    assert found.function is double.function
    assert found.options == {"timeout": 2}


def test_the_short_form_stands_alone_and_is_called_with_plain_values() -> None:
    @task
    def log(text: str, *, level: int) -> str:
        """Write a line."""
        return f"{level}: {text}"

    assert (log.name, log.inputs, log.outputs) == ("log", ("text", "level"), ())
    assert log("hello", level=3) == "3: hello"
    assert (log.__name__, log.__doc__) == ("log", "Write a line.")


def test_a_short_form_has_the_attributes_of_its_task() -> None:
    @task(name="other", inputs={"foo": float}, outputs=["a", "b"], description="d")
    def named(foo: int, bar: str = "") -> tuple[IOVal[int], ...]:
        return ()

    declared = named.task
    for attribute in (
        "name",
        "inputs",
        "outputs",
        "input_types",
        "output_types",
        "wait",
        "version",
        "description",
        "ref",
    ):
        assert getattr(named, attribute) == getattr(declared, attribute)
    assert declared == Task("other", {"foo": float}, ["a", "b"], description="d")
    assert isinstance(named.rename(inputs={"foo": "x"}), RenamedTask)


def _asynchronous() -> AsyncIterator[int]: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (int, {"bar": int}),
        (list[int], {"bar": list[int]}),
        (int | None, {"bar": int | None}),
        (IOVal[str], {"bar": str}),
        (None, {}),
        (IOVal, {}),
        (tuple[IOVal[int], IOVal[str]], {}),
        (IOVal[int] | None, {}),
        (Iterator[int], {}),
    ],
)
def test_the_type_of_a_single_output_is_that_of_the_return(annotation: Any, expected: dict[str, Any]) -> None:
    def returns() -> Any: ...

    returns.__annotations__["return"] = annotation
    assert task(outputs="bar")(returns).output_types == expected


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Iterator[int], {"bar": int}),
        (Iterator[IOVal[int]], {"bar": int}),
        (Iterator[IOVal[int] | IOVal[str]], {}),
        (Iterator, {}),
        (Any, {}),
    ],
)
def test_the_type_of_a_single_output_is_that_of_the_yields(annotation: Any, expected: dict[str, Any]) -> None:
    def yields() -> Any:
        yield 1

    yields.__annotations__["return"] = annotation
    assert task(outputs="bar")(yields).output_types == expected


def test_an_input_without_a_type_is_untyped() -> None:
    @task
    def untyped(foo, bar: IO):  # type: ignore[no-untyped-def,type-arg]
        """Take anything."""

    assert untyped.inputs == ("foo", "bar")
    assert untyped.input_types == {}


def test_a_batch_takes_lists_of_its_type() -> None:
    @task(batch=object())
    def many(foo: list[int]) -> None: ...

    assert many.input_types == {"foo": int}


def test_annotations_may_name_what_is_local_to_a_test() -> None:
    class Document: ...

    @task(outputs="out")
    def local(doc: Document) -> Document:
        return local(doc)

    assert local.input_types == {"doc": Document}
    assert local.output_types == {"out": Document}


def test_an_annotation_that_does_not_resolve_is_refused_with_its_parameter() -> None:
    with pytest.raises(DependencyError, match=r"'doc' of .*missing: .*'Missing' does not resolve") as caught:

        @task
        def missing(doc: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert caught.value.parameter == "doc"


@pytest.mark.parametrize("arguments", [("bar",), (print, print)])
def test_the_short_form_goes_over_one_function(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ConfigurationError, match="write `@task`"):
        task(*arguments)


@pytest.mark.parametrize("options", [{}, {"outputs": "bar"}])
def test_the_short_form_warns_at_the_users_line(options: dict[str, Any]) -> None:
    def twice() -> None: ...

    decorate: Any = task(**options) if options else task
    decorate(twice)
    with pytest.warns(DuplicateImplementationWarning) as caught:
        decorate(twice)
    assert caught[0].filename == __file__


# -------------------------------------------------------------------------------------------------- contracts


class _Animal: ...


class _Dog(_Animal): ...


@pytest.mark.parametrize(
    ("producer", "consumer", "expected"),
    [
        (int, int, True),
        (int, str, False),
        (Any, int, True),
        (int, Any, True),
        (int, object, True),
        (_Dog, _Animal, True),
        (_Animal, _Dog, False),
        (bool, int, True),
        (int, float, True),
        (bool, float, True),
        (float, int, False),
        (int, int | None, True),
        (int | None, int, False),
        (int | str, int | str | None, True),
        (None, int | None, True),
        (None, int, False),
        (Annotated[int, "x"], int, True),
        (str, Annotated[int, "x"], False),
        (list[int], list[int], True),
        (list[int], list[float], True),
        (list[int], list[str], False),
        (list[int], list, True),
        (list, list[int], True),
        (list[int], int, False),
        (dict[str, int], dict[str, str], False),
        (dict[str, int], dict[str, Any], True),
        (tuple[int, str], tuple[int, ...], False),
        (tuple[int, int], tuple[int, ...], True),
        (tuple[int, ...], tuple[int, int], True),
        (tuple[int, str], tuple[int], False),
        (tuple[int, ...], list[int], False),
        ("Forward", int, True),
        (Callable[[int], int], Callable[[str], int], True),
    ],
)
def test_types_fit(producer: Any, consumer: Any, expected: bool) -> None:
    assert fits(producer, consumer) is expected


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (int, "int"),
        (None, "None"),
        (_Dog, "_Dog"),
        (list[_Dog], "list[_Dog]"),
        (int | None, "int | None"),
        (Annotated[tuple[int, ...], "x"], "tuple[int, ...]"),
        (Any, "Any"),
        ("Forward", "Forward"),
    ],
)
def test_types_are_written_as_in_the_source(annotation: Any, text: str) -> None:
    assert type_text(annotation) == text


def test_types_print_as_a_mapping() -> None:
    assert repr(Types({"foo": int, "bar": list[str]})) == "{foo: int, bar: list[str]}"
