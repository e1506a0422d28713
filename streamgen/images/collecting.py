"""Collects a batch of images from all partitions of a topic, and says from where to where it is.

What is read comes in the order of polls; the batch is in the order of partitions and offsets, so that it is
the same when it is read again between its offsets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
import structlog

from streamgen.between import read_between
from streamgen.config import ImagesConfig
from streamgen.encode import add_dead_letter
from streamgen.errors import InputError, LogGap
from streamgen.images.checkpoint import Cut, Round
from streamgen.images.source import Look
from streamgen.images.topic import Decoded
from streamgen.kafka.tail import Tail
from streamgen.records import OutputBatch, Reason, TopicPartition
from streamgen.state.folder import Folder

AT_ONCE = 100  # records of a partition that are read in one look: large images take a quarter second each
MOST_SKIPPED = 50  # records that are no images, for each image of a batch
PIECE = 2**24  # bytes of dead letters that go out in one transaction
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
        self._told = False
        self.decoded: Decoded | None = None if plan else Decoded(look, size, alike=True)

    def __len__(self) -> int:
        return 0 if self.decoded is None else len(self.decoded.images)

    def look_on(self) -> bool:
        """Read on in each partition, and say whether there was something.

        Raises `InputError` when next to nothing is an image: a round would never come."""
        decoded, more = self.decoded, False
        if decoded is None:
            return False
        for number, at in self._at.items():
            end = self._tail.end(TopicPartition(self._topic, number))
            until = min(end, at + AT_ONCE)
            decoded.take(read_between(self._tail, self._topic, {number: (at, until)}))
            self._at[number], self.left[number] = until, end - until
            more |= until > at
        self._check(decoded)
        return more

    def _check(self, decoded: Decoded) -> None:
        images, skipped = len(decoded.images), len(decoded.skipped)
        if skipped <= max(images, AT_ONCE):
            return
        first = next(iter(decoded.skipped.values()))
        if skipped > MOST_SKIPPED * self._batch:
            raise InputError(
                f"{skipped} of {skipped + images} records of {self._topic} cannot be learned, the first of "
                f"them since: {first}. Name a topic of images, or set images.size, if they have several "
                "sizes."
            )
        if not self._told:
            log.warning("most records cannot be learned", images=images, skipped=skipped, first=first)
            self._told = True

    def plan(self) -> Plan | None:
        """The batch, when there are enough images; or what was planned before."""
        if self._plan is None and self.decoded is not None and len(self.decoded.images) >= self._batch:
            assert self.decoded.size is not None
            between = {number: (first, self._at[number]) for number, first in self._begin.items()}
            cut = Cut(self._topic, self._topic_id, between)
            self._plan = Plan(self._number, cut, self.decoded.size)
        return self._plan


@dataclass(frozen=True, slots=True)
class Letters:
    """Dead letters of one transaction with their reasons, and the offsets that it commits, by partition."""

    batches: list[OutputBatch]
    reasons: list[Reason]
    ends: dict[int, int]


def dead_letters(
    tail: Tail, config: ImagesConfig, cut: Cut, one: Round, done: Mapping[int, int]
) -> Iterator[Letters]:
    """What was no image, as it came, with the reason, in pieces that memory and a transaction can hold.

    The offsets `done` are committed, and what lies before them is out. The last piece reaches to the ends of
    the cut. What retention has removed meanwhile is lost, and said to be."""
    why: dict[int, dict[int, str]] = defaultdict(dict)
    for place, reason in one.skipped.items():
        number, offset = map(int, place.split("@"))
        if offset >= done.get(number, 0):
            why[number][offset] = reason
    piece, size = Letters([], [], {}), 0
    for partition, reasons in sorted(why.items()):
        target = TopicPartition(config.dlq_topic, partition)
        piece.batches.append(OutputBatch(target, [], [], [], []))
        between = {partition: (min(reasons), max(reasons) + 1)}
        try:
            for raw in read_between(tail, cut.topic, between):
                for n, offset in enumerate(raw.offset_N.tolist()):
                    if offset not in reasons:
                        continue
                    bytes_now = len(raw.value[n] or b"")
                    if size and size + bytes_now > PIECE:
                        yield piece
                        piece, size = Letters([OutputBatch(target, [], [], [], [])], [], {}), 0
                    reason = Reason.MALFORMED if raw.value[n] else Reason.EMPTY
                    add_dead_letter(piece.batches[-1], raw, n, reason, reasons[offset])
                    piece.reasons.append(reason)
                    piece.ends[partition] = offset + 1
                    size += bytes_now
        except LogGap as error:
            log.warning("records that are no images cannot be dead-lettered", reason=str(error))
    piece.ends.update({number: end for number, (_, end) in cut.between.items()})
    yield piece
