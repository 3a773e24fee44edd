"""Acts of the dead: entries that nobody can read are buried or put off, and dead letters are brought back."""

from __future__ import annotations

from datamesh.store.dead import DeadStream, Head, Letter
from datamesh.store.frames import Delivery, Frame
from tests.protocol.invariants import dead_of
from tests.protocol.look import JUNK_FIELDS, JUNK_PIECE, finish
from tests.protocol.model import JUNK
from tests.protocol.outcomes import HOUR_MS
from tests.protocol.world import World


def write_junk(world: World) -> bool:
    """Somebody writes into a work stream what nobody can read."""
    junk = world.shard.past[JUNK]
    if junk.frames[JUNK_PIECE] > 2:
        return False
    work = world.rnd.choice(world.works)
    world.tell(f"junk in {work}")
    world.link.send("XADD", work, "*", *JUNK_FIELDS)
    junk.frames[JUNK_PIECE] += 1
    return True


def discard(world: World) -> bool:
    """Who holds such an entry buries it, or puts it off; or somebody tries who does not hold it."""
    found = [(key, e) for key, e in world.shard.entries.items() if e.run is world.shard.past[JUNK] and e.holder]
    if not found:
        return False
    key, entry = world.rnd.choice(found)
    member = entry.holder if world.rnd.random() < 0.8 else world.member()
    if member is None:
        return False
    delay = world.rnd.choice((0, HOUR_MS))
    nothing = Frame(0, "-", b"", b"")
    delivery = Delivery(*key, "", "", 0, 1, nothing, b"", problem="junk", raw=b"raw")

    def call() -> None:
        expected = world.shard.discard(member, key, is_parked=delay > 0)
        told = finish(world.protocol.discard(member, delivery, "reason", delay_ms=delay))
        assert told == expected, f"{told}, and must be {expected}"

    world.tell(f"{member} discards {key[1]} of {key[0]}, delay {delay}", call)
    call()
    return True


def redrive(world: World) -> bool:
    """A dead letter is brought back into its run, if that goes on."""
    letters = [letter for letter in world.look.entries.get("dead", []) if "m" in letter]
    if not letters:
        return False
    fields = world.rnd.choice(letters)
    dead = dead_of(fields)
    head = Head(dead.run, dead.origin, "", dead.node, dead.attempt)
    letter = Letter(fields["id"].decode(), head, Frame(0, "-", b"", b""), b"")
    expected = world.shard.redrive(dead)

    def call() -> None:
        told = finish(DeadStream(world.protocol).redrive(letter, head))
        assert told == (expected if expected != "OK" or is_first else "ALREADY"), told

    is_first = True
    world.tell(f"{letter.entry_id} of {dead.run} comes back: {expected}", call)
    call()
    is_first = False
    return True
