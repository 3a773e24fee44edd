"""Flows: how tasks are wired and named, and what resolving refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from datamesh.errors import (
    ConfigurationError,
    ContractMismatchError,
    CyclicFlowError,
    DuplicateIOError,
    UnresolvedFlowError,
)
from datamesh.model.declare import task
from datamesh.model.flow import Flow
from datamesh.model.graph import cycles, levels
from datamesh.model.registry import registry
from datamesh.model.task import Task


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    with registry.isolated():
        registry.compiler = None
        yield


def diamond() -> Flow:
    return Flow.from_tasks(
        Task("split", "docs", "chunk"),
        Task("embed", "chunk", "vector"),
        Task("tag", "chunk", "label"),
        Task("join", ["vector", "label"], "index"),
        name="diamond",
    )


# ----------------------------------------------------------------------------------------------------- wiring


def test_tasks_are_wired_by_the_names_of_streams() -> None:
    flow = diamond()
    assert flow.inputs == ("docs",)
    assert flow.outputs == ("index",)
    assert set(flow.streams) == {"docs", "chunk", "vector", "label", "index"}
    assert [found.name for found in flow.tasks] == ["split", "embed", "tag", "join"]


def test_resolving_returns_the_flow_and_may_be_repeated() -> None:
    flow = diamond()
    assert not flow.is_resolved
    assert flow.resolve() is flow
    plan = flow.plan
    assert flow.resolve().plan is plan
    assert flow.is_resolved


@pytest.mark.parametrize("use", ["plan", "execution_plan", "topology", "to_mermaid", "to_dot"])
def test_an_unresolved_flow_is_refused_by_its_name(use: str) -> None:
    with pytest.raises(UnresolvedFlowError, match="'diamond' is not resolved"):
        getattr(diamond(), use)()


def test_an_unresolved_flow_is_not_drawn(tmp_path: Any) -> None:
    with pytest.raises(UnresolvedFlowError):
        diamond().visualize(tmp_path / "flow.svg")


def test_functions_of_the_short_form_and_renamed_tasks_are_tasks() -> None:
    @task(outputs="b")
    def first(a: int) -> int:
        return a

    @task(outputs="c")
    def second(b: int) -> int:
        return b

    flow = Flow.from_tasks(first, second, second.rename(inputs={"b": "c"}, outputs={"c": "d"})).resolve()
    assert flow.tasks == (first.task, second.task)
    assert (flow.inputs, flow.outputs) == (("a",), ("d",))
    assert flow.plan.types == {"a": int, "b": int, "c": int, "d": int}


def test_a_task_that_comes_again_gets_a_number() -> None:
    copy = Task("copy", "a", "b")
    flow = Flow.from_tasks(
        copy,
        copy.rename(inputs={"a": "b"}, outputs={"b": "c"}),
        Task("copy-2", "c", "d"),
        copy.rename(inputs={"a": "d"}, outputs={"b": "e"}),
    ).resolve()
    assert [node.name for node in flow.plan.nodes] == ["copy", "copy-3", "copy-2", "copy-4"]
    assert [node.ref for node in flow.plan.nodes] == ["copy@1", "copy@1", "copy-2@1", "copy@1"]
    assert flow.plan.node("copy-4").inputs == (("a", "d"),)


def test_a_number_fits_into_the_longest_name() -> None:
    long = Task("x" * 64, "a", "b")
    flow = Flow.from_tasks(long, long.rename(outputs={"b": "c"})).resolve()
    assert [node.name for node in flow.plan.nodes] == ["x" * 62 + "-2", "x" * 64]


def test_two_inputs_may_read_one_stream() -> None:
    node = Flow.from_tasks(Task("t", ["a", "b"], "c").rename(inputs={"b": "a"})).resolve().plan.node("t")
    assert node.inputs == (("a", "a"), ("b", "a"))
    assert node.reads == ("a",)


@pytest.mark.parametrize(
    ("tasks", "name"),
    [([Task("a")], "a"), ([Task("a"), Task("b", version=2)], "a-b"), ([Task("a" * 40), Task("b" * 40)], "a" * 40)],
)
def test_a_flow_without_a_name_is_called_after_its_tasks(tasks: list[Task], name: str) -> None:
    assert Flow.from_tasks(*tasks).name == name


def test_repr_tells_tasks_and_state() -> None:
    flow = Flow.from_tasks(Task("a"), Task("b"), name="f")
    assert repr(flow) == "<Flow 'f' of a, b, not resolved>"
    assert repr(flow.resolve()) == "<Flow 'f' of a, b>"


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ((), "a flow needs a task"),
        (([Task("a"), Task("b")],), r"write `Flow.from_tasks\(\*tasks\)`"),
        ((print,), "made of tasks, not of <built-in function print>"),
        ((Task("a", "x"), Task("a", "y")), "two different tasks are called a@1"),
    ],
)
def test_what_is_no_flow_is_refused(tasks: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Flow.from_tasks(*tasks)


def test_a_flow_has_a_name_of_the_alphabet() -> None:
    with pytest.raises(ConfigurationError, match="name of a flow"):
        Flow.from_tasks(Task("a"), name="my flow")


def test_two_producers_of_a_stream_are_refused() -> None:
    flow = Flow.from_tasks(Task("a", "x", "z"), Task("b", "y", "z"))
    with pytest.raises(DuplicateIOError, match="'z' is produced by a, b") as caught:
        flow.resolve()
    assert (caught.value.stream, caught.value.producers) == ("z", ("a", "b"))
    assert not flow.is_resolved


def test_a_task_twice_under_the_same_streams_is_refused() -> None:
    with pytest.raises(DuplicateIOError):
        Flow.from_tasks(Task("a", "x", "z"), Task("a", "x", "z")).resolve()


def test_cycles_are_refused_shortest_first() -> None:
    flow = Flow.from_tasks(
        Task("outside", "in", "z"),
        Task("a", ["z", "ca", "ba"], "ab"),
        Task("b", "ab", ["bc", "ba"]),
        Task("c", "bc", "ca"),
        Task("self", "own", "own"),
        Task("behind", "own", "out"),
    )
    with pytest.raises(CyclicFlowError, match="self -> self; a -> b -> a; a -> b -> c -> a") as caught:
        flow.resolve()
    assert caught.value.cycles == (("self",), ("a", "b"), ("a", "b", "c"))


def test_types_that_do_not_fit_are_refused() -> None:
    flow = Flow.from_tasks(Task("a", "x", {"y": str}), Task("b", {"foo": int}).rename(inputs={"foo": "y"}))
    with pytest.raises(ContractMismatchError) as caught:
        flow.resolve()
    assert (caught.value.expected, caught.value.found) == ("int", "str")
    assert caught.value.where == "stream 'y', output 'y' of task 'a' and input 'foo' of task 'b'"


def test_types_of_one_name_are_told_apart() -> None:
    ones, others = (type("Document", (), {"__module__": module}) for module in ("ones", "others"))
    with pytest.raises(ContractMismatchError) as caught:
        Flow.from_tasks(Task("a", "x", {"y": ones}), Task("b", {"y": others})).resolve()
    assert (caught.value.expected, caught.value.found) == ("<class 'others.Document'>", "<class 'ones.Document'>")


def test_readers_of_an_input_that_no_value_satisfies_are_refused() -> None:
    with pytest.raises(ContractMismatchError, match="expected str, found int"):
        Flow.from_tasks(Task("a", {"x": int}), Task("b", {"x": str})).resolve()


@pytest.mark.parametrize("types", [(int, float), (float, int), (Any, int), (int, Any), (object, int)])
def test_an_input_has_the_type_that_satisfies_all_its_readers(types: tuple[Any, Any]) -> None:
    flow = Flow.from_tasks(Task("a", {"x": types[0]}), Task("b", {"x": types[1]}), Task("c", "x")).resolve()
    assert flow.plan.types == {"x": int}


def test_a_stream_has_the_type_of_its_producer() -> None:
    flow = Flow.from_tasks(Task("a", "x", {"y": int}), Task("b", {"y": float}, "z")).resolve()
    assert flow.plan.types == {"y": int}


# ------------------------------------------------------------------------------------------------------ graphs


def test_levels_are_longest_distances_and_end_at_cycles() -> None:
    edges = {"a": ["b", "d"], "b": ["c"], "c": ["d"], "d": [], "e": ["e", "f"], "f": []}
    assert levels(edges) == {"a": 0, "b": 1, "c": 2, "d": 3}


def test_all_cycles_of_a_complete_graph_are_found_once() -> None:
    nodes = "abcd"
    found = cycles({node: [other for other in nodes if other != node] for node in nodes}, limit=100)
    assert [len(cycle) for cycle in found] == [2] * 6 + [3] * 8 + [4] * 6
    assert len(set(found)) == 20
    assert all(cycle[0] == min(cycle) for cycle in found)


def test_cycles_are_bounded_in_graphs_with_very_many() -> None:
    nodes = [str(number) for number in range(40)]
    found = cycles(dict.fromkeys(nodes, nodes))
    assert [len(cycle) for cycle in found] == [1] * 20


def test_a_cycle_behind_very_many_paths_is_found() -> None:
    width, depth = 4, 30
    edges = {f"{d}.{w}": [f"{(d + 1) % depth}.{v}" for v in range(width)] for d in range(depth) for w in range(width)}
    for last in range(1, width):
        edges[f"{depth - 1}.{last}"] = []
    assert [len(cycle) for cycle in cycles(edges)] == [depth] * 20


def test_long_chains_do_not_exhaust_the_stack() -> None:
    tasks = [Task(f"t{number}", f"s{number}", f"s{number + 1}") for number in range(1500)]
    flow = Flow.from_tasks(*tasks, name="long").resolve()
    assert flow.plan.depth("t1499") == 1499
    with pytest.raises(CyclicFlowError):
        Flow.from_tasks(*tasks, Task("back", "s1500", "s0")).resolve()
