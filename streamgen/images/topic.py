"""Images of a topic: each record's value is an image file, as PNG or JPEG.

A batch is what the topic holds between fixed offsets, partition after partition, so it is the same images in
the same order whenever it is read.
"""

from __future__ import annotations

from streamgen.between import read_between
from streamgen.errors import LogGap
from streamgen.images.checkpoint import Cut, newest
from streamgen.images.source import Images, Look, Source, from_bytes, together
from streamgen.kafka.tail import Tail
from streamgen.state.folder import Folder


def begun_with(folder: Folder, topic: str) -> Cut | None:
    """The part of the topic that the training in `folder` was begun with; None when none was."""
    found = newest(folder)
    cut = None if found is None else found[0].cut
    return cut if cut is not None and cut.topic == topic else None


def read_cut(tail: Tail, cut: Cut, look: Look) -> Source:
    """The images of a part of a topic. What is no image is named by its place, `topic-partition@offset`.

    Raises `InputError` when none can be used or they do not fit together, and `LogGap` when the topic does
    not have all of its records any more.
    """
    if cut.topic_id and tail.topic_id(cut.topic) != cut.topic_id:
        raise LogGap(
            f"The topic {cut.topic} was deleted and made again, and records of the one before are needed: "
            "begin anew with what there is, in another folder."
        )
    images: list[Images] = []
    skipped: dict[str, str] = {}
    for raw in read_between(tail, cut.topic, cut.between):
        for offset, value in zip(raw.offset_N, raw.value, strict=True):
            try:
                images.append(from_bytes(value, look))
            except ValueError as error:
                skipped[f"{raw.source}@{offset}"] = str(error)
    return together(images, skipped, look, str(cut))
