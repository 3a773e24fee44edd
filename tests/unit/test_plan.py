"""Plans: their order, their digest, their wire form, and the stages that waiting tasks make."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamesh.errors import TamperedDataError
from datamesh.model.declare import task
from datamesh.model.flow import Flow
from datamesh.model.plan import Plan, StreamPlan
from datamesh.model.registry import registry
from datamesh.model.task import Task

TASKS = (
    Task("join", ["vector", "label"], "index", wait=True, version=2),
    Task("tag", "chunk", "label"),
    Task("embed", ["chunk", "model"], {"vector": list[float]}),
    Task("split", {"docs": str}, "chunk"),
)


@pytest.fixture(autouse=True)
def _own_registry() -> Iterator[None]:
    with registry.isolated():
        registry.compiler = None
        yield


@pytest.fixture
def plan() -> Plan:
    return Flow.from_tasks(*TASKS, name="f").resolve().plan


def test_producers_stand_before_consumers(plan: Plan) -> None:
    assert [node.name for node in plan.nodes] == ["split", "embed", "tag", "join"]
    assert [plan.depth(node.name) for node in plan.nodes] == [0, 1, 1, 2]


def test_streams_know_who_writes_and_reads_them(plan: Plan) -> None:
    assert plan.stream("chunk") == StreamPlan("chunk", ("split",), ("embed", "tag"))
    assert plan.inputs == ("docs", "model")
    assert plan.outputs == ("index",)
    assert [stream.name for stream in plan.streams] == ["docs", "model", "chunk", "vector", "label", "index"]


def test_nodes_know_task_and_wiring(plan: Plan) -> None:
    join = plan.node("join")
    assert (join.ref, join.wait) == ("join@2", True)
    assert (join.reads, join.writes) == (("vector", "label"), ("index",))


@pytest.mark.parametrize("look_up", ["node", "stream", "depth"])
def test_unknown_names_are_key_errors(plan: Plan, look_up: str) -> None:
    with pytest.raises(KeyError, match="nothing"):
        getattr(plan, look_up)("nothing")


def test_equal_graphs_have_equal_digests_in_any_order_of_tasks(plan: Plan) -> None:
    for seed in range(5):
        shuffled = random.Random(seed).sample(TASKS, len(TASKS))
        other = Flow.from_tasks(*shuffled, name="f").resolve().plan
        assert (other, other.digest) == (plan, plan.digest)


def test_the_digest_is_of_the_wire_form_and_stays_as_it_is() -> None:
    plan = Flow.from_tasks(Task("foobar", "foo", "bar")).resolve().plan
    assert plan.to_wire() == (
        b'{"flow":"foobar","nodes":[{"inputs":[["foo","foo"]],"name":"foobar","outputs":[["bar","bar"]],'
        b'"ref":"foobar@1","wait":false}]}'
    )
    assert plan.digest == "f578733928f7ff7fdd17f648fb4e1d4a"


@pytest.mark.parametrize(
    "other",
    [
        Task("a", "x", "y", wait=True),
        Task("a", "x", "y", version=2),
        Task("a", "x", "z"),
        Task("a", "w", "y"),
        Task("b", "x", "y"),
    ],
)
def test_what_changes_a_run_changes_the_digest(other: Task) -> None:
    one = Flow.from_tasks(Task("a", "x", "y"), name="f").resolve().plan
    assert Flow.from_tasks(other, name="f").resolve().plan.digest != one.digest


def test_types_and_descriptions_do_not_change_the_digest() -> None:
    one = Flow.from_tasks(Task("a", "x", "y")).resolve().plan
    typed = Flow.from_tasks(Task("a", {"x": int}, {"y": str}, description="d")).resolve().plan
    assert (typed, typed.digest) == (one, one.digest)
    assert typed.types == {"x": int, "y": str}
    assert hash(typed) == hash(one)


def test_plans_travel(plan: Plan) -> None:
    arrived = Plan.from_wire(plan.to_wire())
    assert (arrived, arrived.digest, arrived.types) == (plan, plan.digest, {})
    assert arrived.depth("join") == 2


def _wire(**changes: Any) -> bytes:
    node = {"inputs": [["foo", "foo"]], "name": "t", "outputs": [["bar", "bar"]], "ref": "t@1", "wait": False}
    written = {"flow": "f", "nodes": [{**node, **changes}]}
    return json.dumps(written, sort_keys=True, separators=(",", ":")).encode()


def test_an_untouched_wire_is_read() -> None:
    assert Plan.from_wire(_wire()).node("t").writes == ("bar",)


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"{}",
        b'{"flow":"f"}',
        b'{"flow":"f","nodes":[]}',
        b'{"flow":"f","nodes":[3]}',
        b"[" * 100_000,
        _wire(name="a b"),
        _wire(name=3),
        _wire(ref="t"),
        _wire(ref="t@0"),
        _wire(ref=None),
        _wire(wait=0),
        _wire(inputs=None),
        _wire(inputs=["ab"]),
        _wire(inputs=[["foo"]]),
        _wire(inputs=[["foo", "a"], ["foo", "b"]]),
        _wire(outputs=[["foo", "foo"]]),
        _wire(outputs=[["a", "x"], ["b", "x"]]),
        _wire(extra=1),
        _wire() + b" ",
        _wire().replace(b'"f"', b'"\\u0066"'),
        _wire().replace(b"false", b'false,"wait":false'),
    ],
)
def test_what_is_no_plan_is_refused(wire: bytes) -> None:
    with pytest.raises(TamperedDataError, match="plan"):
        Plan.from_wire(wire)


def test_nodes_in_another_order_are_refused(plan: Plan) -> None:
    found = json.loads(plan.to_wire())
    found["nodes"].reverse()
    with pytest.raises(TamperedDataError, match="not in the form"):
        Plan.from_wire(json.dumps(found, sort_keys=True, separators=(",", ":")).encode())


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), min_size=1, max_size=12))
def test_every_acyclic_flow_travels_and_is_ordered(reads: list[list[int]]) -> None:
    tasks = [
        Task(f"t{number}", {f"s{index % (number + 1)}" for index in found}, f"s{number + 1}", wait=bool(number % 3))
        for number, found in enumerate(reads)
    ]
    flow = Flow.from_tasks(*tasks, name="any").resolve()
    plan = flow.plan
    assert Plan.from_wire(plan.to_wire()) == plan
    place = {node.name: index for index, node in enumerate(plan.nodes)}
    for stream in plan.streams:
        for producer in stream.producers:
            assert all(place[producer] < place[consumer] for consumer in stream.consumers)
            assert all(plan.depth(producer) < plan.depth(consumer) for consumer in stream.consumers)
    assert sorted(name for stage in flow.execution_plan.stages for name in stage.names) == sorted(place)


# ------------------------------------------------------------------------------------------------------ stages


def test_a_waiting_task_begins_a_stage() -> None:
    first, second = Task("first", outputs={"a"}), Task("second", inputs={"a"}, outputs={"b"}, wait=True)
    partitions = Flow.from_tasks(first, second).resolve().execution_plan.partitions
    assert partitions == [{first}, {second}]
    assert repr(partitions) == "[{first}, {second}]"
    assert first in partitions[0]
    assert second not in partitions[0]


def test_tasks_run_in_one_stage_until_one_waits() -> None:
    a, b, c = Task("a", "x", "y"), Task("b", "y", "z"), Task("c", "z", "v")
    waiting, after, beside = Task("w", ["z", "x"], "p", wait=True), Task("after", ["p", "v"], "q"), Task("m", "y", "n")
    plan = Flow.from_tasks(a, b, c, waiting, after, beside).resolve().execution_plan
    assert plan.partitions == [{a, b, c, beside}, {waiting, after}]
    assert str(plan) == "[{a, b, m, c}, {w, after}]"


def test_tasks_that_wait_for_one_stage_share_the_next() -> None:
    first, second, third = (
        Task("first", outputs="a"),
        Task("second", "a", "b", wait=True),
        Task("third", "a", "c", wait=True),
    )
    assert Flow.from_tasks(first, second, third).resolve().execution_plan.partitions == [{first}, {second, third}]


def test_waiting_for_inputs_of_the_flow_alone_begins_no_stage() -> None:
    waiting, other = Task("w", "x", "y", wait=True), Task("o", "x", "z")
    assert Flow.from_tasks(waiting, other).resolve().execution_plan.partitions == [{waiting, other}]


def test_stages_contain_functions_and_renamed_tasks() -> None:
    @task(outputs="b")
    def copy(a: int) -> int:
        return a

    again = copy.rename(inputs={"a": "b"}, outputs={"b": "c"})
    stage: Any = Flow.from_tasks(copy, again).resolve().execution_plan.stages[0]
    assert copy in stage
    assert again in stage
    assert "copy-2" in stage
    assert "other" not in stage
    assert stage.names == ("copy", "copy-2")
    assert stage == {copy.task}
    assert stage | {Task("x")} == {copy.task, Task("x")}
    assert hash(stage) == hash(frozenset({copy.task}))
