"""Values of every kind through two tasks: what comes out is what its annotation says."""

import asyncio
import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pydantic
import pytest

from datamesh import (
    DataError,
    Flow,
    InvalidValueError,
    IOVal,
    PayloadTooLargeError,
    Task,
    TaskFailedError,
    task,
)
from tests.mesh.places import PATIENCE, Place

pytestmark = pytest.mark.anyio


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(NamedTuple):
    x: int
    y: float


@dataclass
class Document:
    name: str
    words: list[str]
    size: decimal.Decimal


class Person(pydantic.BaseModel):
    name: str
    born: dt.date
    friends: list["Person"] = []


def passing_on(kind: Any) -> Flow:
    """Two tasks, one after the other, that both declare what they take and give."""

    async def forward(value: Any) -> Any:
        assert isinstance(value, (getattr(kind, "__origin__", None) or kind)), type(value)
        return value

    async def further(passed: Any) -> Any:
        return passed

    forward.__annotations__ = {"value": kind, "return": kind}
    further.__annotations__ = {"passed": kind, "return": kind}
    return Flow.from_tasks(task(outputs="passed")(forward), task(outputs="out")(further)).resolve()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 2**200),
        (float, -0.1),
        (bool, True),
        (str, "naïve \U0001f600\n"),
        (bytes, bytes(range(256))),
        (list[int], [1, 2, 3]),
        (tuple[int, str], (1, "one")),
        (set[str], {"a", "b"}),
        (frozenset[int], frozenset({1, 2})),
        (dict[str, list[float]], {"a": [0.5], "b": []}),
        (dict[int, str], {1: "one"}),
        (dt.datetime, dt.datetime(2024, 2, 29, 1, 2, 3, 456789, tzinfo=dt.UTC)),
        (dt.date, dt.date(1969, 7, 20)),
        (dt.timedelta, dt.timedelta(days=-1, microseconds=1)),
        (decimal.Decimal, decimal.Decimal("1.10")),
        (uuid.UUID, uuid.UUID(int=7)),
        (Colour, Colour.BLUE),
        (Point, Point(1, 2.5)),
        (Document, Document("a", ["b", "c"], decimal.Decimal(3))),
        (Person, Person(name="Ada", born=dt.date(1815, 12, 10), friends=[Person(name="Bob", born=dt.date(1, 1, 1))])),
        (Path, Path("/a/b")),
        (complex, 1 + 2j),
    ],
    ids=lambda item: getattr(item, "__name__", "") if isinstance(item, type) else "",
)
async def test_through_two_tasks(place: Place, kind: Any, value: Any) -> None:
    flow = passing_on(kind)
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, {"value": value})
        found = await run["out"].first()
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.int16).reshape(3, 4),
        np.linspace(0, 1, 200_000),
        np.zeros((0, 3), dtype=np.float32),
        np.asfortranarray(np.arange(6, dtype=">u4").reshape(2, 3)),
        np.array([True, False]),
    ],
    ids=["int16", "large", "empty", "fortran", "bool"],
)
async def test_arrays(place: Place, array: npt.NDArray[Any]) -> None:
    flow = passing_on(np.ndarray)
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        found = await (await supervisor.start_flow(flow, {"value": array}))["out"].first()
        assert found.dtype == array.dtype
        assert found.shape == array.shape
        np.testing.assert_array_equal(found, array)


async def test_large_values_go_by_reference(place: Place) -> None:
    @task(outputs="larger")
    async def grow(seed: bytes) -> bytes:
        return seed * 2

    @task(outputs="length")
    async def measure(larger: bytes) -> int:
        return len(larger)

    large = b"0123456789" * 100_000
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        flow = Flow.from_tasks(grow, measure).resolve()
        run = await supervisor.start_flow(flow, [IOVal("seed", large), IOVal("seed", b"small")], all_outputs=True)
        assert sorted(await run["length"].collect()) == [10, 2_000_000]
        assert sorted(await run["larger"].collect(), key=len) == [b"smallsmall", large * 2]
        assert await run["seed"].collect() == [large, b"small"]
        shard = (await supervisor.session()).shard_of(run.id)
        for index in range(3):
            entries = await shard.protocol.command("XRANGE", shard.keys.stream(run.id, index), "-", "+")
            assert sum(len(part) for _, fields in entries for part in fields) < 70_000


async def test_many_large_inputs(place: Place) -> None:
    @task(outputs="length")
    async def measure(text: str) -> int:
        return len(text)

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        inputs = [IOVal("text", "x" * (60_000 + n)) for n in range(60)]
        run = await supervisor.start_flow(Flow.from_tasks(measure).resolve(), inputs)
        assert await run["length"].collect(ordered=True) == [60_000 + n for n in range(60)]


async def test_a_value_over_the_limit(place: Place) -> None:
    @task(outputs="larger")
    async def grow(seed: bytes) -> bytes:
        return seed * 1000

    flow = Flow.from_tasks(grow).resolve()
    async with place.supervisor(max_value_bytes=100_000) as supervisor, asyncio.timeout(PATIENCE):
        with pytest.raises(PayloadTooLargeError) as caught:
            await supervisor.start_flow(flow, {"seed": b"x" * 200_000}, run_id="too-large")
        assert caught.value.limit_bytes == 100_000
        run = await supervisor.start_flow(flow, {"seed": b"x" * 1000})
        with pytest.raises((TaskFailedError, DataError), match="over the limit"):
            await run["larger"].first()


async def written(place: Place, supervisor: Any) -> int:
    shard = (await supervisor.session()).store.shards[0]
    return len(await shard.protocol.command("KEYS", f"*{place.mesh}*run:*"))


@pytest.mark.parametrize(
    ("value", "error"),
    [("seven", InvalidValueError), (None, InvalidValueError), (object(), DataError), (1.5, InvalidValueError)],
)
async def test_a_wrong_input_is_refused_before_anything_is_written(place: Place, value: Any, error: type) -> None:
    @task(outputs="m")
    async def use(n: int) -> int:
        return n

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        with pytest.raises(error, match="n"):
            await supervisor.start_flow(Flow.from_tasks(use).resolve(), [IOVal("n", 1), IOVal("n", value)])
        assert await written(place, supervisor) == 0


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("make", [lambda: nested(5000), lambda: object(), lambda: (n for n in range(3))])
async def test_what_has_no_form_on_the_wire(place: Place, make: Callable[[], Any]) -> None:
    @task(outputs="m")
    async def use(n: Any) -> Any:
        return make()

    flow = Flow.from_tasks(use).resolve()
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        with pytest.raises(DataError):
            await supervisor.start_flow(flow, {"n": make()})
        assert await written(place, supervisor) == 0
        run = await supervisor.start_flow(flow, {"n": 1})
        with pytest.raises((TaskFailedError, DataError)):
            await run["m"].first()
        assert (await run.wait()).state == "failed"


async def test_nan_and_infinity(place: Place) -> None:
    flow = passing_on(float)
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(flow, [IOVal("value", float(text)) for text in ("inf", "-inf", "nan")])
        assert list(map(str, await run["out"].collect(ordered=True))) == ["inf", "-inf", "nan"]


async def test_an_output_of_the_wrong_type_fails_the_task(place: Place) -> None:
    declared = Task("typed", inputs={"n": int}, outputs={"m": int})

    @declared
    async def _typed(n: int) -> int:
        return "text"  # type: ignore[return-value]

    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        run = await supervisor.start_flow(Flow.from_tasks(declared).resolve(), {"n": 1})
        with pytest.raises((TaskFailedError, InvalidValueError), match="'m'"):
            await run["m"].first()


async def test_a_typed_contract_without_an_implementation(place: Place) -> None:
    declared = Task("elsewhere", inputs={"point": Point}, outputs={"doc": Document})
    async with place.supervisor() as supervisor, asyncio.timeout(PATIENCE):
        flow = Flow.from_tasks(declared).resolve()
        with pytest.raises(InvalidValueError, match="point"):
            await supervisor.start_flow(flow, {"point": "nowhere"})
        assert await written(place, supervisor) == 0
