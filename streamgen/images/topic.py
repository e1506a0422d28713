"""Images of a topic: each record's value is an image file, as PNG or JPEG.

A batch is what the topic holds between fixed offsets, partition after partition, so it is the same images in
the same order whenever it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from streamgen.between import read_between
from streamgen.errors import LogGap
from streamgen.images.checkpoint import Cut, newest
from streamgen.images.source import Images, Look, Source, from_bytes, together
from streamgen.kafka.tail import Tail
from streamgen.records import RawBatch
from streamgen.state.folder import Folder

Place = tuple[int, int]  # partition and offset


@dataclass(slots=True)
class Decoded:
    """The images [H, W, C] of records, and why others are none, both by their places.

    `size`: height and width that all must have; with `alike`, that of the first image where it is None."""

    look: Look
    size: tuple[int, int] | None = None
    alike: bool = False
    images: dict[Place, Images] = field(default_factory=dict)
    skipped: dict[Place, str] = field(default_factory=dict)

    def take(self, raws: Iterable[RawBatch]) -> None:
        """Decode what was read."""
        for raw in raws:
            for offset, value in zip(raw.offset_N.tolist(), raw.value, strict=True):
                place = raw.source.partition, offset
                try:
                    image_HWC = from_bytes(value, self.look)
                    self._check(image_HWC.shape[:2])
                    self.images[place] = image_HWC
                except ValueError as error:
                    self.skipped[place] = str(error)

    def _check(self, size: tuple[int, ...]) -> None:
        if self.size is None and self.alike:
            self.size = size[0], size[1]
        if self.size is not None and size != self.size:
            raise ValueError(
                f"{size[1]} × {size[0]} pixels, and the images before have {self.size[1]} × {self.size[0]}"
            )

    def source(self, cut: Cut) -> Source:
        """All images, in the order of their places. Raises `InputError` when there is none, or they do not
        fit together."""
        skipped = {f"{cut.topic}-{number}@{offset}": why for (number, offset), why in self.skipped.items()}
        return together([self.images[one] for one in sorted(self.images)], skipped, self.look, str(cut))


def begun_with(folder: Folder, topic: str) -> Cut | None:
    """The part of the topic that the training in `folder` was begun with; None when none was."""
    found = newest(folder)
    cut = None if found is None else found[0].cut
    return cut if cut is not None and cut.topic == topic else None


def read_cut(
    tail: Tail,
    cut: Cut,
    look: Look,
    size: tuple[int, int] | None = None,
    between: Callable[[], None] = lambda: None,
) -> Decoded:
    """The images of a part of a topic, and what is none, or has not the `size` [H, W] that is asked for.

    `between` is called after each part that was read: what it raises ends the reading. Raises `LogGap` when
    the topic does not have all of its records any more.
    """
    if cut.topic_id and tail.topic_id(cut.topic) != cut.topic_id:
        raise LogGap(
            f"The topic {cut.topic} was deleted and made again, and records of the one before are needed: "
            "begin anew with what there is, in another folder."
        )
    decoded = Decoded(look, size)
    for raw in read_between(tail, cut.topic, cut.between):
        decoded.take([raw])
        between()
    return decoded
