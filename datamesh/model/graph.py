"""Graph: what is computed from edges alone, levels and cycles. Knows nothing of tasks."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from itertools import islice

Edges = Mapping[str, Collection[str]]
"""Each node with the nodes that follow it. Every node is a key; the order of the keys breaks ties."""

_MOST_STEPS = 100_000
"""Bounds the search in graphs with very many paths; the shortest cycle is always found far below it."""


def levels(edges: Edges) -> dict[str, int]:
    """Return the longest distance of each node from the nodes that follow none.

    Nodes on a cycle, and those behind one, have no level and are left out.
    """
    waiting = dict.fromkeys(edges, 0)
    for followers in edges.values():
        for follower in followers:
            waiting[follower] += 1
    level = {node: 0 for node, count in waiting.items() if count == 0}
    ready = deque(level)
    while ready:
        node = ready.popleft()
        for follower in edges[node]:
            level[follower] = max(level.get(follower, 0), level[node] + 1)
            waiting[follower] -= 1
            if waiting[follower] == 0:
                ready.append(follower)
    return {node: level[node] for node in edges if waiting[node] == 0}


def cycles(edges: Edges, *, limit: int = 20) -> list[tuple[str, ...]]:
    """List elementary cycles, shortest first; each starts at the first of its nodes in the order of `edges`.

    Args:
        edges: The graph.
        limit: Most cycles that are listed: a dense graph has more than anybody could read.
    """
    return list(islice(_each_cycle(edges), limit))


def _each_cycle(edges: Edges) -> Iterator[tuple[str, ...]]:
    """Search best first: a path's bound is its length and the distance home, so cycles come out by their length."""
    acyclic = levels(edges)
    nodes = [node for node in edges if node not in acyclic]
    rank = {node: index for index, node in enumerate(nodes)}
    after = [[rank[follower] for follower in edges[node] if follower in rank] for node in nodes]
    home = _distances(after)
    paths: list[tuple[int, int, tuple[int, ...]]] = [(0, 0, (start,)) for start in range(len(nodes))]
    for _ in range(_MOST_STEPS):
        if not paths:
            return
        _, _, path = heapq.heappop(paths)
        for follower in after[path[-1]]:
            if follower == path[0]:
                yield tuple(nodes[index] for index in path)
            elif follower in home[path[0]] and follower not in path:
                bound = len(path) + home[path[0]][follower]
                heapq.heappush(paths, (bound, -len(path), (*path, follower)))


def _distances(after: list[list[int]]) -> list[dict[int, int]]:
    """For each node, the steps that others need to it over none below it: so no cycle is met from two of its nodes."""
    before: list[list[int]] = [[] for _ in after]
    for node, followers in enumerate(after):
        for follower in followers:
            before[follower].append(node)
    return [_distances_to(node, before) for node in range(len(after))]


def _distances_to(start: int, before: list[list[int]]) -> dict[int, int]:
    distance = {start: 0}
    ready = deque([start])
    while ready:
        node = ready.popleft()
        for earlier in before[node]:
            if earlier > start and earlier not in distance:
                distance[earlier] = distance[node] + 1
                ready.append(earlier)
    return distance
