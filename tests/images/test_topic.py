"""Images of a topic between fixed offsets, over a log in memory."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from streamgen.errors import BrokerUnavailable, InputError, LogGap
from streamgen.images.checkpoint import Cut
from streamgen.images.source import Look, Source
from streamgen.images.topic import begun_with, read_cut
from streamgen.images.training import Training
from streamgen.kafka.tail import Grown
from streamgen.records import TopicPartition
from streamgen.state.folder import open_folder
from streamgen.testing import MemoryLog
from streamgen.testing.tail import MemoryTail

TOPIC, OWN = "photos", Look()
MODEL = {"name": "vae", "width": 4, "latent": 2, "batch": 4, "steps": 2}


def image(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def log() -> MemoryLog:
    """Two partitions of twelve images, the even ones in the first; a bad one and no value among them."""
    made = MemoryLog()
    made.create_topic(TOPIC, 2)
    for n in range(24):
        value = {8: b"no image", 11: None}.get(n, image(n))
        made.append(TOPIC, value, partition=n % 2)
    return made


def cut(log: MemoryLog, first: tuple[int, int], end: tuple[int, int]) -> Cut:
    return Cut(TOPIC, log.topic_ids[TOPIC], {0: (first[0], end[0]), 1: (first[1], end[1])})


def read(tail: MemoryTail, part: Cut) -> Source:
    return read_cut(tail, part, OWN).source(part)


def test_a_read_that_broke_off_leaves_nothing_to_the_next(
    log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    tail = MemoryTail(log, 2)
    poll, polls = tail.poll, iter(range(2))

    def failing(timeout_s: float = 0.0) -> Grown:
        if next(polls, None) == 1:
            raise BrokerUnavailable("no answer")
        return poll(timeout_s)

    monkeypatch.setattr(tail, "poll", failing)
    with pytest.raises(BrokerUnavailable):
        read(tail, cut(log, (0, 0), (6, 0)))
    found = read_cut(tail, cut(log, (0, 0), (0, 6)), OWN)
    assert {partition for partition, _ in found.images} == {1}


def test_the_images_are_those_between_the_offsets_in_their_order(log: MemoryLog) -> None:
    for most in (1, 5, 100):  # however the log is cut into polls
        source = read(MemoryTail(log, most), cut(log, (1, 2), (6, 7)))
        assert source.images_NHWC[:, 0, 0, 0].tolist() == [2, 4, 6, 10, 5, 7, 9, 13]
        assert source.skipped == {
            "photos-0@4": "no image of a known format",
            "photos-1@5": "no value",
        }
        log.append(TOPIC, image(99), partition=0)  # what comes later is no part of it


def test_jpeg_is_decoded_as_png_is(log: MemoryLog) -> None:
    down = np.linspace(0, 255, 16).astype(np.uint8)
    drawn = np.stack(np.broadcast_arrays(down[:, None], down[None], np.uint8(90)), axis=-1)
    files = []
    for kind, more in (("PNG", {}), ("JPEG", {"quality": 100, "subsampling": 0})):
        file = io.BytesIO()
        Image.fromarray(drawn).save(file, kind, **more)
        files.append(file.getvalue())
    for value in files:
        log.append(TOPIC, value, partition=0)
    found = read(MemoryTail(log), cut(log, (12, 0), (14, 0)))
    assert found.skipped == {}
    assert files[1].startswith(b"\xff\xd8")
    np.testing.assert_array_equal(found.images_NHWC[0], drawn)
    np.testing.assert_allclose(found.images_NHWC[1].astype(int), drawn.astype(int), atol=6)


def test_what_is_gone_is_an_error_also_when_it_goes_meanwhile(log: MemoryLog) -> None:
    whole = cut(log, (0, 0), (12, 12))

    class Expiring(MemoryTail):
        """Retention is faster than the reader."""

        def poll(self, timeout_s: float = 0.0) -> Grown:
            found = super().poll(timeout_s)
            log.expire(TopicPartition(TOPIC, 0), 9)
            return found

    with pytest.raises(LogGap, match=r"photos-0 has no records before offset 9 .* from 3 on"):
        read(Expiring(log, 3), whole)
    with pytest.raises(LogGap, match=r"photos-0 has no records before offset 9 .* from 0 on"):
        read(MemoryTail(log), whole)


@pytest.mark.parametrize(
    ("gaps", "error", "said"),
    [
        (
            {TopicPartition(TOPIC, 0): 0},
            LogGap,
            "photos-0 was cut, or made anew, and those from 5 on are needed",
        ),
        ({}, InputError, "photos-0 ends at offset 1, and its records up to 12 are needed"),
    ],
)
def test_a_log_that_is_made_anew_while_it_is_read_gives_nothing_twice(
    log: MemoryLog, gaps: dict[TopicPartition, int], error: type[Exception], said: str
) -> None:
    whole, given = cut(log, (0, 0), (12, 12)), []

    class Remade(MemoryTail):
        """Who stands beyond the end may be told, as by Kafka, that it goes on at the beginning."""

        def poll(self, timeout_s: float = 0.0) -> Grown:
            if given:
                return Grown([], gaps)
            given.append(super().poll(timeout_s))
            log.delete_topic(TOPIC)
            log.create_topic(TOPIC, 2)
            log.append(TOPIC, image(1), partition=0)
            return given[0]

    with pytest.raises(error, match=said):
        read(Remade(log, 5), whole)


def test_offsets_that_hold_no_record_are_no_gap(log: MemoryLog) -> None:
    source = TopicPartition(TOPIC, 0)
    log.skip(source, 3)
    log.append(TOPIC, image(50), partition=0)
    log.skip(source)
    found = read(MemoryTail(log), cut(log, (10, 12), (17, 12)))
    assert found.images_NHWC[:, 0, 0, 0].tolist() == [20, 22, 50]


def test_a_topic_that_was_made_anew_or_is_shorter_is_an_error(log: MemoryLog) -> None:
    whole = cut(log, (0, 0), (12, 12))
    with pytest.raises(InputError, match="photos-1 ends at offset 12, and its records up to 13"):
        read(MemoryTail(log), cut(log, (0, 0), (12, 13)))
    with pytest.raises(InputError, match=r"holds no image that can be used \(photos-0@4: no image"):
        read(MemoryTail(log), cut(log, (4, 0), (5, 0)))
    log.delete_topic(TOPIC)
    log.create_topic(TOPIC, 2)
    with pytest.raises(LogGap, match="deleted and made again"):
        read(MemoryTail(log), whole)


def test_a_training_remembers_its_part_of_the_topic(log: MemoryLog, tmp_path: Path) -> None:
    part, folder = cut(log, (0, 0), (6, 5)), open_folder(tmp_path)
    images = read(MemoryTail(log), part).images_NHWC
    assert begun_with(folder, TOPIC) is None
    Training(images, MODEL, OWN, 0, "cpu", folder, part)
    assert begun_with(folder, TOPIC) == part
    assert begun_with(folder, "others") is None
