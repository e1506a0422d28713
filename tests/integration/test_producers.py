"""The producers against a real broker: what is in the topic is what was in the files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from producers.data import shipped_series
from producers.host import host
from producers.replay import replay
from streamgen.config import KafkaConfig
from streamgen.csvfile import CsvRows
from streamgen.errors import TopicError
from streamgen.kafka.topics import NewTopic, create_topics

FOREVER = {"retention.ms": "-1"}  # the broker would delete what happened long ago


@pytest.fixture
def topic(kafka: KafkaConfig, fresh: Callable[[str], str]) -> str:
    name = fresh("produced")
    create_topics(kafka, [NewTopic(name, 2, settings=FOREVER)])
    return name


def test_shipped_series_arrive_whole_and_in_order(
    kafka: KafkaConfig, topic: str, read_committed: Callable[[str], list[Any]]
) -> None:
    series = shipped_series()
    count = replay([one.path for one in series], topic, kafka)
    records = read_committed(topic)
    assert len(records) == count
    for one in series:
        mine = [record for record in records if record.key == one.name.encode()]
        assert len({record.partition for record in mine}) == 1
        batches = list(CsvRows(one.path))
        assert [record.timestamp for record in mine] == [t for b in batches for t in b.time_ms_N.tolist()]
        rows = [json.loads(record.value) for record in mine]
        assert [row["value"] for row in rows] == [v for b in batches for v in b.value_ND[:, 0].tolist()]
        assert [row["timestamp"] for row in rows] == [t for b in batches for t in b.timestamp or []]


def test_host_metrics_arrive(
    kafka: KafkaConfig, topic: str, read_committed: Callable[[str], list[Any]]
) -> None:
    assert host(topic, kafka, key="me", interval_s=0.05, limit=3) == 3
    records = read_committed(topic)
    assert [record.key for record in records] == [b"me"] * 3
    assert "cpu_percent" in json.loads(records[0].value)


REPLAY = """
import sys
from pathlib import Path
from producers.replay import replay
from streamgen.config import KafkaConfig
from producers.data import shipped_series
told = lambda progress: print(progress.sent, flush=True)
kafka = KafkaConfig(bootstrap_servers=sys.argv[1])
print(replay([shipped_series()[0].path], sys.argv[2], kafka, rate=200.0, loop=True, report=told), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_replay_with_all_that_was_sent_written(
    kafka: KafkaConfig, topic: str, read_committed: Callable[[str], list[Any]], number: signal.Signals
) -> None:
    command = [sys.executable, "-c", REPLAY, kafka.bootstrap_servers, topic]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 50:
            pass
        process.send_signal(number)
        asked = time.monotonic()
        said = process.stdout.read().split()
        assert process.wait(timeout=20) == 0
        assert time.monotonic() - asked < 10
    assert len(read_committed(topic)) == int(said[-1]) >= 50


def test_a_topic_that_is_not_there(kafka: KafkaConfig, fresh: Callable[[str], str]) -> None:
    with pytest.raises(TopicError, match="does not exist"):
        host(fresh("nowhere"), kafka, limit=1)
