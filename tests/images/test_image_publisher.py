"""Images are published over a Kafka in memory: which, with what headers, and how often."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory_rig import Ticking
from PIL import Image

from streamgen.config import Config
from streamgen.health import Health
from streamgen.images.checkpoint import existing
from streamgen.images.drawing import draw, trained
from streamgen.images.publisher import ImagePublisher
from streamgen.images.source import Look
from streamgen.images.training import Training
from streamgen.metrics import PublisherMetrics
from streamgen.records import TopicPartition
from streamgen.state.folder import open_folder
from streamgen.testing import Crash, Fault, LogRecord, MemoryLog, MemoryTransport

MODEL = {"name": "vae", "width": 4, "latent": 2, "batch": 4, "steps": 2}


class Rig:
    """A topic of requests with two partitions, and a folder in which a small model is trained."""

    def __init__(self, folder: Path, every: str | None = None) -> None:
        self.folder = folder
        self.config = Config.model_validate(
            {"inputs": [{"topic": "in", "generate": {"every": every, "count": 2}}]}
        )
        self.log, self.clock, self.wall = MemoryLog(), Ticking(), 1_000.0
        self.metrics = PublisherMetrics()
        for topic in ("in", "in.generated", "in.generate", "in.generate.dlq"):
            self.log.create_topic(topic, 2)

    def train(self, steps: int = 2) -> None:
        images = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 1), dtype=np.uint8)
        model = MODEL | {"steps": steps}
        Training(images, model, Look(), 0, "cpu", open_folder(self.folder)).run(2, lambda progress: None)

    def transport(self) -> MemoryTransport:
        return MemoryTransport(self.log, ["in.generate"], group="streamgen-images")

    def publisher(self, transport: MemoryTransport | None = None) -> ImagePublisher:
        return ImagePublisher(
            self.config,
            transport or self.transport(),
            open_folder(self.folder),
            self.metrics,
            Health(),
            clock=self.clock,
            wall=lambda: self.wall,
            sleep=self.clock.sleep,
        )

    def ask(self, to: int = 0, **request: Any) -> None:
        self.log.append("in.generate", json.dumps(request).encode(), b"me", 7, to)

    def generated(self) -> list[LogRecord]:
        return self.log.records("in.generated")


def turn(publisher: ImagePublisher, times: int = 4) -> None:
    for _ in range(times):
        publisher.turn()


def headers(record: LogRecord) -> dict[str, str]:
    return {name: value.decode() for name, value in record.headers}


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, which is only read."""
    made = Rig(tmp_path_factory.mktemp("state"))
    made.train()
    return made.folder


@pytest.fixture
def rig(state: Path) -> Rig:
    return Rig(state)


def test_an_answer_is_the_images_of_the_seed_as_png(rig: Rig) -> None:
    rig.ask(to=1, count=3, seed=5, correlation_id="id-1")
    turn(rig.publisher())
    records = rig.generated()
    folder = open_folder(rig.folder)
    model, manifest = trained(folder, "cpu")
    for record, image_HWC in zip(records, draw(model, 5, 3), strict=True):
        with Image.open(io.BytesIO(record.value or b"")) as image:
            np.testing.assert_array_equal(np.asarray(image), image_HWC[..., 0])
    said = headers(records[2])
    assert (records[2].key, records[2].timestamp) == (b"me", 7)
    assert said["ce_id"].endswith("/2")
    assert len({headers(record)["ce_id"] for record in records}) == 3
    for name, value in {
        "content-type": "image/png",
        "streamgen_generated": "true",
        "streamgen_model": "vae",
        "streamgen_step": "2",
        "streamgen_state": manifest.checksum,
        "streamgen_seed": "5",
        "streamgen_count": "3",
        "streamgen_image": "2",
        "streamgen_size": "16x16",
        "streamgen_correlation_id": "id-1",
    }.items():
        assert said[name] == value
    assert rig.log.records("in.generated", 0) == []


def test_a_request_without_a_seed_has_one_of_its_own(rig: Rig) -> None:
    for to in (0, 0, 1):
        rig.ask(to=to)
    turn(rig.publisher())
    assert len({record.value for record in rig.generated()}) == 3


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (b"{", "malformed"),
        (None, "malformed"),
        (b'{"kind": "continue"}', "malformed"),
        (b'{"seed": -1}', "malformed"),
        (b'{"count": 0}', "bad_count"),
        (b'{"count": 201}', "bad_count"),
    ],
)
def test_what_is_wrong_is_refused_with_the_reason(rig: Rig, request_: bytes | None, reason: str) -> None:
    rig.log.append("in.generate", request_)
    turn(rig.publisher())
    (refused,) = rig.log.records("in.generate.dlq")
    assert refused.value == request_
    assert headers(refused)["__streams.errors.exception"] == reason
    assert rig.generated() == []


def test_a_model_that_has_learned_nothing_is_not_taken_up(tmp_path: Path) -> None:
    """A training stores one at its beginning, and a first batch that diverged leaves one."""
    rig = Rig(tmp_path)
    images = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 1), dtype=np.uint8)
    training = Training(images, MODEL, Look(), 0, "cpu", open_folder(tmp_path))
    publisher = rig.publisher()
    rig.ask(seed=1)
    turn(publisher)
    (refused,) = rig.log.records("in.generate.dlq")
    assert headers(refused)["__streams.errors.exception"] == "no_state"
    training.run(2, lambda progress: None)
    rig.clock.sleep(2.0)
    rig.ask(seed=1)
    turn(publisher)
    assert headers(rig.generated()[0])["streamgen_step"] == "2"


def test_it_follows_the_folder(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    publisher = rig.publisher()
    rig.ask(seed=1, correlation_id="early")
    turn(publisher)
    (refused,) = rig.log.records("in.generate.dlq")
    assert headers(refused)["__streams.errors.exception"] == "no_state"
    for steps in (2, 4):
        rig.train(steps)
        rig.clock.sleep(2.0)
        rig.ask(seed=1)
        turn(publisher)
        assert headers(rig.generated()[-1])["streamgen_step"] == str(steps)
    # A damaged one changes nothing.
    (tmp_path / "checkpoint-000000006.safetensors").write_bytes(b"torn")
    rig.clock.sleep(2.0)
    rig.ask(seed=1)
    turn(publisher)
    assert rig.generated()[-1].value == rig.generated()[-2].value
    assert headers(rig.generated()[-1])["streamgen_state"] == existing(open_folder(tmp_path))[0].checksum


@pytest.mark.parametrize("fault", list(Fault))
def test_every_request_is_answered_once_whatever_happens(rig: Rig, fault: Fault) -> None:
    for n in range(3):
        rig.ask(seed=n, correlation_id=str(n))
    transport = rig.transport()
    transport.inject(fault)
    publisher = rig.publisher(transport)
    if fault in (Fault.CRASH_BEFORE, Fault.CRASH_AFTER):
        with pytest.raises(Crash):
            turn(publisher)
        publisher = rig.publisher()
    turn(publisher, 8)
    rig.ask(seed=3, correlation_id="3")
    turn(publisher, 8)
    assert [headers(record)["streamgen_correlation_id"] for record in rig.generated()] == list("0123")


@pytest.mark.parametrize("again", [False, True])
def test_what_another_one_published_meanwhile_is_not_published_again(state: Path, again: bool) -> None:
    """Whether it is a turn before the partition comes back, or the same one."""
    rig = Rig(state, every="10s")
    transport = rig.transport()
    publisher = rig.publisher(transport)
    turn(publisher)
    transport.lose(TopicPartition("in.generate", 0))
    if again:
        transport.assign(TopicPartition("in.generate", 0))
    else:
        turn(publisher)
        transport.assign(TopicPartition("in.generate", 0))
    rig.wall = 1_031.0
    turn(publisher)
    assert rig.generated() == []
    rig.wall = 1_041.0
    turn(publisher)
    assert {headers(record)["streamgen_seed"] for record in rig.generated()} == {"104"}


def test_at_a_rate_each_interval_has_its_own_images_once(state: Path) -> None:
    rig = Rig(state, every="10s")
    publisher = rig.publisher()
    turn(publisher)
    assert rig.generated() == []  # the interval that is under way may have been another's
    for wall in (1_011.0, 1_012.0, 1_021.0):
        rig.wall = wall
        turn(publisher)
    records = rig.generated()
    assert [headers(record)["streamgen_seed"] for record in records] == ["101", "101", "102", "102"]
    assert len({record.value for record in records}) == 4
    assert [record.timestamp for record in records] == [1_010_000, 1_010_000, 1_020_000, 1_020_000]
    turn(rig.publisher())
    assert len(rig.generated()) == 4
