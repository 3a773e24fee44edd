"""Progress: how far a delivery has come, and the settlement that says so.

A delivery carries values by index. Each ends once: with outputs, to be retried, skipped, buried, or ending the run.
What has ended is put into the next settlement; `left` is what still belongs to this delivery afterwards, and the mark
kept with it tells a successor as much.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from datamesh.codec.blob import Blob
from datamesh.codec.failure import Failure
from datamesh.codec.frame import array_of, decode_lineages, encode_lineages, parts_of
from datamesh.codec.values import ValueCodec
from datamesh.errors import DatameshError
from datamesh.model.values import IOVal
from datamesh.store.frames import PLAIN, WITH_BLOBS, Burial, Delivery, Frame, Requeue, Settlement
from datamesh.supervise.emitter import Emitter
from datamesh.supervise.marked import Emitted, Marked
from datamesh.supervise.repeating import RaisedElsewhere, is_charged, retry_ms
from datamesh.supervise.served import Served
from datamesh.supervise.suspicion import Suspicion

_SORTED = frozenset({IOVal, tuple, list, type(None)})
"""Types of what may be returned that are more, or less, than one value of the single output."""

Given = tuple[str, int | None, Any]
"""Output, place among what one invocation gave to it (None: the only one, which keeps the lineage), value."""


class Progress:
    """The outcomes of one delivery, collected for its next settlement."""

    def __init__(self, delivery: Delivery, served: Served, outputs: Mapping[str, int], service: str) -> None:
        self.delivery = delivery
        self._served = served
        self._outputs = outputs
        self._service = service
        marked = Marked.read(delivery)
        self.left: dict[int, None] = dict.fromkeys(marked.left)
        self._given: dict[int, list[Given]] = {}
        self.bare: dict[int, Any] = {}
        """What a function with a single output has returned, by index, as it did; the hot path writes here."""
        self._emitters: dict[int, Emitter] = {}
        self._marks = dict(marked.emitted)
        self.suspicion = Suspicion(marked, served)
        self._failed: dict[int, BaseException] = {}
        self._returned: list[Requeue] = []
        self._lineages: list[tuple[int, ...]] | None = None
        self._parts: list[bytes] | None = None
        self.first_retry_ms: int | None = None
        """When the first of the retries that were told last is due."""

    # ----------------------------------------------------------------------------------------- what is told

    def emitter(self, index: int) -> Emitter:
        """Begin to collect what the generator for a value yields."""
        lineage = self._lineage(index) if self.delivery.frame.count else ()
        emitter = Emitter(self._served.binding.task.name, lineage, self._served.outputs, self._marks.get(index))
        self._emitters[index] = emitter
        return emitter

    def emitter_of(self, index: int) -> Emitter:
        """The emitter for a value, made now if there is none."""
        return self._emitters.get(index) or self.emitter(index)

    def state_of(self, index: int) -> bytes | None:
        """What an earlier attempt gave to its last checkpoint, encoded."""
        earlier = self._marks.get(index)
        return None if earlier is None else earlier.state

    def finish(self, index: int, given: list[Given]) -> None:
        """A value ended well, and gave these; nothing of it was sent before."""
        self._emitters.pop(index, None)
        self._given[index] = given

    def finish_generator(self, index: int) -> None:
        """The generator for a value ended well.

        Raises:
            DatameshError: It did not repeat what was published before, or its values cannot be sent.
        """
        emitter = self.emitter_of(index)
        emitter.check_end()
        if emitter.has_sent:
            self.finish_emitted(index)
        else:
            self.finish(index, list(emitter.pairs()))

    def restart(self, index: int) -> None:
        """The invocation for a value begins anew, behind what it has published so far."""
        emitter = self._emitters.pop(index, None)
        if emitter is not None and emitter.has_sent:
            self._marks[index] = emitter.mark()

    def finish_emitted(self, index: int) -> None:
        """A value ended well; what its generator yielded last is still with its emitter."""
        self._given[index] = []

    def fail(self, index: int, error: BaseException) -> None:
        """A value ended with an error."""
        self._failed[index] = error

    def give_back(self, indexes: Sequence[int], size: int) -> None:
        """Return values, in frames of `size`, so that others may take them.

        One that has published something already goes alone, because that goes with it.
        """
        plain = [index for index in indexes if not self.has_sent(index)]
        for start in range(0, len(plain), size):
            some = plain[start : start + size]
            self._returned.append(Requeue(self._slice(some), self.delivery.attempt, self.suspicion.mark(some)))
        self._returned += [self._again(index) for index in indexes if self.has_sent(index)]
        for index in indexes:
            self.left.pop(index, None)
            self._emitters.pop(index, None)

    def release(self) -> None:
        """Return everything that has not ended, as it would be after a crash."""
        ended = self._given.keys() | self._failed.keys() | self.bare.keys()
        self.give_back([index for index in self.left if index not in ended], 256)

    @property
    def is_dirty(self) -> bool:
        """Whether a settlement now would say anything."""
        ended = self.bare or self._given or self._failed or self._returned
        return bool(ended) or any(emitter.is_dirty for emitter in self._emitters.values())

    # ------------------------------------------------------------------------------------------- settlements

    def settlement(self, *, final: bool) -> tuple[Settlement, dict[str, bytes]]:
        """Take everything that was told since the last one.

        Args:
            final: It ends the delivery; all values have ended or were given back.

        Returns:
            The settlement, and large values to be stored before it.
        """
        blobs: dict[str, bytes] = {}
        out = Settlement(self.delivery)
        self._take_bare(out, blobs)
        self._take_emitted(out, blobs)
        self._take_given(out, blobs)
        self._take_failed(out)
        out.returned, self._returned = self._returned, []
        if not final:
            self.delivery.step += 1
            out.step = self.delivery.step
            out.mark = self._mark(out).pack()
        return out, blobs

    def _mark(self, out: Settlement) -> Marked:
        if out.outputs and self.delivery.frame.count <= 1:
            # One invocation that goes on publishing is not what its holders died of.
            self.suspicion.forget()
        return self.suspicion.marked(self.left, self._all_marks(), self.delivery.deaths)

    @property
    def takes_bare(self) -> bool:
        """Whether what the function returns may be put into `bare`."""
        return len(self._outputs) == 1 and self._served.binding.emits

    def _take_bare(self, out: Settlement, blobs: dict[str, bytes]) -> None:
        """Encode what was returned in one go where it is plain: a value for each value, in the same frame."""
        bare = self.bare.copy()
        self.bare.clear()
        if not bare:
            return
        frame = self.delivery.frame
        (name, stream), *_ = self._outputs.items()
        if len(bare) == frame.count and _SORTED.isdisjoint(map(type, bare.values())):
            try:
                encoded = self._codec(name).frames([bare[index] for index in range(frame.count)])
            except DatameshError:
                encoded = []
            if len(encoded) == 1:
                flags = _keep(encoded[0].blobs, blobs)
                out.outputs.append((stream, Frame(frame.count, flags, frame.lineages, encoded[0].payload)))
                out.done += frame.count
                self.left.clear()
                return
        for index, value in bare.items():
            self._sort(index, value)

    def _sort(self, index: int, value: Any) -> None:
        try:
            self._given[index] = placed(self._served.binding.outputs_of(value), whole=False)
        except DatameshError as error:
            self._failed[index] = error

    def _take_given(self, out: Settlement, blobs: dict[str, bytes]) -> None:
        given, self._given = self._given, {}
        while given:
            try:
                frames = self._encode(given, blobs)
            except DatameshError as error:
                self._reject(given, error)
                continue
            out.outputs += frames
            break
        for index, items in given.items():
            emitter = self._emitters.pop(index, None)
            out.fan_out = max(out.fan_out, len(items), 0 if emitter is None else emitter.given)
            self.left.pop(index, None)
        out.done += len(given)

    def _reject(self, given: dict[int, list[Given]], error: DatameshError) -> None:
        """Find the values whose outputs cannot be sent; they have failed, the others have not."""
        culprits = {index: found for index, items in given.items() if (found := self._problem(items)) is not None}
        # Where it is none of them, it is the frame that they came in.
        culprits = culprits or dict.fromkeys(given, error)
        for index, found in culprits.items():
            del given[index]
            self._failed[index] = found

    def _problem(self, items: list[Given]) -> DatameshError | None:
        try:
            for name, _, value in items:
                self._served.outputs[name].frames([value])
        except DatameshError as error:
            return error
        return None

    def _encode(self, given: Mapping[int, list[Given]], blobs: dict[str, bytes]) -> list[tuple[int, Frame]]:
        values: dict[str, list[Any]] = {}
        origins: dict[str, list[tuple[int, int | None]]] = {}
        for index in sorted(given):
            for name, place, value in given[index]:
                values.setdefault(name, []).append(value)
                origins.setdefault(name, []).append((index, place))
        frames = []
        for name, some in values.items():
            for encoded in self._codec(name).frames(some):
                lineages = self._block(origins[name], encoded.start, encoded.count)
                flags = _keep(encoded.blobs, blobs)
                frames.append((self._outputs[name], Frame(encoded.count, flags, lineages, encoded.payload)))
        return frames

    def _take_emitted(self, out: Settlement, blobs: dict[str, bytes]) -> None:
        for index, emitter in list(self._emitters.items()):
            if not emitter.is_dirty or (index in self._failed and not self._is_last_word(index)):
                continue
            kept: list[Blob] = []
            out.fan_out = max(out.fan_out, emitter.given)
            out.outputs += [(self._outputs[name], frame) for name, frame in emitter.drain(kept.append)]
            _keep(kept, blobs)
            if emitter.error is not None and self._given.pop(index, None) is not None:
                self._failed[index] = emitter.error

    def _take_failed(self, out: Settlement) -> None:
        failed, self._failed = self._failed, {}
        again: dict[tuple[int, int], list[int]] = {}
        for index, error in failed.items():
            delay, attempt = self._retry_delay(error), self.delivery.attempt + is_charged(error)
            if delay is None:
                self._bury(out, index, error)
            elif self.has_sent(index):
                out.retries.append(self._again(index, attempt=attempt, delay_ms=delay))
            else:
                again.setdefault((delay, attempt), []).append(index)
            self._emitters.pop(index, None)
            self.left.pop(index, None)
        for (delay, attempt), indexes in again.items():
            out.retries.append(Requeue(self._slice(indexes), attempt, delay_ms=delay))
        self.first_retry_ms = min((one.delay_ms for one in out.retries), default=None)

    def _bury(self, out: Settlement, index: int, error: BaseException) -> None:
        failure = error.failure if isinstance(error, RaisedElsewhere) else self._failure(error)
        match self._served.binding.options.on_error:
            case "skip":
                out.skipped += 1
            case "dead":
                mark = self._again(index, attempt=1).mark if self.has_sent(index) else b""
                out.burials.append(Burial(self._slice([index]), self.delivery.attempt, failure, mark))
            case _:
                out.failure = out.failure or failure

    def _failure(self, error: BaseException) -> bytes:
        return Failure.of(
            error, task=self._served.binding.task.name, attempt=self.delivery.attempt, run_id=self.delivery.run_id,
            service=self._service,
        ).pack()  # fmt: skip

    # ------------------------------------------------------------------------------------------------ details

    def _retry_delay(self, error: BaseException) -> int | None:
        """Milliseconds until the next attempt; None if there is none."""
        return retry_ms(error, self._served.binding.options.retry, self.delivery.attempt)

    def _is_last_word(self, index: int) -> bool:
        return self._retry_delay(self._failed[index]) is None

    def has_sent(self, index: int) -> bool:
        """Whether something of the invocation for a value is published or kept already."""
        emitter = self._emitters.get(index)
        return emitter.has_sent if emitter is not None else index in self._marks

    def _again(self, index: int, *, attempt: int | None = None, delay_ms: int = 0) -> Requeue:
        """One value with what it has published, as a delivery of its own."""
        emitter = self._emitters.get(index)
        emitted = emitter.mark() if emitter is not None else self._marks.get(index, Emitted())
        mark = Marked([0], {0: emitted}, carried=0 if attempt else self.suspicion.carried)
        return Requeue(self._slice([index]), attempt or self.delivery.attempt, mark.pack(), delay_ms)

    def _all_marks(self) -> dict[int, Emitted]:
        marks = {index: mark for index, mark in self._marks.items() if index in self.left}
        for index, emitter in self._emitters.items():
            if index in self.left and emitter.has_sent:
                marks[index] = emitter.mark()
        return marks

    def _codec(self, name: str) -> ValueCodec:
        return self._served.outputs[name]

    def _lineage(self, index: int) -> tuple[int, ...]:
        if self._lineages is None:
            self._lineages = decode_lineages(self.delivery.frame.lineages)
        return self._lineages[index]

    def _block(self, origins: Sequence[tuple[int, int | None]], start: int, count: int) -> bytes:
        frame = self.delivery.frame
        if count == frame.count == len(origins) and all(o == (k, None) for k, o in enumerate(origins)):
            return frame.lineages
        some = origins[start : start + count]
        if not frame.count:
            return encode_lineages([(place or 0,) for _, place in some])
        return encode_lineages([self._lineage(i) if place is None else (*self._lineage(i), place) for i, place in some])

    def _slice(self, indexes: Sequence[int]) -> Frame:
        frame = self.delivery.frame
        if len(indexes) == frame.count or not frame.count:
            return frame
        lineages = encode_lineages([self._lineage(index) for index in indexes])
        if self._parts is None:
            self._parts = parts_of(frame.values)
        return Frame(len(indexes), frame.flags, lineages, array_of([self._parts[index] for index in indexes]))


def _keep(found: Iterable[Blob], blobs: dict[str, bytes]) -> str:
    flags = PLAIN
    for blob in found:
        blobs[blob.digest] = blob.body
        flags = WITH_BLOBS
    return flags


def placed(pairs: Sequence[tuple[str, Any]], *, whole: bool) -> list[Given]:
    """Give each value its place among those that one invocation returned for the same output.

    Args:
        pairs: (output, value), as returned.
        whole: The invocation was for a whole stream; its values are numbered even where there is one.
    """
    if len(pairs) == 1 and not whole:
        return [(pairs[0][0], None, pairs[0][1])]
    counts: dict[str, int] = {}
    for name, _ in pairs:
        counts[name] = counts.get(name, 0) + 1
    seen: dict[str, int] = {}
    given: list[Given] = []
    for name, value in pairs:
        place = seen.get(name, 0)
        seen[name] = place + 1
        given.append((name, place if whole or counts[name] > 1 else None, value))
    return given
