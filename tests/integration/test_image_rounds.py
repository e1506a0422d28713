"""A real topic of images is learned batch after batch, by a process that is killed on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from banded import png
from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import TopicPartition as ClientPartition

from streamgen.config import KafkaConfig
from streamgen.errors import StreamgenError
from streamgen.images.checkpoint import Manifest, newest
from streamgen.kafka.client import client_settings
from streamgen.kafka.topics import NewTopic, create_topics
from streamgen.state.folder import open_folder

STEPS = 60


def configured(folder: Path, kafka: KafkaConfig, topic: str, store: str, application: str) -> Path:
    file = folder / f"{store}.yaml"
    model = {"name": "vae", "width": 4, "latent": 2, "batch": 16, "steps": STEPS}
    images = {"topic": topic, "model": model, "batch": 100, "store": str(folder / store)}
    content = {
        "application_id": application,
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
        "images": images | {"checkpoint_steps": 20},
        "metrics": {"port": 0},
        "state": {"directory": str(folder / f"{store}-names")},
    }
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


@contextmanager
def running(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    line = [sys.executable, "-m", "streamgen", "images", "run", str(config)]
    with (
        config.with_suffix(".log").open("ab") as log,
        subprocess.Popen(line, stderr=log, stdout=log) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def until(what: Callable[[], Any], config: Path) -> Any:
    deadline = time.monotonic() + 120
    while not (found := what()):
        assert time.monotonic() < deadline, config.with_suffix(".log").read_text()
        time.sleep(0.02)
    return found


def learned(folder: Path, rounds: int) -> Manifest | None:
    try:
        found = newest(open_folder(folder))
    except StreamgenError:
        return None
    return found[0] if found and found[0].round and found[0].round.number >= rounds else None


@pytest.fixture
def photos(kafka: KafkaConfig, fresh: Callable[[str], str]) -> str:
    """200 images and two values that are none, in two partitions."""
    topic = fresh("photos")
    create_topics(kafka, [NewTopic(topic, 2)])
    producer = KafkaProducer(**client_settings(kafka))
    for n in range(200):
        producer.send(topic, png(n), partition=int(n % 3 == 2))
        if n in (20, 150):
            producer.send(topic, b"no image", b"key", partition=0)
    producer.close()
    return topic


def test_a_process_that_is_killed_learns_what_one_learns_that_is_not(
    photos: str, kafka: KafkaConfig, tmp_path: Path, read_committed: Callable[[str], list[Any]]
) -> None:
    """kill -9 in the middle of a training; then the same in peace, for another application."""
    killed = configured(tmp_path, kafka, photos, "killed", f"{photos}-a")
    with running(killed) as process:
        until(lambda: (tmp_path / "killed" / "round" / "checkpoint-000000020.safetensors").exists(), killed)
        process.kill()
        process.wait(timeout=30)
    plan = json.loads((tmp_path / "killed" / "round" / "plan.json").read_text())
    assert not learned(tmp_path / "killed", 1)
    with running(killed) as process:
        first = until(lambda: learned(tmp_path / "killed", 1), killed)
        until(lambda: read_committed(f"{photos}.dlq"), killed)
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert first.cut.between == {int(number): tuple(ends) for number, ends in plan["cut"]["between"].items()}
    letters = read_committed(f"{photos}.dlq")
    headers = [dict(letter.headers) for letter in letters]
    assert [(letter.key, letter.value) for letter in letters] == [(b"key", b"no image")] * len(letters)
    assert len({one["__streams.errors.offset"] for one in headers}) == len(letters)
    with KafkaConsumer(**client_settings(kafka), group_id=f"{photos}-a-images-run") as consumer:
        for number, (_, end) in learned(tmp_path / "killed", 1).cut.between.items():  # type: ignore[union-attr]
            assert consumer.committed(ClientPartition(photos, number)) == end

    peaceful = configured(tmp_path, kafka, photos, "peaceful", f"{photos}-b")
    (tmp_path / "peaceful" / "round").mkdir(parents=True)
    (tmp_path / "peaceful" / "round" / "plan.json").write_text(json.dumps(plan))
    with running(peaceful) as process:
        other = until(lambda: learned(tmp_path / "peaceful", 1), peaceful)
        address = json.loads(_line(peaceful, "image learner started"))["metrics"]
        taken = f'streamgen_images_rounds_total{{outcome="taken",topic="{photos}"}} 1.0'
        until(lambda: taken in _page(f"{address}/metrics"), peaceful)
        assert json.loads(_page(f"{address}/readyz"))["ready"]
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert (first.round, first.cut) == (other.round, other.cut)
    assert first.checksum == other.checksum


def _page(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as answer:
        return str(answer.read().decode())


def _line(config: Path, event: str) -> str:
    lines = config.with_suffix(".log").read_text().splitlines()
    return next(line for line in lines if event in line)
