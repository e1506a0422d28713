"""`streamgen tune` over a topic: from one committed offset to another, the same records every time."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml
from kafka import KafkaProducer
from kafka.structs import TopicPartition as ClientPartition

from streamgen.between import bounds
from streamgen.config import Config, KafkaConfig
from streamgen.errors import InputError
from streamgen.kafka.client import client_settings
from streamgen.kafka.topics import NewTopic, admin_client, create_topics
from streamgen.records import TopicPartition
from streamgen.tuning.stream import of_topic

if TYPE_CHECKING:
    from tests.conftest import Said

HOUR = 3_600_000
START = 1_700_000_000_000 // HOUR * HOUR


class Feed:
    """Records of two keys in two partitions, one of which holds transactions: some are aborted."""

    def __init__(self, kafka: KafkaConfig, topic: str) -> None:
        self._kafka, self.topic, self._sent = kafka, topic, 0
        create_topics(kafka, [NewTopic(topic, 2, settings={"retention.ms": "-1"})])

    def send(self, count: int, committed: bool = True) -> None:
        producer = KafkaProducer(
            **client_settings(self._kafka), transactional_id=f"{self.topic}-{self._sent}"
        )
        try:
            producer.init_transactions()
            producer.begin_transaction()
            for n in range(self._sent, self._sent + count):
                value = json.dumps({"load": float(np.sin(n / 5)), "note": "x"}).encode()
                if n % 50 == 7:
                    value = b"not json"
                partition, time_ms = n % 2, START + n * 60_000
                producer.send(self.topic, value, b"k%d" % (n % 2), partition=partition, timestamp_ms=time_ms)
            producer.commit_transaction() if committed else producer.abort_transaction()
        finally:
            producer.close()
        self._sent += count if committed else 0


@pytest.fixture
def feed(kafka: KafkaConfig, fresh: Callable[[str], str]) -> Feed:
    made = Feed(kafka, fresh("tuned"))
    made.send(360)
    made.send(20, committed=False)
    made.send(40)
    return made


@pytest.fixture
def cli(
    cli: Callable[..., Said], monkeypatch: pytest.MonkeyPatch, kafka: KafkaConfig, tmp_path: Path
) -> Callable[..., Said]:
    monkeypatch.setenv("STREAMGEN_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    monkeypatch.chdir(tmp_path)
    return cli


def scores(out: str) -> list[str]:
    return [line.split()[-2] for line in out.splitlines() if line.startswith(("as it is", "hidden"))]


def test_the_records_are_those_between_two_offsets_whatever_comes_later(
    cli: Callable[..., Said], feed: Feed, tmp_path: Path
) -> None:
    command = ("tune", feed.topic, "--study", "study", "--vary", "hidden=2", "--seeds", 2)
    code, out, err = cli(*command)
    assert code == 0, err
    assert "392 records (8 unusable left out) of load." in out
    feed.send(30)
    code, again, err = cli(*command)
    assert (code, err) == (0, "")  # nothing was tried again
    assert again == out
    assert f"study of {feed.topic}" not in again
    best: dict[str, Any] = yaml.safe_load(Path("study/best.yaml").read_text())
    assert best["inputs"][0]["topic"] == feed.topic


def test_times_say_where_it_begins_and_ends(feed: Feed, kafka: KafkaConfig) -> None:
    config = Config(kafka=kafka, inputs=[{"topic": feed.topic}])  # type: ignore[list-item]
    (source,) = config.inputs
    first, end = "2023-11-14T23:00:00Z", "2023-11-15T01:00:00+00:00"
    between = bounds(config, source, first, end)
    stream = of_topic(config, source, between)
    times = np.concatenate([columns.timestamp_N for _, columns in stream.parts])
    assert times.min() >= START + HOUR
    assert times.max() < START + 3 * HOUR
    assert len(stream) + stream.unusable == 120
    assert [of for of, _ in stream.parts] == [TopicPartition(feed.topic, n) for n in (0, 1)]
    assert of_topic(config, source, between).fingerprint() == stream.fingerprint()
    with pytest.raises(InputError, match="made anew"):
        of_topic(config, source, {0: (0, 10_000)})
    everything = of_topic(config, source, bounds(config, source, "earliest", "latest"))
    assert len(everything) + everything.unusable == 400  # what was aborted is nobody's
    assert everything.fingerprint() != stream.fingerprint()
    newest = everything.newest(100)
    assert len(newest) == 100
    assert newest.parts[0][1].offset_N[-1] == everything.parts[0][1].offset_N[-1]


def test_records_that_are_gone_are_told_of(cli: Callable[..., Said], feed: Feed, kafka: KafkaConfig) -> None:
    command = ("tune", feed.topic, "--study", "study", "--vary", "hidden=2", "--seeds", 2)
    assert cli(*command)[0] == 0
    with admin_client(kafka) as admin:
        admin.delete_records({ClientPartition(feed.topic, 1): 50})
    code, out, err = cli(*command)
    assert (code, out) == (1, "")
    assert f"{feed.topic}-1 has no records before offset 50 any more" in err.splitlines()[-1]


def test_what_is_wrong_with_a_topic_is_one_sentence(cli: Callable[..., Said], feed: Feed) -> None:
    for options, said in (
        (["nowhere"], "topic nowhere does not exist"),
        ([feed.topic, "--from", "noon"], "--from is 'noon', which is no time"),
        ([feed.topic, "--value-columns", "load"], "Columns are of a file"),
    ):
        code, out, err = cli("tune", *options, "--study", "study")
        assert (code, out) == (1, "")
        assert said in err.splitlines()[-1]
