"""Images through a real Kafka: a batch of a topic is learned, and what is drawn comes back in another one."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from banded import png
from kafka import KafkaProducer
from kafka.structs import TopicPartition as ClientPartition
from PIL import Image

from streamgen.config import KafkaConfig
from streamgen.images.checkpoint import existing
from streamgen.images.drawing import draw, trained
from streamgen.kafka.client import client_settings
from streamgen.kafka.topics import NewTopic, admin_client, create_topics
from streamgen.state.folder import open_folder

if TYPE_CHECKING:
    from tests.conftest import Said

QUICK = "model: {name: vae, width: 4, latent: 2, batch: 4, steps: 4}\n"


def send(kafka: KafkaConfig, topic: str, values: list[bytes | None], commit: bool = True) -> None:
    """One transaction, to two partitions in turn."""
    producer = KafkaProducer(**client_settings(kafka), transactional_id=f"{topic}-feed")
    try:
        producer.init_transactions()
        producer.begin_transaction()
        for n, value in enumerate(values):
            producer.send(topic, value, partition=n % 2)
        producer.commit_transaction() if commit else producer.abort_transaction()
    finally:
        producer.close()


@pytest.fixture
def photos(kafka: KafkaConfig, fresh: Callable[[str], str]) -> str:
    """A topic with two partitions: 24 images, one broken one, and some that were never committed."""
    topic = fresh("photos")
    create_topics(kafka, [NewTopic(topic, 2, settings={"retention.ms": "-1"})])
    send(kafka, topic, [*map(png, range(12)), b"\x89PNG"])
    send(kafka, topic, [*map(png, range(50, 56))], commit=False)
    send(kafka, topic, [*map(png, range(12, 24))])
    return topic


def test_a_batch_of_a_topic_is_the_same_whatever_comes_later(
    photos: str, kafka: KafkaConfig, tmp_path: Path, cli: Callable[..., Said]
) -> None:
    (tmp_path / "quick.yaml").write_text(QUICK, encoding="utf-8")
    options = ("--topic", photos, "--bootstrap", kafka.bootstrap_servers, "--config", tmp_path / "quick.yaml")
    code, _, said = cli("images", "fit", *options, "--state", tmp_path / "a")
    assert code == 0, said
    assert "vae: 24 images of 16 × 16" in said
    assert f"1 records were skipped:\n  {photos}-0@6: no image of a known format" in said
    first, _ = existing(open_folder(tmp_path / "a"))
    assert first.cut is not None
    ends = ",".join(f"{number}:{end}" for number, (_, end) in first.cut.between.items())

    send(kafka, photos, [*map(png, range(30, 36))])
    code, _, said = cli("images", "fit", *options, "--state", tmp_path / "a", "--steps", 6)
    assert code == 0, said
    assert "vae: 24 images of 16 × 16 on cpu, going on from step 4" in said
    code, _, said = cli("images", "fit", *options, "--state", tmp_path / "b", "--to", ends, "--steps", 6)
    assert code == 0, said
    one, other = (existing(open_folder(tmp_path / name)) for name in "ab")
    assert one[0].digest == other[0].digest == first.digest
    assert one[0].cut == other[0].cut
    for name, tensor in one[1].items():
        np.testing.assert_array_equal(tensor.numpy(), other[1][name].numpy())
    code, _, said = cli("images", "fit", *options, "--state", tmp_path / "c")
    assert "vae: 30 images" in said

    with admin_client(kafka) as admin:
        admin.delete_records({ClientPartition(photos, 1): 3})
    code, _, said = cli("images", "fit", *options, "--state", tmp_path / "a", "--steps", 8)
    assert code == 1
    assert f"{photos}-1 has no records before offset 3 any more, and those from 0 on" in said


def test_what_is_wrong_is_a_sentence(
    photos: str, kafka: KafkaConfig, tmp_path: Path, cli: Callable[..., Said]
) -> None:
    fit = ("images", "fit", "--state", tmp_path / "s", "--bootstrap", kafka.bootstrap_servers)
    for options, said in (
        (("--topic", photos, "--to", "2:5"), f"{photos} has no partition 2"),
        (("--topic", photos, "--to", "0:500"), f"{photos}-0 has no offset 500 yet"),
        (("--topic", photos, "--to", "0:1,1:0"), "give at least 2"),
        (("--topic", photos, "--to", "noon"), "is no time"),
        (("--topic", "nowhere"), "topic nowhere does not exist"),
        ((tmp_path, "--to", "0:5"), "--from and --to are of a topic"),
        ((tmp_path, "--topic", photos), "leave one out"),
        ((), "a folder or file, or --topic"),
    ):
        code, _, error = cli(*fit, *options)
        assert code == 1
        assert said in error


def ask(kafka: KafkaConfig, topic: str, numbers: range) -> None:
    producer = KafkaProducer(**client_settings(kafka))
    for n in numbers:
        request = {"count": 2, "seed": n, "correlation_id": str(n)}
        producer.send(f"{topic}.generate", json.dumps(request).encode(), b"me", partition=n % 2)
    producer.close()


@contextmanager
def publishing(kafka: KafkaConfig, topic: str, folder: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    line = [sys.executable, "-m", "streamgen", "images", "publish", topic, "--state", str(folder / "state")]
    line += ["--bootstrap", kafka.bootstrap_servers, "--application-id", topic, "--metrics-port", "0", *more]
    with (
        (folder / "publisher.log").open("ab") as log,
        subprocess.Popen(line, stderr=log, cwd=folder) as running,
    ):
        try:
            yield running
        finally:
            running.kill()


def test_images_of_a_topic_come_back_as_drawn_ones_in_another_once_each(
    photos: str, kafka: KafkaConfig, tmp_path: Path, cli: Callable[..., Said],
    read_committed: Callable[[str], list[Any]],
) -> None:  # fmt: skip
    """The publisher is killed while it answers; the next one goes on."""
    (tmp_path / "quick.yaml").write_text(QUICK, encoding="utf-8")
    fit = ("images", "fit", "--topic", photos, "--bootstrap", kafka.bootstrap_servers)
    code, _, said = cli(*fit, "--state", tmp_path / "state", "--config", tmp_path / "quick.yaml")
    assert code == 0, said
    # Made beforehand, so that requests wait for the publisher.
    create_topics(kafka, [NewTopic(f"{photos}.{name}", 2) for name in ("generate", "generated")])

    def answers(least: int) -> dict[int, list[bytes]]:
        """By seed, as a plain consumer reads them."""
        deadline = time.monotonic() + 180
        while len(records := read_committed(f"{photos}.generated")) < least:
            assert time.monotonic() < deadline, (tmp_path / "publisher.log").read_text()
            time.sleep(0.2)
        found: dict[int, list[bytes]] = {}
        for record in records:
            headers = dict(record.headers)
            assert headers["streamgen_generated"] == b"true"
            assert (headers["streamgen_model"], headers["streamgen_step"]) == (b"vae", b"4")
            found.setdefault(int(headers["streamgen_seed"]), []).append(record.value)
        return found

    with publishing(kafka, photos, tmp_path) as running:
        ask(kafka, photos, range(10))
        answers(2)
        ask(kafka, photos, range(10, 60))
        running.kill()  # kill -9, while it has some of them
        assert running.wait(timeout=30) == -9
    with publishing(kafka, photos, tmp_path) as running:
        found = answers(120)
        running.terminate()
        assert running.wait(timeout=60) == 0
    assert sorted(found) == list(range(60))
    model, _ = trained(open_folder(tmp_path / "state"), "cpu")
    for seed, values in found.items():
        pixels = [np.asarray(Image.open(io.BytesIO(value))) for value in values]
        np.testing.assert_array_equal(np.array(pixels), draw(model, seed, 2)[..., 0])
