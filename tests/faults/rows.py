"""Rows: what is asked of the mesh under faults, each with the target that it is held to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the scoreboard.

    Attributes:
        id: Such as R1.
        title: What happens.
        target: What it has to show.
        why_not: Why nothing measures it here; empty where a scenario does.
    """

    id: str
    title: str
    target: str
    why_not: str = ""


_ROWS = (
    Row(
        "R1",
        "100,000 values, three stages with fan-out and `wait`, 4 services, a random one killed every 1 to 3 s",
        "0 lost, doubled, early ends, unfinished; at least 40 kills",
    ),
    Row("R2", "executions for each value in R1", "at most 1.05"),
    Row("R3", "services frozen for 0.5 to 3 leases instead", "at least 40 zombies, 0 of their settlements accepted"),
    Row("R4", "a service killed before and after each of its calls to Redis, one by one", "0 failures over all points"),
    Row("R5", "the scripts against a model, step by step", "at least 20,000 steps, 0 violations"),
    Row("R6", "simulated crashes, zombies and lost replies on the scripts", "at least 500 seeds, 0 violations"),
    Row("R7", "a script that fails leaves all keys as they were", "all scripts, 0 changes"),
    Row("R8", "replies lost, of every script", "0 wrong answers, 0 double effects"),
    Row("R9", "10,000 calls cancelled while they are under way", "0 answers to another call, 0 orphans after a lease"),
    Row(
        "R10",
        "Redis killed and restarted under load, `appendfsync always`",
        "20 cycles, 0 acknowledged lost, 0 doubled",
    ),
    Row(
        "R11",
        "the append-only file cut at random points, two restarts each",
        "1,000 cuts, 0 violations, 0 fsynced lost",
    ),
    Row("R12", "Sentinel failover at durability `replicated`", "0 lost, back in under 10 s"),
    Row("R13", "Sentinel failover at the default durability", "0 contradictions; what was lost is told"),
    Row("R14", "a cluster of 6 nodes: slots migrate, a master is killed", "0 lost or doubled, no attempt charged"),
    Row(
        "R15",
        "FLUSHALL, SCRIPT FLUSH and destroyed groups in mid-run",
        "first value within 2 s, the loss told within 5 s",
    ),
    Row("R16", "10,000 malformed entries", "all buried with a reason, no service down, others delayed < 1 s (p99)"),
    Row("R17", "a value that kills its process, among 1,000", "as many deaths as the cap allows, 0 innocents charged"),
    Row("R18", "a coroutine that blocks the event loop for three leases", "1 execution"),
    Row("R19", "Redis runs out of memory in mid-run", "0 lost, recovers without a restart, what is in flight finishes"),
    Row("R20", "100,000 retries due at one second", "p99 of another run's value < 50 ms; longest script < 5 ms"),
    Row("R21", "clocks of 5 services wrong by up to 10 minutes", "no retry or deadline early, late or doubled"),
    Row("R22", "all services restarted by SIGTERM, twice, under load", "0 lost or doubled, exit within grace"),
    Row("R23", "this version beside the next one", "0 lost, doubled or dead"),
    Row("R24", "random flows with few slots and tiny marks of backpressure", "1,000 flows, 0 deadlocks"),
    Row("R25", "what 1,000 runs leave behind once their retention is over", "0 stray keys, consumers, connections"),
    Row(
        "R26", "from the kill of a service until its values run again", "p99 <= 1.5 leases, with and without free slots"
    ),
    Row("R27", "commands that an idle service sends", "at most 2 a second and shard"),
    Row("R28", "attacks on the wire, rights, secrets", "all refused"),
    Row("R29", "24 hours", "no slope in memory, descriptors or keys", why_not="takes 24 hours; no machine runs it"),
    Row("R30", "these scenarios again with other seeds", "0 flakes", why_not="asked for with `--soak`"),
)

ROWS = {row.id: row for row in _ROWS}
