"""Collects a batch of images from all partitions of a topic, and says from where to where it is.

What is read comes in the order of polls; the batch is in the order of partitions and offsets, so that it is
the same when it is read again between its offsets.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import msgspec
import structlog

from streamgen.between import read_between
from streamgen.config import ImagesConfig
from streamgen.encode import add_dead_letter
from streamgen.errors import LogGap
from streamgen.images.checkpoint import Cut, Round
from streamgen.images.source import Look
from streamgen.images.topic import Decoded
from streamgen.kafka.tail import Tail
from streamgen.records import OutputBatch, Reason, TopicPartition
from streamgen.state.folder import Folder

AT_ONCE = 500  # records of a partition that are read in one look
PLAN = "plan.json"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Plan:
    """A round's number, its part of the topic, and the height and width of its images."""

    number: int
    cut: Cut
    size: tuple[int, int]

    @classmethod
    def read(cls, folder: Folder) -> Plan | None:
        """The one that is stored, if there is one."""
        try:
            return msgspec.json.decode(folder.read(PLAN), type=cls)
        except FileNotFoundError:
            return None

    def write(self, folder: Folder) -> None:
        """Store it."""
        folder.write(PLAN, [msgspec.json.encode(self)])


class Collecting:
    """Images of a topic from the offsets `begin` on, of one `size`: without one, that of the first image.

    `plan`: that of a round that was broken off, and is read again.
    """

    def __init__(
        self,
        tail: Tail,
        config: ImagesConfig,
        look: Look,
        topic_id: str,
        begin: dict[int, int],
        plan: Plan | None,
        number: int,
        size: tuple[int, int] | None = None,
    ) -> None:
        assert config.topic is not None
        self._tail, self._topic, self._batch = tail, config.topic, config.batch
        self._topic_id, self._begin, self._plan, self._number = topic_id, begin, plan, number
        self._at = dict(begin)
        self.look = look
        self.left = dict.fromkeys(begin, 0)  # records of each partition that were not looked at
        self.decoded: Decoded | None = None if plan else Decoded(look, size, alike=True)

    def __len__(self) -> int:
        return 0 if self.decoded is None else len(self.decoded.images)

    def look_on(self) -> bool:
        """Read on in each partition, and say whether there was something."""
        decoded, more = self.decoded, False
        if decoded is None:
            return False
        for number, at in self._at.items():
            end = self._tail.end(TopicPartition(self._topic, number))
            until = min(end, at + AT_ONCE)
            decoded.take(read_between(self._tail, self._topic, {number: (at, until)}))
            self._at[number], self.left[number] = until, end - until
            more |= until > at
        return more

    def plan(self) -> Plan | None:
        """The batch, when there are enough images; or what was planned before."""
        if self._plan is None and self.decoded is not None and len(self.decoded.images) >= self._batch:
            assert self.decoded.size is not None
            between = {number: (first, self._at[number]) for number, first in self._begin.items()}
            cut = Cut(self._topic, self._topic_id, between)
            self._plan = Plan(self._number, cut, self.decoded.size)
        return self._plan


def dead_letters(
    tail: Tail, config: ImagesConfig, cut: Cut, one: Round
) -> list[tuple[OutputBatch, list[Reason]]]:
    """What was no image, as it came, with the reason, for each partition.

    What retention has removed meanwhile is lost, and said to be."""
    why: dict[int, dict[int, str]] = defaultdict(dict)
    for place, reason in one.skipped.items():
        number, _, offset = place.partition("@")
        why[int(number)][int(offset)] = reason
    letters = []
    for partition, reasons in sorted(why.items()):
        batch, found = OutputBatch(TopicPartition(config.dlq_topic, partition), [], [], [], []), []
        between = {partition: (min(reasons), max(reasons) + 1)}
        try:
            for raw in read_between(tail, cut.topic, between):
                for n, offset in enumerate(raw.offset_N.tolist()):
                    if offset in reasons:
                        reason = Reason.MALFORMED if raw.value[n] else Reason.EMPTY
                        add_dead_letter(batch, raw, n, reason, reasons[offset])
                        found.append(reason)
        except LogGap as error:
            log.warning("records that are no images cannot be dead-lettered", reason=str(error))
        letters.append((batch, found))
    return letters
