"""The benchmark: `python -m tests.bench [--quick] [--url URL]`.

A stream of integers through two tasks in another process, whole and as runs of one value, and next to it, in the same
turn, what redis-py itself reaches on this machine: so the ratios mean something where the numbers do not. The order of
what comes back is checked. Prints the medians of all turns.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from datamesh import Supervisor
from tests.bench.limit import limit
from tests.bench.loads import many_runs, one_stream
from tests.faults.processes import services
from tests.servers import Server

STREAM, RUNS, TURNS = 100_000, 400, 5
QUICK = {"stream": 20_000, "runs": 100, "turns": 2}

Results = dict[str, list[float]]

UNITS = {
    "redis-py, 1 value an entry": "values/s",
    "redis-py, 100 values an entry": "values/s",
    "stream through two tasks": "values/s",
    "one-value runs, 1 in flight": "runs/s",
    "one-value runs, 50 in flight": "runs/s",
}


@contextmanager
def address(url: str | None) -> Iterator[str]:
    """The server that was asked for, or one of our own."""
    if url is not None:
        yield url
        return
    with Server("valkey") as server:
        yield server.url


async def turn(supervisor: Supervisor, url: str, stream: int, runs: int, results: Results) -> None:
    """Measure everything once."""
    measured = {
        "redis-py, 1 value an entry": await limit(url, count=stream // 5, per_entry=1),
        "redis-py, 100 values an entry": await limit(url, count=stream, per_entry=100),
        "stream through two tasks": await one_stream(supervisor, stream),
        "one-value runs, 1 in flight": await many_runs(supervisor, runs, together=1),
        "one-value runs, 50 in flight": await many_runs(supervisor, 5 * runs, together=50),
    }
    for name, rate in measured.items():
        results.setdefault(name, []).append(rate)


def report(results: Results) -> None:
    """Print the medians, and how they stand to each other."""
    medians = {name: statistics.median(rates) for name, rates in results.items()}
    for name, median in medians.items():
        low, high = min(results[name]), max(results[name])
        print(f"{name:32} {median:12,.0f} {UNITS[name]:9} ({low:,.0f} to {high:,.0f})")
    ours = medians["stream through two tasks"]
    for name in list(medians)[:2]:
        print(f"stream against {name}: {ours / medians[name]:.2f}")


async def measure(url: str, *, stream: int, runs: int, turns: int) -> Results:
    """Measure in turns, so that whatever slows the machine down slows all of them down."""
    results: Results = {}
    with services(1, url, "increment", "triple", mesh="bench", lease=10.0):
        async with Supervisor(url=url, mesh="bench", tasks=[], retention=5.0) as supervisor:
            await one_stream(supervisor, 1000)
            for number in range(turns):
                await turn(supervisor, url, stream, runs, results)
                print(f"turn {number + 1} of {turns}", file=sys.stderr)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fifth of it, twice")
    parser.add_argument("--url", help="of a server; one is started if left out")
    chosen = parser.parse_args()
    sizes = QUICK if chosen.quick else {"stream": STREAM, "runs": RUNS, "turns": TURNS}
    with address(chosen.url) as url:
        report(anyio.run(lambda: measure(url, **sizes)))


if __name__ == "__main__":
    main()
