"""Digests: a script that fails or refuses leaves the server as it was, whatever it was called with.

    python -m tests.protocol.digests --cases 200 --seed 1 --kind valkey

The machine's acts bring a shard into states that nobody thought of. Before each call that they make, the same call is
tried with one thing wrong: a key of another kind, or an argument that is gone, empty, no number or far too large. If it
fails or refuses, the digest of the server must be as before. What is accepted is undone. After the call itself it is
made once more, and must change nothing.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from datamesh.store.link import Reply, ReplyError
from datamesh.store.script import SCRIPTS
from tests.protocol import acts_members
from tests.protocol.look import StraightLink
from tests.protocol.machine import ACTS, FLOWS_A_RUN, catalog
from tests.protocol.world import World
from tests.servers import KINDS, Server

Arg = bytes | str | int | float
REFUSALS = frozenset({b"FENCED", b"ALREADY", b"GONE", b"CLOSED", b"WAITING", b"EXISTS", b"NOPLAN", b"UNKNOWN", b"FULL"})
WRONG_ARGUMENTS: tuple[Arg, ...] = ("", "no number", "9" * 30, -1, b"\xff\x00")
GIVE_MORE = frozenset({"take", "reap"})
"""Scripts that hand out entries: called again they hand out others."""
TRUSTING = frozenset({"discard", "end", "join", "plan", "push", "reap", "settle", "stage", "submit", "take", "wait"})
"""Scripts that fail half-way when a number among their arguments is none, or when some are missing. Their arguments are
written by one typed method each, so only a bug there could do it; the others are safe from that too."""
ACTS_A_SHARD, MOST_ACTS = 80, 40_000
_NAMES = {script.digest: name for name, script in SCRIPTS.items()}

_GROUPS = """
local out = {}
local keys = redis.call('KEYS', '*:work:*')
table.sort(keys)
for _, key in ipairs(keys) do
  local found = redis.pcall('XPENDING', key, 'g', '-', '+', 100000)
  if not found.err then
    local group = redis.call('XINFO', 'GROUPS', key)[1]
    for k = 1, #group, 2 do if group[k] == 'last-delivered-id' then out[#out + 1] = group[k + 1] end end
    for _, held in ipairs(found) do out[#out + 1] = held[1] .. ' ' .. held[2] .. ' ' .. held[4] end
  end
end
return table.concat(out, ',')
"""
_MEMBERS_ASIDE = """
local kept = {}
for _, key in ipairs(redis.call('KEYS', '*:members')) do
  for _, name in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZADD', key, 1, name) end
end
"""


@dataclass
class Findings:
    """What came of all cases.

    Attributes:
        wrong_keys: By script, cases with a key of another kind.
        wrong_arguments: By script, cases with an argument that cannot be.
        repeated: By script, calls that were made twice.
        refused: By script, cases of these that failed or were refused, so that the digest was compared.
        violations: By script and what was wrong: an example.
        unchecked: By script: an example of an argument that cannot be, and that was met after the first write.
    """

    wrong_keys: Counter[str] = field(default_factory=Counter)
    wrong_arguments: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    violations: dict[str, str] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)

    def cases(self, script: str) -> int:
        """How often it was called in a wrong way."""
        return self.wrong_keys[script] + self.wrong_arguments[script]


class ProbingLink(StraightLink):
    """A link that tries each call in wrong ways before it is made."""

    def __init__(self, path: str, findings: Findings, most: int, rnd: random.Random) -> None:
        super().__init__(path)
        self.findings = findings
        self._most = most
        self._rnd = rnd

    async def call(self, *args: Arg, timeout: float | None = None) -> Reply:
        name = _NAMES.get(str(args[1])) if args[0] == "EVALSHA" else None
        if name is None:
            return self.send(*args)
        self.send("SCRIPT", "LOAD", SCRIPTS[name].source)
        count = int(args[2])
        keys, arguments = [str(key) for key in args[3 : 3 + count]], list(args[3 + count :])
        if self.findings.cases(name) < self._most:
            self._probe(name, keys, arguments)
        return self._twice(name, keys, arguments)

    # ---------------------------------------------------------------------------------------------- one call

    def _probe(self, name: str, keys: list[str], arguments: list[Arg]) -> None:
        saved = self._save()
        for key in self._rnd.sample(targets := self._targets(keys, saved), min(4, len(targets))):
            self.findings.wrong_keys[name] += 1
            self._plant(key, saved)
            self._case(name, keys, arguments, f"{_short(key)} of another kind")
            self._restore(saved)
        for place in self._rnd.sample(range(len(arguments)), min(6, len(arguments))):
            wrong, words = self._spoil(arguments, place)
            self.findings.wrong_arguments[name] += 1
            if not self._case(name, keys, wrong, words, is_spoilt=True):
                self._restore(saved)

    def _spoil(self, arguments: Sequence[Arg], place: int) -> tuple[list[Arg], str]:
        match self._rnd.randrange(4):
            case 0:
                return [*arguments[:place], *arguments[place + 1 :]], f"argument {place + 1} left out"
            case 1:
                return list(arguments[:place]), f"arguments from {place + 1} cut off"
        wrong = self._rnd.choice(WRONG_ARGUMENTS)
        return [*arguments[:place], wrong, *arguments[place + 1 :]], f"argument {place + 1} is {wrong!r}"

    def _case(
        self, name: str, keys: list[str], arguments: list[Arg], words: str, *, is_spoilt: bool = False
    ) -> bool:  # fmt: skip
        """Make one wrong call; False: the server is not as it was."""
        before = self.digest()
        problem = ""
        try:
            reply = self.send("EVALSHA", SCRIPTS[name].digest, len(keys), *keys, *arguments)
        except ReplyError as error:
            problem = str(error)
        else:
            problem = "refused" if _is_refusal(name, reply) else ""
        same = self.digest() == before
        if problem:
            self.findings.refused[name] += 1
            if not same and is_spoilt and problem != "refused":
                self.findings.unchecked.setdefault(name, f"{words}: {problem}")
            elif not same:
                self.findings.violations.setdefault(f"{name}: {words}", f"{problem}; {arguments}")
        return same

    def _twice(self, name: str, keys: list[str], arguments: list[Arg]) -> Reply:
        reply = self.send("EVALSHA", SCRIPTS[name].digest, len(keys), *keys, *arguments)
        if name not in GIVE_MORE and self.findings.repeated[name] < self._most:
            before = self._without_moments()
            self.send("EVALSHA", SCRIPTS[name].digest, len(keys), *keys, *arguments)
            self.findings.repeated[name] += 1
            if self._without_moments() != before:
                self.findings.violations.setdefault(f"{name} repeated", f"{keys} {arguments}")
        return reply

    # ----------------------------------------------------------------------------------------- what is there

    def digest(self) -> tuple[bytes, bytes]:
        """Of all keys, and of who holds which entries, which is not part of the server's own digest."""
        return self.send("DEBUG", "DIGEST"), self.send("EVAL", _GROUPS, 0)

    def _without_moments(self) -> tuple[dict[bytes, bytes], bytes]:
        """Digests of all keys but those whose scores are the time of the call."""
        keys = [key for key in self.send("KEYS", "*") if not key.endswith((b":members", b":orphans"))]
        values = self.send("DEBUG", "DIGEST-VALUE", *keys) if keys else []
        return dict(zip(keys, values, strict=True)), self.send("EVAL", _GROUPS, 0)

    def _save(self) -> dict[bytes, tuple[bytes, int]]:
        return {key: (self.send("DUMP", key), self.send("PEXPIRETIME", key)) for key in self.send("KEYS", "*")}

    def _restore(self, saved: dict[bytes, tuple[bytes, int]]) -> None:
        self.send("FLUSHALL")
        for key, (content, expires) in saved.items():
            self.send("RESTORE", key, max(0, expires), content, "ABSTTL")

    def _targets(self, keys: Sequence[str], saved: dict[bytes, tuple[bytes, int]]) -> list[bytes]:
        """Keys that the call names, and those that there are or may be of its run."""
        named = {key.encode() for key in keys}
        runs = {key for key in named | set(saved) if b":run:" in key and key.count(b":") == 3}
        parts = [b":events", *(b":s:%d" % k for k in range(6)), *(b":b:%d" % k for k in range(4))]
        own = {key + part for key in runs & named for part in parts}
        others = {key for key in saved if b":plan:" not in key}
        return sorted(named) * 2 + sorted(own) + sorted(others)

    def _plant(self, key: bytes, saved: dict[bytes, tuple[bytes, int]]) -> None:
        is_text = key in saved and self.send("TYPE", key) == b"string"
        self.send("DEL", key)
        self.send(*(("RPUSH", key, "x") if is_text else ("SET", key, "this is a text")))


def _is_refusal(name: str, reply: Reply) -> bool:
    if not isinstance(reply, list) or not reply or not isinstance(reply[0], bytes):
        return False
    if name == "settle" and len(reply) > 1:
        # What is GONE has left its work stream.
        return set(reply[::2]) <= {b"ALREADY", b"FENCED"}
    return reply[0] in REFUSALS


def _short(key: bytes) -> str:
    return key.decode().partition("}:")[2]


# ------------------------------------------------------------------------------------------------------- the run


def run(cases: int = 200, seed: int = 1, *, kind: str = "valkey", server: Server | None = None) -> dict[str, Any]:
    """Try each script in at least so many wrong ways, where its calls leave so many.

    Returns:
        `cases`, `refused` and `repeated` by script, `violations` and `unchecked` (what was wrong, with an example) and
        `seconds`.
    """
    if server is None:
        with Server(kind) as own:
            return run(cases, seed, kind=kind, server=own)
    findings, started, rnd = Findings(), time.monotonic(), random.Random(seed)
    wanted, done = set(SCRIPTS) - {"plan"}, 0
    while done < MOST_ACTS and any(findings.cases(name) < cases for name in wanted):
        done += _shard(server, findings, cases, rnd)
    return {
        "cases": {name: findings.cases(name) for name in sorted(SCRIPTS)},
        "refused": dict(sorted(findings.refused.items())), "repeated": dict(sorted(findings.repeated.items())),
        "violations": findings.violations, "unchecked": findings.unchecked, "seconds": time.monotonic() - started,
    }  # fmt: skip


def _shard(server: Server, findings: Findings, cases: int, rnd: random.Random) -> int:
    """One shard, from its start through some tens of acts."""
    link = ProbingLink(str(server.socket_path), findings, cases, rnd)
    world = World.on(server, rnd.sample(catalog(), FLOWS_A_RUN), link)
    try:
        for number in range(2):
            world.act("join", acts_members.join, number)
        for act in rnd.choices(list(ACTS), list(ACTS.values()), k=ACTS_A_SHARD):
            world.act(act.__name__, act, rnd.randrange(2**16))
    except (AssertionError, ReplyError):
        return ACTS_A_SHARD  # The model does not agree; that is for the machine to tell.
    finally:
        world.close()
    return ACTS_A_SHARD


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", choices=KINDS, default="valkey")
    options = parser.parse_args()
    found = run(options.cases, options.seed, kind=options.kind)
    for name, count in found["cases"].items():
        refused, repeated = found["refused"].get(name, 0), found["repeated"].get(name, 0)
        print(f"{name:8} {count:6} cases, {refused:6} refused, {repeated:6} twice")
    print(f"{len(found['violations'])} violations in {found['seconds']:.1f} s")
    for what, example in found["violations"].items():
        print(f"  {what}\n      {example[:300]}")
    for name, example in sorted(found["unchecked"].items()):
        print(f"  unchecked by {name}: {example[:200]}")
    raise SystemExit(bool(found["violations"]))


if __name__ == "__main__":
    main()
