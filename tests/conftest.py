"""Fixtures of the tests that talk to a real Kafka: one broker for all of them, names of one's own for each.

Whatever needs the client is imported where it is used, so that the other tests start without it.
"""

from __future__ import annotations

import itertools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from streamgen.config import KafkaConfig
    from streamgen.kafka.broker import EmbeddedBroker
    from streamgen.testing import LogRecord, MemoryStore

# Networks of the tests are small: a second thread of torch costs more than it does. Set before torch is
# imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

Said = tuple[int, str, str]  # exit code, standard output, standard error

_numbers = itertools.count()

# The same examples each time, so that a red run is one that the change made. To look for new ones:
# pytest --hypothesis-profile=search
settings.register_profile("fixed", derandomize=True)
settings.register_profile("search", max_examples=2000)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    """A running broker, shared by all tests: use names from `fresh`, and do not stop it."""
    from streamgen.kafka.broker import EmbeddedBroker

    # Tests send records of long ago, which the broker would delete whenever it looks.
    with EmbeddedBroker(properties={"log.retention.ms": "-1"}) as running:
        yield running


@pytest.fixture(scope="session")
def kafka(broker: EmbeddedBroker) -> KafkaConfig:
    """How to reach the shared broker."""
    from streamgen.config import KafkaConfig

    return KafkaConfig(bootstrap_servers=broker.bootstrap_servers)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Said]:
    """Run a command in this process."""
    from streamgen.cli import main

    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["streamgen", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def store() -> MemoryStore:
    """Where a loop in memory keeps its state."""
    from streamgen.testing import MemoryStore

    return MemoryStore()


@pytest.fixture(scope="session")
def uninterrupted() -> dict[str, list[LogRecord]]:
    """What a loop that nothing happens to makes of the log of `memory_rig.filled`."""
    from memory_rig import filled, loop_over, outputs, until_read

    from streamgen.testing import MemoryStore

    log = filled()
    loop, _ = loop_over(log, MemoryStore())
    loop.run(until_read(loop, log))
    return outputs(log)


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """A topic or application name that no other test has."""
    return lambda name: f"{name}-{next(_numbers)}"


@pytest.fixture
def read_committed(kafka: KafkaConfig) -> Iterator[Callable[[str], list[Any]]]:
    """All records of a topic that a read_committed reader sees up to the end as it is now.

    It waits for what is pending: a commit is known some ms before its markers are in the log.
    """
    from kafka import KafkaConsumer, TopicPartition

    from streamgen.kafka.client import client_settings

    settings = client_settings(kafka) | {"enable_auto_commit": False}
    consumer = KafkaConsumer(**settings, isolation_level="read_committed")
    uncommitted = KafkaConsumer(**settings)

    def read(topic: str) -> list[Any]:
        partitions = [TopicPartition(topic, n) for n in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = uncommitted.end_offsets(partitions)
        found: list[Any] = []
        deadline = time.monotonic() + 20
        # Not "until the last offset came": markers and aborted records are never delivered.
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            assert time.monotonic() < deadline, f"{topic} is blocked by an open transaction"
            for records in consumer.poll(timeout_ms=50).values():
                found += records
        return sorted(found, key=lambda record: (record.partition, record.offset))

    yield read
    consumer.close()
    uncommitted.close()


@pytest.fixture
def logging_as_it_was() -> Iterator[None]:
    """For a test that sets logging up."""
    import structlog

    loggers = [logging.getLogger(name) for name in (None, "kafka", "kafka.net.selector")]
    root, levels, handlers = loggers[0], [one.level for one in loggers], loggers[0].handlers[:]
    for handler in handlers:
        root.removeHandler(handler)  # or basicConfig would close pytest's own
    yield
    root.handlers[:] = handlers
    for one, level in zip(loggers, levels, strict=True):
        one.setLevel(level)
    structlog.reset_defaults()
