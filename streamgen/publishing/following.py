"""A learner of another process, as it would be now: its checkpoint, led through what the topic got since.

Nothing is learned on the way: weights are the checkpoint's, carried state, clock and bounds are those of the
partition's end. Only the learners that are asked for are led, each by its own key's records.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import structlog
from pydantic import ValidationError

from streamgen.config import InputConfig
from streamgen.errors import BrokerUnavailable, RetryError
from streamgen.formats.decode import Decoder
from streamgen.kafka.tail import Tail
from streamgen.learners.results import chosen
from streamgen.learners.task import Task
from streamgen.publishing.comparison import Comparison
from streamgen.publishing.notation import LOOKBACK, Notation
from streamgen.publishing.requests import Refusal, Refused
from streamgen.records import Columns, RawBatch, TopicPartition
from streamgen.state.checkpoint import Checkpoint

log = structlog.get_logger()

MOST_BEHIND = 200_000  # records between a checkpoint and the end: to hold, and to lead a learner through
MOST_LED = 64  # learners that are kept where they were led to


@dataclass(slots=True)
class _Led:
    """A learner on its way; `next_offset` is of the next record that it has not seen."""

    task: Task
    next_offset: int


class Followed:
    """One partition of an input: `take` its checkpoints, `feed` it the tail, ask for a `learner`."""

    def __init__(self, source: TopicPartition, tail: Tail, device: str) -> None:
        self.source, self._tail, self._device = source, tail, device
        self.checkpoint: Checkpoint | None = None
        self.notation: Notation
        self.comparison = Comparison()  # of sequences with what then came
        self._decoder: Decoder
        self._config: InputConfig
        self._since: list[Columns] = []  # the records from the checkpoint's offset on
        self._count = 0
        self._led: OrderedDict[str | None, _Led] = OrderedDict()
        self._next_offset: int | None = None  # that the tail gives; None: it is not read
        self._why = ""  # it is not
        self._refusal = Refusal.STATE_TOO_OLD  # of what is asked for then
        self._is_dark = False  # the checkpoint is known, and no broker says from where on to read
        self._passed_over: Checkpoint | None = None  # of a topic that is gone

    @property
    def next_offset(self) -> int:
        """The end of what was read."""
        assert self._next_offset is not None
        return self._next_offset

    def take(self, checkpoint: Checkpoint | None) -> None:
        """The newest checkpoint, None: there is none any more. The same one again changes nothing.

        Raises `BrokerUnavailable` when its partition cannot be read: try again. Until then `end` raises it.
        """
        if checkpoint is self.checkpoint and not self._is_dark:
            return
        if checkpoint and checkpoint is self._passed_over:
            return
        before, self.checkpoint = self.checkpoint, checkpoint
        self._led.clear()
        self._is_dark = False
        if checkpoint is None:
            self.comparison.clear()
            self._stop("")
            return
        manifest = checkpoint.manifest
        is_same = (
            before is not None
            and before.manifest.fingerprint == manifest.fingerprint
            and before.manifest.topic_id == manifest.topic_id
        )
        if not is_same:
            self.comparison.clear()
        if (
            is_same
            and before is not None
            and self._next_offset is not None
            and before.manifest.offset <= manifest.offset <= self._next_offset
        ):
            kept = [_from(columns, manifest.offset) for columns in self._since]
            self._since = [columns for columns in kept if len(columns)]
            self._count = sum(map(len, self._since))
            return
        self._stop("")
        try:
            self._begin(checkpoint)
        except RetryError:
            self._next_offset, self._is_dark = None, True
            raise

    def _begin(self, checkpoint: Checkpoint) -> None:
        manifest = checkpoint.manifest
        if manifest.topic_id not in ("", self._tail.topic_id(self.source.topic)):
            log.warning("the state is of a topic of that name that is gone", source=str(self.source))
            self.checkpoint, self._passed_over = None, checkpoint
            return
        try:
            self._config = InputConfig.model_validate(manifest.input)
        except ValidationError as error:
            # Of another version: what is asked of it is refused, and the next checkpoint may be another one.
            wrong = error.errors()[0]
            name = ".".join(map(str, wrong["loc"]))
            self._stop(f"its configuration is of another version ({name}: {wrong['msg']})", Refusal.NO_STATE)
            return
        self._decoder = Decoder(self._config, manifest.features)
        self.notation = Notation(self._config, manifest.features)
        self._tail.begin(self.source, max(manifest.offset - LOOKBACK, 0))
        self._next_offset = self._tail.position(self.source)
        self.comparison.begin(self._next_offset)
        if self._next_offset > manifest.offset:
            self.lose()

    def feed(self, raw: RawBatch) -> None:
        """What the tail gave of the partition."""
        if self.checkpoint is None or self._next_offset is None:
            return
        self._next_offset = int(raw.offset_N[-1]) + 1
        columns = self._decoder.decode(raw).columns
        self.notation.note(raw, columns, self._next_offset)
        self.comparison.feed(columns)
        columns = _from(columns, self.checkpoint.manifest.offset)
        if len(columns):
            self._since.append(columns)
            self._count += len(columns)
        if self._count > MOST_BEHIND:
            self._stop(f"more than {MOST_BEHIND} records came since then: is its worker running?")

    def lose(self) -> None:
        """Records of the partition were removed before they were read."""
        if self._next_offset is not None:
            self._stop("records that came since then were removed by retention before they were read")

    def end(self) -> int:
        """The partition's end as it is now. Raises `BrokerUnavailable`."""
        if self._is_dark:
            raise BrokerUnavailable(f"{self.source} could not be read from where its checkpoint stands.")
        return 0 if self._next_offset is None else self._tail.end(self.source)

    def reached(self, end: int) -> bool:
        """Whether all before `end` is fed: call `feed` with what `Tail.poll` gives until it is. Where nothing
        is read there is nothing to wait for."""
        if self._next_offset is None:
            return True
        self._next_offset = max(self._next_offset, self._tail.position(self.source))  # beyond markers
        return self._next_offset >= end

    def learner(self, key: str | None) -> tuple[Task, Checkpoint]:
        """A task with the learner of a key that the checkpoint has, led to `next_offset`, and the checkpoint.
        Raises `Refused`."""
        checkpoint = self.checkpoint
        if checkpoint is None:
            raise Refused(Refusal.NO_STATE, f"there is no checkpoint of {self.source} yet")
        if self._next_offset is None:
            raise Refused(
                self._refusal,
                f"the newest checkpoint of {self.source} is of offset {checkpoint.manifest.offset}, and "
                f"{self._why}",
            )
        self._check_ttl(key, checkpoint)
        led = self._led.pop(key, None) or self._restored(key, checkpoint)
        for columns in self._since:
            if int(columns.offset_N[-1]) < led.next_offset:
                continue
            here = zip(columns.key, columns.offset_N.tolist(), strict=True)
            mine_n = [n for n, (of, offset) in enumerate(here) if of == key and offset >= led.next_offset]
            if mine_n:
                led.task.follow(chosen(columns, np.array(mine_n, dtype=np.int64)))
        led.next_offset = self._next_offset
        self._led[key] = led
        if len(self._led) > MOST_LED:
            self._led.popitem(last=False)
        return led.task, checkpoint

    def _restored(self, key: str | None, checkpoint: Checkpoint) -> _Led:
        manifest = checkpoint.manifest
        task = Task(self.source, self._config, manifest.features, manifest.seed, self._device)
        facts = {name: fact for name, fact in manifest.facts.items() if name != "candidates"}
        task.restore(facts, {key: checkpoint.learners[key]})
        return _Led(task, manifest.offset)

    def _check_ttl(self, key: str | None, checkpoint: Checkpoint) -> None:
        """A key that was silent for too long is forgotten, and its next record is a new key's."""
        ttl = self._config.key_ttl
        if ttl is None or not self._since:
            return
        newest = int(checkpoint.learners[key]["key_newest"])
        time_N = np.concatenate([columns.timestamp_N for columns in self._since])
        mine_N = np.array([other == key for columns in self._since for other in columns.key])
        now_N = np.maximum.accumulate(np.maximum(time_N, checkpoint.manifest.facts.get("stream_time") or 0))
        heard_N = np.maximum.accumulate(np.concatenate([[newest], np.where(mine_N, time_N, newest)]))
        if (now_N - heard_N[:-1] > ttl // timedelta(milliseconds=1)).any():
            raise Refused(
                Refusal.UNKNOWN_KEY,
                f"the key {key!r:.200} of {self.source} was silent for over key_ttl",
            )

    def _stop(self, why: str, refusal: Refusal = Refusal.STATE_TOO_OLD) -> None:
        if why:
            log.warning("waiting for the next checkpoint", source=str(self.source), reason=why)
        if self._next_offset is not None:
            self._tail.stop(self.source)
        self._next_offset, self._since, self._count, self._why = None, [], 0, why
        self._refusal = refusal


def holding(followed: Iterable[Followed], topic: str, partition: int | None, key: str | None) -> Followed:
    """The partition of a topic that has the key's learner; `partition`: that one. Raises `Refused`."""
    known = [
        (one, one.checkpoint.learners)
        for one in followed
        if one.source.topic == topic and one.checkpoint is not None
    ]
    if not known:
        raise Refused(
            Refusal.NO_STATE,
            f"there is no checkpoint of {topic} yet: its worker stores one every `state.every_seconds`",
        )
    having = [one for one, learners in known if partition in (None, one.source.partition) and key in learners]
    if len(having) > 1:
        numbers = ", ".join(str(n) for n in sorted(one.source.partition for one in having))
        raise Refused(
            Refusal.AMBIGUOUS_KEY,
            f"the key {key!r:.200} has learners in the partitions {numbers}: name one as `partition`",
        )
    if not having:
        where = "" if partition is None else f" of its partition {partition}"
        raise Refused(
            Refusal.UNKNOWN_KEY,
            f"no learner of the key {key!r:.200} is in the newest checkpoints of {topic}{where}",
        )
    return having[0]


def _from(columns: Columns, offset: int) -> Columns:
    """The records at `offset` and later."""
    first = int(np.searchsorted(columns.offset_N, offset))
    return columns if first == 0 else chosen(columns, np.arange(first, len(columns)))
