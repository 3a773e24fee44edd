"""Every key of the mesh: what it is, who writes it, when it goes.

All keys of a shard begin with the hash tag `{mesh:shard}`, so that one script may change them together on one server
and on a cluster. `<ref>` is a task and its version (`name@1`), `<i>` a node and `<j>` a stream of the plan, by index.

    {mesh:shard}:
    ├── members            zset  member -> deadline (ms)          join, beat, leave, reap    an hour after the last beat
    ├── services           hash  member -> what it announces      join, leave, reap          an hour after the last beat
    ├── windows            hash  work stream -> frames per run    join, leave, reap          an hour after the last beat
    ├── pressure           hash  work stream -> "high low"        join                       an hour after the last beat
    ├── frozen             hash  member -> when it was removed    reap                       an hour after the last
    ├── orphans            zset  "member work-stream", "member" join, leave, reap          until empty, or a minute
    ├── work:<ref>[:level] stream, group `g`: deliveries          submit, settle, promote    stays; settled entries go
    ├── marks              hash  delivery -> how far it came      settle                     with each settlement
    ├── due                zset  what is due when (ms)            submit, settle, promote    until empty
    ├── later              hash  what is due                      submit, settle, promote    until empty
    ├── dead               stream of values that were buried      settle, discard, redrive   trimmed to its cap
    ├── news               stream of what services must hear      settle, push, end, promote trimmed, an hour
    ├── epoch              string  random, of this data alone     the first to come          stays
    ├── durable            string  a write that is waited for     a durable start            a minute
    ├── runs               zset  run id -> start (ms)             submit, sweep              with the runs
    ├── ended              zset  run id -> end of retention (ms)  settle, end, sweep         with the runs
    ├── waiting            hash  run id -> flow that waits        wait, submit, end          until it starts
    ├── plan:<digest>      hash  a bound plan                     plan                       30 days after a start
    ├── run:<id>           hash  state and counters of a run      submit, settle, ...        retention after its end
    ├── run:<id>:s:<j>     stream, no group: frames of a stream   submit, push, settle       retention after its end
    ├── run:<id>:b:<i>     list  frames that wait for the window  submit, push, settle       with the run's end
    ├── run:<id>:w:<k>     list  frames of the k-th input         wait                       with the start, or the end
    ├── run:<id>:blobs     hash  digest -> large value            blob                       retention after its end
    ├── run:<id>:events    stream of facts, if one listens        listen, settle, end        retention after its end
    └── run:<id>:t:<token>:...  inputs being brought in           stage                      a minute, or renamed

    {mesh}:
    ├── mesh               hash  protocol, least, shards, signed  the first to come          stays
    └── task:<ref>         string  contract of a task             announce                   30 days after the last

The scripts build some names by themselves, all owned by a run: its key followed by `:s:<j>`, `:b:<i>`, `:w:<k>` and the
fixed names above.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

GROUP = "g"
"""The one consumer group of each work stream."""


class Level(StrEnum):
    """Priority of a run: each level has work streams of its own."""

    HIGH = ":high"
    NORMAL = ""
    LOW = ":low"

    @classmethod
    def of(cls, priority: int) -> Level:
        """Map the number that users give: above 0 is high, below 0 is low."""
        if priority == 0:
            return cls.NORMAL
        return cls.HIGH if priority > 0 else cls.LOW


@dataclass(frozen=True, slots=True)
class MeshKeys:
    """Keys that belong to the mesh as a whole."""

    mesh: str

    @property
    def settings(self) -> str:
        return f"{{{self.mesh}}}:mesh"

    def task(self, ref: str) -> str:
        return f"{{{self.mesh}}}:task:{ref}"


class ShardKeys:
    """Keys of one shard."""

    def __init__(self, mesh: str, shard: int) -> None:
        self.mesh = mesh
        self.shard = shard
        self.prefix = prefix = f"{{{mesh}:{shard}}}:"
        self.members = prefix + "members"
        self.services = prefix + "services"
        self.windows = prefix + "windows"
        self.pressure = prefix + "pressure"
        self.frozen = prefix + "frozen"
        self.orphans = prefix + "orphans"
        self.marks = prefix + "marks"
        self.due = prefix + "due"
        self.later = prefix + "later"
        self.dead = prefix + "dead"
        self.news = prefix + "news"
        self.epoch = prefix + "epoch"
        self.durable = prefix + "durable"
        self.runs = prefix + "runs"
        self.ended = prefix + "ended"
        self.waiting = prefix + "waiting"
        self.plans = prefix + "plan:"
        self.run_prefix = prefix + "run:"

    def work(self, ref: str, level: str = "") -> str:
        return f"{self.prefix}work:{ref}{level}"

    def plan(self, digest: str) -> str:
        return self.plans + digest

    def run(self, run_id: str) -> str:
        return self.run_prefix + run_id

    def stream(self, run_id: str, index: int) -> str:
        return f"{self.run_prefix}{run_id}:s:{index}"

    def backlog(self, run_id: str, index: int) -> str:
        return f"{self.run_prefix}{run_id}:b:{index}"

    def blobs(self, run_id: str) -> str:
        return f"{self.run_prefix}{run_id}:blobs"

    def events(self, run_id: str) -> str:
        return f"{self.run_prefix}{run_id}:events"

    def stage(self, run_id: str, token: str) -> str:
        return f"{self.run_prefix}{run_id}:t:{token}"
