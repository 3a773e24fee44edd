"""A simulated mesh on real scripts: random flows, and members that crash, pause, come back and lose replies."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgpack

from datamesh.store.frames import Delivery, Frame, Requeue, Settlement, Status
from tests.protocol.flows import WHOLE_VALUES, Flow, Value, frame_of, given, given_by_whole, split
from tests.protocol.rig import Rig, values_of

WINDOW = 3
MOST_FAILURES = 2


@dataclass
class Held:
    """A delivery in the hands of a member, and what is left to do of it: indexes of values, or of what it gives."""

    delivery: Delivery
    left: list[int]
    step: int

    @classmethod
    def of(cls, delivery: Delivery) -> Held:
        everything = range(delivery.frame.count or WHOLE_VALUES)
        return cls(delivery, msgpack.unpackb(delivery.mark) if delivery.mark else list(everything), delivery.step)


@dataclass
class Member:
    """A member, dead or alive, and what it believes to hold."""

    name: str
    held: dict[tuple[str, str], Held] = field(default_factory=dict)
    has_lost_a_reply: bool = False

    def receive(self, taken: Iterable[Delivery]) -> None:
        for delivery in taken:
            self.held.setdefault((delivery.work, delivery.entry_id), Held.of(delivery))


class World:
    """Members of one shard, with a few runs of one flow."""

    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.rnd = random.Random(seed)
        self.flow = Flow.draw(self.rnd)
        self.members: list[Member] = []
        self.zombies: list[Member] = []
        self.failures: Counter[tuple[str, str]] = Counter()
        self.counts: Counter[str] = Counter()
        self.inputs: dict[str, list[Value]] = {}
        self.unwritten: dict[str, list[Frame]] = {}
        self.cancelled: set[str] = set()
        self._writes = 0
        self._names = 0

    # ------------------------------------------------------------------------------------------- the runs

    async def start(self) -> None:
        """Bind the flow, make three members and start one to three runs."""
        self.bound = await self.rig.bind(*self.flow.tasks, **self.flow.modes)
        for _ in range(3):
            await self.make_member()
        for number in range(self.rnd.randint(1, 3)):
            await self.start_run(f"R{number}")

    async def start_run(self, run_id: str) -> None:
        values = [[place] for place in range(self.rnd.randint(0, 14))]
        self.inputs[run_id] = values
        at = self.rnd.choice((0, len(values), self.rnd.randint(0, len(values))))
        some = split(self.rnd, values[:at])
        complete = at == len(values) and self.rnd.random() < 0.7
        if not complete:
            self.unwritten[run_id] = [self._input(some_values) for some_values in values[at:]]
        submission = self.rig.submission(self.bound, run_id, inputs={"in": some}, complete=complete)
        for _ in range(self._calls()):
            assert (await self.rig.protocol.submit(submission))[0] == "OK"

    @staticmethod
    def _input(value: Value) -> Frame:
        return frame_of([value])

    async def write(self) -> None:
        """Write on at an open input, or close it."""
        run_id = self.rnd.choice(list(self.unwritten))
        left = self.unwritten[run_id]
        count = self.rnd.randint(0, len(left))
        frames, close = left[:count], count == len(left)
        del left[:count]
        self._writes += 1
        told = []
        for _ in range(self._calls()):
            status, *_ = await self.rig.protocol.push(
                run_id, 0, writer="w", number=self._writes, frames=frames, close=close
            )
            told.append(status)
        over = run_id in self.cancelled or self._is_over(run_id)
        assert told[0] == "OK" or (over and told[0] == "GONE"), told
        assert set(told[1:]) <= {"ALREADY" if told[0] == "OK" else "GONE"}, told
        if told[0] == "GONE":
            # The run needed no more: what is refused never was an input of it.
            values = self.inputs[run_id]
            del values[len(values) - count - len(left) :], left[:]
        if not left and (close or told[0] == "GONE"):
            del self.unwritten[run_id]

    async def cancel(self) -> None:
        run_id = self.rnd.choice(list(self.inputs))
        if not self._is_over(run_id):
            assert await self.rig.protocol.end(run_id, state="cancelled") == "cancelled"
            self.cancelled.add(run_id)

    def _is_over(self, run_id: str) -> bool:
        return self.rig.run(run_id)["state"] != "open"

    @property
    def is_over(self) -> bool:
        return not self.unwritten and all(map(self._is_over, self.inputs))

    # ---------------------------------------------------------------------------------------- the members

    def _calls(self) -> int:
        """How often a call is made: again where its reply was lost."""
        return 2 if self.rnd.random() < 0.2 else 1

    async def make_member(self, former: str = "") -> Member:
        self._names += 1
        member = Member(f"m{self._names}")
        for _ in range(self._calls()):
            await self.rig.join(member.name, former=former)
        self.members.append(member)
        self.narrow()
        return member

    def narrow(self) -> None:
        """Make windows so small that they matter; whoever joins or goes sets them anew."""
        self.rig.client.hset(self.rig.keys.windows, mapping=dict.fromkeys(self.rig.works, WINDOW))

    async def take(self, member: Member) -> None:
        await self.recover(member)
        works = self.rnd.sample(self.rig.works, self.rnd.randint(1, len(self.rig.works)))
        taken = await self.rig.protocol.take(
            member.name, most=self.rnd.randint(1, 6), works=works, each=[self.rnd.randint(1, 3) for _ in works]
        )
        await self._receive(member, taken)

    async def reap(self, member: Member) -> None:
        await self.recover(member)
        slots = self.rnd.randint(0, 4)
        taken = await self.rig.protocol.reap(member.name, slots=slots, works=self.rig.works)
        assert taken is None or len(taken) <= slots
        await self._receive(member, taken)
        self.counts["taken over"] += len(taken or ())

    async def recover(self, member: Member) -> None:
        if member.has_lost_a_reply:
            member.has_lost_a_reply = False
            found = await self.rig.protocol.recover(member.name, works=self.rig.works)
            if found is None:
                await self.replace(member)
            else:
                self.counts["recovered"] += sum((d.work, d.entry_id) not in member.held for d in found)
                member.receive(found)

    async def _receive(self, member: Member, taken: list[Delivery] | None) -> None:
        if taken is None:
            await self.replace(member)
        elif self.rnd.random() < 0.1:
            member.has_lost_a_reply = True
        else:
            member.receive(taken)

    async def replace(self, member: Member) -> None:
        """A member heard that it is none any more."""
        self.counts["fenced"] += 1
        if member in self.members:
            self.members.remove(member)
            await self.make_member(former=member.name if self.rnd.random() < 0.5 else "")
        elif member in self.zombies:
            self.zombies.remove(member)

    async def crash(self, member: Member) -> None:
        self.rig.client.zadd(self.rig.keys.members, {member.name: 1}, xx=True)
        self.members.remove(member)
        await self.make_member()

    async def leave(self, member: Member) -> None:
        for _ in range(self._calls()):
            await self.rig.protocol.leave(member.name)
        self.members.remove(member)
        await self.make_member()

    async def freeze(self, member: Member) -> None:
        """It pauses beyond its lease, and will come back with all it held."""
        self.zombies.append(member)
        await self.crash(member)

    # ------------------------------------------------------------------------------------------ the settling

    async def settle(self, member: Member) -> None:
        """Settle some of what a member holds, bring some forward, perhaps repeat the call."""
        chosen = self.rnd.sample(list(member.held.values()), self.rnd.randint(1, len(member.held)))
        drawn = [self.outcome(held) for held in chosen]
        told = await self.rig.settle(member.name, *drawn)
        if set(told) == {Status.FENCED}:
            await self.replace(member)
            return
        assert set(told) <= {Status.OK, Status.GONE}, told
        if self.rnd.random() < 0.3:
            again = await self.rig.settle(member.name, *drawn)
            assert all(
                b is Status.ALREADY or (b is Status.GONE and (s.step or a is Status.GONE))
                for s, a, b in zip(drawn, told, again, strict=True)
            ), (told, again)
        for held, settlement, status in zip(chosen, drawn, told, strict=True):
            self.counts[f"{'advance' if settlement.step else 'end'} {status}"] += 1
            if not settlement.step:
                del member.held[(held.delivery.work, held.delivery.entry_id)]

    def outcome(self, held: Held) -> Settlement:
        if held.left and self.rnd.random() < 0.25:
            return self._advance(held)
        return self._end(held)

    def _advance(self, held: Held) -> Settlement:
        """Some of what is left is finished now, and perhaps some given back; the delivery stays."""
        held.step += 1
        held.delivery.step = held.step
        count = self.rnd.randint(0, len(held.left))
        now, held.left = held.left[:count], held.left[count:]
        out = Settlement(held.delivery, step=held.step)
        self._finish(out, now)
        if held.delivery.frame.count:
            out.done = len(now)
            back = self.rnd.randint(0, len(held.left)) if self.rnd.random() < 0.3 else 0
            self._give_back(out, held.left[len(held.left) - back :])
            del held.left[len(held.left) - back :]
        out.mark = msgpack.packb(held.left)
        return out

    def _end(self, held: Held) -> Settlement:
        out = Settlement(held.delivery)
        name = self.rig.name_of(held.delivery)
        if not held.delivery.frame.count:
            if self._fails(name, held.delivery.run_id):
                mark = msgpack.packb(held.left)
                out.retries.append(Requeue(held.delivery.frame, held.delivery.attempt + 1, mark))
            else:
                self._finish(out, held.left)
                out.done = 1
            return out
        cut = self.rnd.randint(0, len(held.left)) if self.rnd.random() < 0.2 else len(held.left)
        now, later = held.left[:cut], held.left[cut:]
        values = values_of(held.delivery.frame)
        failed = [index for index in now if self._fails(name, f"{held.delivery.run_id} {values[index]}")]
        finished = [index for index in now if index not in failed]
        self._finish(out, finished)
        out.done = len(finished)
        self._give_back(out, later)
        again = [Requeue(part, held.delivery.attempt + 1) for part in self._frames(held.delivery, failed)]
        out.retries += again
        return out

    def _fails(self, name: str, what: str) -> bool:
        if self.failures[(name, what)] >= MOST_FAILURES or self.rnd.random() > 0.1:
            return False
        self.failures[(name, what)] += 1
        self.counts["failure"] += 1
        return True

    def _finish(self, out: Settlement, indexes: Sequence[int]) -> None:
        """Publish what some of the values give, or a part of what a task of whole streams gives."""
        results: dict[int, list[Value]] = defaultdict(list)
        values = values_of(out.delivery.frame)
        for output, stream in self.bound.outputs[out.delivery.node].items():
            for index in indexes:
                if values:
                    results[stream] += given(output, values[index])
                else:
                    results[stream].append(given_by_whole(output)[index])
        for stream, some in results.items():
            out.outputs += [(stream, part) for part in split(self.rnd, some)]

    def _give_back(self, out: Settlement, indexes: Sequence[int]) -> None:
        out.returned += [Requeue(part, out.delivery.attempt) for part in self._frames(out.delivery, indexes)]

    def _frames(self, delivery: Delivery, indexes: Sequence[int]) -> list[Frame]:
        values = values_of(delivery.frame)
        return split(self.rnd, [values[index] for index in indexes])

    # --------------------------------------------------------------------------------------------- the course

    async def step(self, *, calm: bool = False) -> None:
        """Let one thing happen; nothing bad if `calm`."""
        self.narrow()
        member = self.rnd.choice(self.members)
        act = self.rnd.random()
        if act < 0.30:
            await self.take(member)
        elif act < 0.70:
            if member.held:
                await self.settle(member)
        elif act < 0.78:
            await self.reap(member)
        elif act < 0.84:
            await self.rig.protocol.promote()
        elif act < 0.88:
            if self.unwritten:
                await self.write()
        elif not calm:
            await self.disturb(member, act)

    async def disturb(self, member: Member, act: float) -> None:
        if act < 0.905:
            await self.crash(member)
        elif act < 0.935:
            await self.freeze(member)
        elif act < 0.95:
            await self.leave(member)
        elif act < 0.953:
            await self.cancel()
        elif self.zombies and (zombie := self.rnd.choice(self.zombies)).held:
            await self.settle(zombie)

    def check_windows(self) -> None:
        for index, node in enumerate(self.bound.plan.nodes):
            for run_id in self.inputs:
                queued = self.rig.queued(self.bound, node.name, run_id=run_id)
                whole = self.flow.is_whole(node.name)
                assert queued <= (1 if whole else WINDOW), (node.name, run_id, queued)
                if not self._is_over(run_id):
                    assert queued == int(self.rig.run(run_id).get(f"q:{index}", 0))

    async def check_end(self) -> None:
        """All that was promised, after everything has ended."""
        for run_id, inputs in self.inputs.items():
            self._check_run(run_id, self.flow.expected(inputs))
        await self._settle_the_rest()
        keys = self.rig.keys
        assert not self.rig.client.exists(keys.marks, keys.due, keys.later)
        assert all(self.rig.client.xlen(work) == 0 for work in self.rig.works)

    def _check_run(self, run_id: str, expected: dict[str, list[Value]]) -> None:
        run = self.rig.run(run_id)
        state = "cancelled" if run_id in self.cancelled else "done"
        assert run["state"] == state
        assert self.rig.lasting(run_id) == []
        for name, values in expected.items():
            entries = self.rig.stream(self.bound, name, run_id)
            found = [value for entry in entries for value in entry.values]
            assert name == "in" or found == [list(line) for entry in entries for line in entry.lineages]
            missing = Counter(map(str, values)) - Counter(map(str, found))
            extra = Counter(map(str, found)) - Counter(map(str, values))
            assert not extra, (run_id, name, extra)
            ended = self.rig.ended(self.bound, name, run_id)
            if state == "done":
                assert not missing, (run_id, name, missing)
                assert ended == "done"
            else:
                assert ended in ("done", state)
                assert ended == state or not missing, (run_id, name, missing)
        if state == "done":
            assert {run[f"o:{index}"] for index in range(len(self.bound.plan.nodes))} == {"0"}

    async def _settle_the_rest(self) -> None:
        """What is left of cancelled runs is dropped when it is met."""
        for member in [*self.members, *self.zombies]:
            self.rig.client.zadd(self.rig.keys.members, {member.name: 1}, xx=True)
        last = await self.rig.join("last")
        while left := [*await self.rig.reap(last), *await self.rig.take(last)]:
            assert set(await self.rig.settle(last, *(Settlement(d) for d in left))) == {Status.GONE}
        while (await self.rig.protocol.promote())[0]:
            pass
        assert await self.rig.take(last) == []


async def simulate(rig: Rig, seed: int, *, most_steps: int = 4000) -> Counter[str]:
    """Let a world go through its course, and check what it must have come to."""
    world = World(rig, seed)
    await world.start()
    for step in range(most_steps):
        if world.is_over:
            break
        await world.step(calm=step > most_steps // 2)
        if step % 10 == 0:
            world.check_windows()
    assert world.is_over, {run_id: rig.run(run_id) for run_id in world.inputs}
    await world.check_end()
    world.counts["steps"] = step
    return world.counts
