"""Acts of members: join, take, settle, die, come back as zombies, and take over from each other."""

from __future__ import annotations

from dataclasses import replace

import pytest

from datamesh.store.frames import Delivery, Settlement, Status
from datamesh.store.link import ReplyError
from tests.protocol.look import finish
from tests.protocol.outcomes import Held, Outcomes
from tests.protocol.world import LEASE_MS, MOST_MEMBERS, World

SMALL_WINDOWS = (1, 2, 3, 0)
"""Frames that a run may have in a work stream; 0 leaves the window as it is."""
MARKS = ("", "6 3", "3 1", "1 0")
"""High and low mark of tasks."""


def join(world: World) -> bool:
    """A new member, or one that was fenced and comes back under a new name."""
    shard = world.shard
    if len(shard.members) >= MOST_MEMBERS:
        return False
    gone = sorted(name for name in world.beliefs if name not in shard.members)
    former = world.rnd.choice(["", *gone[-3:]]) if world.rnd.random() < 0.7 else (world.member() or "")
    member, works, slots = world.name("m"), world.works, world.rnd.randint(1, 3)
    pressure = [world.rnd.choice(MARKS)] * len(works)
    world.tell(f"{member} joins, was {former!r}, marks {pressure[0]!r}")
    finish(
        world.protocol.join(
            member, lease_ms=LEASE_MS, former=former, announcement=f"{slots} x", works=works, pressure=pressure
        )
    )
    shard.remove(former)
    shard.members.add(member)
    world.beliefs[member] = {}
    narrow(world)
    return True


def narrow(world: World) -> None:
    """Make windows so small that they matter."""
    if window := world.rnd.choice(SMALL_WINDOWS):
        for work in world.works:
            world.link.send("HSET", world.keys.windows, work, window)


def leave(world: World) -> bool:
    if (member := world.member()) is None:
        return False

    def call() -> None:
        finish(world.protocol.leave(member))

    world.tell(f"{member} leaves", call)
    call()
    world.shard.remove(member)
    return True


def expire(world: World) -> bool:
    """A lease is over; its member does not know, and nobody has noticed."""
    if (member := world.member()) is None:
        return False
    world.tell(f"the lease of {member} is over")
    world.link.send("ZADD", world.keys.members, "XX", 1, member)
    world.shard.expired.add(member)
    return True


def beat(world: World) -> bool:
    """A beat extends a lease, and tells of all that nobody looks after."""
    names = sorted(world.beliefs)
    if not names:
        return False
    member = world.rnd.choice(names)
    shard = world.shard
    world.tell(f"{member} beats")
    told = finish(world.protocol.beat(member, lease_ms=LEASE_MS))
    assert told.fenced == (member not in shard.members)
    if not told.fenced:
        shard.expired.discard(member)
        assert told.expired == len(shard.expired)
        left = any(e.holder not in shard.members for e in shard.entries.values() if e.holder)
        assert told.orphans or told.expired or not left, "nobody hears of entries that belong to nobody"
        assert (told.due_ms == -1) == (not world.look.scores.get("due"))
        assert told.due_ms != 0 or world.due_now()
    return True


# ------------------------------------------------------------------------------------------------------- taking


def take(world: World) -> bool:
    """Some member, or one that was, takes entries; the reply may get lost."""
    names = sorted(world.shard.members) * 5 + sorted(world.beliefs)
    works = world.works
    if not names or not works:
        return False
    member, most = world.rnd.choice(names), world.rnd.randint(1, 6)
    chosen = world.rnd.sample(works, world.rnd.randint(1, len(works)))
    each = [world.rnd.randint(1, 3) for _ in chosen]
    world.tell(f"{member} takes {most}")
    expected = _expected(world, chosen, each, most)
    if expected is None and member in world.shard.members:
        with pytest.raises(ReplyError, match="NOGROUP"):
            finish(world.protocol.take(member, most=most, works=chosen, each=each))
        return True
    taken = finish(world.protocol.take(member, most=most, works=chosen, each=each))
    if member not in world.shard.members:
        assert taken is None, f"{member} is none, and was given {taken}"
        return True
    assert taken is not None
    assert expected == [(d.work, d.entry_id) for d in taken], f"{expected} were there, {taken} taken"
    world.receive(member, taken, is_lost=world.rnd.random() < 0.1)
    return bool(taken)


def _expected(world: World, works: list[str], each: list[int], most: int) -> list[tuple[str, str]] | None:
    """Entries that a call must give; None: it must fail, because a group is gone and nothing stood before it."""
    found: list[tuple[str, str]] = []
    for work, n in zip(works, each, strict=True):
        if len(found) >= most:
            break
        there = world.look.works.get(work[len(world.keys.prefix) :])
        if there is None or there.read_to is None:
            return found or None
        found += [(work, entry_id) for entry_id in there.unread()[: min(n, most - len(found))]]
    return found


def read_late(world: World) -> bool:
    """A read that a removed member has left behind is given an entry."""
    watched = [name for name, until in world.look.scores.get("orphans", {}).items() if " " not in name and until > 1]
    works = [work for work in world.works if work[len(world.keys.prefix) :] in world.look.works]
    if not watched or not works:
        return False
    member, work = world.rnd.choice(watched), world.rnd.choice(works)
    there = world.look.works[work[len(world.keys.prefix) :]]
    if there.read_to is None or not (unread := there.unread()):
        return False
    world.tell(f"{member} is given an entry late")
    world.link.send("XREADGROUP", "GROUP", "g", member, "COUNT", 1, "STREAMS", work, ">")
    run_id, origin, piece = there.entries[unread[0]]
    world.shard.hand((work, unread[0]), world.shard.past[(run_id, origin)], piece, member)
    return True


def end_watch(world: World) -> bool:
    """Members were removed so long ago that nothing of them can read any more; meanwhile somebody has looked."""
    watched = [name for name in world.look.scores.get("orphans", {}) if " " not in name]
    alive = sorted(world.shard.members - world.shard.expired)
    if not alive or not watched:
        return False
    _reap(world, alive[0], 0, world.works)
    world.tell(f"{watched} are watched no more")
    for name in watched:
        world.link.send("ZADD", world.keys.orphans, "XX", 1, name)
    return bool(watched)


def recover(world: World) -> bool:
    """A member asks for all that it holds."""
    names = sorted(world.beliefs)
    if not names:
        return False
    member, works = world.rnd.choice(names), world.works
    world.tell(f"{member} recovers")
    found = finish(world.protocol.recover(member, works=works))
    if member not in world.shard.members:
        assert found is None
        return True
    assert found is not None
    expected = world.shard.held_by(member, works)
    assert {(d.work, d.entry_id) for d in found} == set(expected)
    _check_marks(world, found)
    world.receive(member, found, is_lost=False)
    return True


def reap(world: World) -> bool:
    """A member takes over what belongs to nobody, as far as it has slots."""
    names = sorted(world.beliefs)
    if not names:
        return False
    member, slots, works = world.rnd.choice(names), world.rnd.choice((0, 1, 2, 9)), world.works
    if world.rnd.random() < 0.5:
        works = world.rnd.sample(works, 2)  # it implements some of the tasks only
    _reap(world, member, slots, works)
    return True


def _reap(world: World, member: str, slots: int, works: list[str]) -> None:
    shard = world.shard
    world.tell(f"{member} reaps with {slots} slots")
    found = finish(world.protocol.reap(member, slots=slots, works=works))
    if member not in shard.members or member in shard.expired:
        assert found is None
        return
    for gone in sorted(shard.expired):
        shard.remove(gone)
    ownerless = shard.ownerless(works)
    assert found is not None
    taken = {(d.work, d.entry_id) for d in found}
    assert taken <= set(ownerless), f"{taken - set(ownerless)} belong to members"
    assert len(taken) == len(found) == min(slots, len(ownerless)), f"{len(found)} of {len(ownerless)} with {slots}"
    _check_marks(world, found)
    world.receive(member, found, is_lost=world.rnd.random() < 0.1)
    narrow(world)


def _check_marks(world: World, found: list[Delivery]) -> None:
    for delivery in found:
        entry = world.shard.entries[(delivery.work, delivery.entry_id)]
        assert delivery.step == entry.kept, f"{delivery.id} is at step {delivery.step}, and must be at {entry.kept}"
        assert delivery.mark == (entry.mark if entry.kept else entry.piece.mark)


# ------------------------------------------------------------------------------------------------------ settling


def settle(world: World) -> bool:
    """A member settles some of what it believes to hold."""
    holders = [name for name in sorted(world.shard.members) if world.beliefs[name]]
    return bool(holders) and _settle(world, world.rnd.choice(holders))


def settle_as_zombie(world: World) -> bool:
    """One that is no member any more settles what it held."""
    zombies = [n for n, held in sorted(world.beliefs.items()) if held and n not in world.shard.members]
    return bool(zombies) and _settle(world, world.rnd.choice(zombies))


def settle_for_another(world: World) -> bool:
    """A member settles what another one holds, or has held."""
    holders = [name for name, held in sorted(world.beliefs.items()) if held]
    member = world.member()
    return bool(holders and member) and _settle(world, world.rnd.choice(holders), by=member)


def settle_with_old_step(world: World) -> bool:
    """A member does not know of the last advances of what it holds, or knows of some that are lost."""
    found = [
        (name, held)
        for name in sorted(world.shard.members)
        for key, held in world.beliefs[name].items()
        if (e := world.shard.entries.get(key)) and e.holder == name
    ]
    if not found:
        return False
    name, held = world.rnd.choice(found)
    wrong = replace(held.delivery, step=world.rnd.choice((0, max(0, held.delivery.step - 1), held.delivery.step + 1)))
    if wrong.step == world.shard.entries[(wrong.work, wrong.entry_id)].kept:
        return False
    _send(world, name, [Outcomes(world.rnd).draw(world.bound_of(wrong), Held(wrong, list(held.left)))])
    return True


def _settle(world: World, holder: str, *, by: str | None = None) -> bool:
    held = world.beliefs[holder]
    keys = world.rnd.sample(sorted(held), world.rnd.randint(1, min(4, len(held))))
    draw = Outcomes(world.rnd).draw
    items = [draw(world.bound_of(held[key].delivery), held[key]) for key in keys]
    if world.rnd.random() < 0.03:
        items.append(items[0])
    told = _send(world, by or holder, items)
    if by is None or by == holder:
        for key, item, status in zip(keys, items, told, strict=False):
            _learn(world, holder, key, item, status)
    return True


def _learn(world: World, holder: str, key: tuple[str, str], item: Settlement, status: Status) -> None:
    """An owner knows of what it was told; one that was fenced goes on as if it had heard nothing."""
    held = world.beliefs[holder]
    if status in (Status.FENCED, Status.UNKNOWN):
        return
    if not item.step or status is Status.GONE:
        del held[key]
    elif status is Status.OK:
        delivery = replace(held[key].delivery, step=item.step, mark=item.mark)
        held[key] = Held.of(delivery)


def _send(world: World, member: str, items: list[Settlement]) -> list[Status]:
    def call() -> None:
        expected = world.shard.settle(member, items)
        replies = finish(world.protocol.settle(member, items))
        told = [one.status for one in replies]
        assert told == expected, f"{told}, and must be {expected}"
        assert not any(one.is_full and not item.step for one, item in zip(replies, items, strict=True))
        statuses[:] = told

    statuses: list[Status] = []
    words = ", ".join(_words(item) for item in items)
    world.tell(f"{member} settles {words}", call)
    call()
    world.story[-1] += f" -> {' '.join(statuses)}"
    for status in statuses:
        world.counts[f"settled {status}"] += 1
    return statuses


def _words(item: Settlement) -> str:
    d = item.delivery
    return (
        f"{d.id} ({d.frame.count} values, step {item.step} after {d.step}: {item.done} done, {item.skipped} skipped,"
        f" {len(item.outputs)} out, {len(item.retries)} again, {len(item.returned)} back, {len(item.burials)} buried"
        f"{', fails' if item.failure else ''})"
    )


# ------------------------------------------------------------------------------------------------------ breaking


def lose_group(world: World) -> bool:
    """A group is gone; the next to join makes it anew."""
    found = [name for name, work in world.look.works.items() if work.read_to is not None and work.entries]
    if not found:
        return False
    name = world.rnd.choice(sorted(found))
    world.tell(f"the group of {name} is gone")
    world.link.send("XGROUP", "DESTROY", world.keys.prefix + name, "g")
    world.shard.lose_group(world.keys.prefix + name)
    return True


def forget_scripts(world: World) -> bool:
    world.tell("the server forgets all scripts")
    world.link.send("SCRIPT", "FLUSH")
    return True


def replay(world: World) -> bool:
    """The reply of the last call was lost: it is made again, and changes nothing."""
    if world.last is None:
        return False
    world.story.append(f"again: {world.last.words}")
    world.unchanged(world.last.again)
    return True
