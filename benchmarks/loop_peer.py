"""The peer of the throughput figures: the loop that one would write by hand with kafka-python.

It reads JSON records `read_committed`, makes one small JSON result of each, and sends the results and the
offsets they come from in one transaction every `commit_interval_s`. It scores and learns nothing, so its
CPU time a record is the price of reading, decoding, encoding, producing and committing alone.

It runs in a process of its own, so that its CPU time holds all threads of its clients and nothing else:

    python benchmarks/loop_peer.py BOOTSTRAP INPUT OUTPUT --records 100000
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.structs import OffsetAndMetadata, TopicPartition

Polled = dict[TopicPartition, list[Any]]
IDLE_S = 30.0  # nothing to read for so long: there are fewer records than were asked for


@dataclass(frozen=True)
class Usage:
    """What the loop took from its first record to its last commit. The start of the clients is left out."""

    records: int
    transactions: int
    wall_s: float
    cpu_s: float  # user and system, all threads

    @property
    def cpu_us_per_record(self) -> float:
        return 1e6 * self.cpu_s / self.records


@dataclass(frozen=True)
class Loop:
    bootstrap: str
    source: str  # topic of JSON objects
    target: str  # topic with as many partitions
    records: int
    commit_interval_s: float = 0.1
    # kafka-python's own defaults. The loop takes about a third less CPU time with 5000, 50 and 262144.
    max_poll: int = 500
    linger_ms: int = 0
    batch_size: int = 16384


def measure(loop: Loop) -> Usage:
    """Run the loop over the first records of its source, in a process of its own."""
    line = [sys.executable, __file__, loop.bootstrap, loop.source, loop.target, f"--records={loop.records}"]
    line += [f"--commit-interval-s={loop.commit_interval_s}", f"--max-poll={loop.max_poll}"]
    line += [f"--linger-ms={loop.linger_ms}", f"--batch-size={loop.batch_size}"]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"the peer's loop failed: {ended.stderr.strip()[-2000:]}")
    return Usage(**json.loads(ended.stdout))


def run(loop: Loop) -> Usage:
    """Run the loop in this process. It finishes its last poll, so it may read a few records more."""
    group = f"loop-peer-{uuid.uuid4().hex[:8]}"
    consumer = KafkaConsumer(
        loop.source,
        bootstrap_servers=loop.bootstrap,
        group_id=group,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=loop.max_poll,
    )
    producer = KafkaProducer(
        bootstrap_servers=loop.bootstrap,
        transactional_id=group,
        linger_ms=loop.linger_ms,
        batch_size=loop.batch_size,
    )
    try:
        producer.init_transactions()
        polled = _poll(consumer)  # joins the group, which is not part of the loop
        wall, cpu = time.perf_counter(), _cpu_s()
        done = transactions = 0
        while polled:
            done += _transaction(loop, consumer, producer, polled, loop.records - done)
            transactions += 1
            polled = _poll(consumer) if done < loop.records else {}
        return Usage(done, transactions, time.perf_counter() - wall, _cpu_s() - cpu)
    finally:
        producer.close()
        consumer.close()


def _transaction(
    loop: Loop, consumer: KafkaConsumer, producer: KafkaProducer, polled: Polled, wanted: int
) -> int:
    """Process what was polled, and what comes until the interval ends; commit; return the records done."""
    until = time.perf_counter() + loop.commit_interval_s
    member = consumer.group_metadata()
    producer.begin_transaction()
    sent: list[Any] = []
    offsets: dict[TopicPartition, OffsetAndMetadata] = {}
    while True:
        for partition, messages in polled.items():
            for message in messages:
                future = producer.send(
                    loop.target,
                    _result(message),
                    key=message.key,
                    partition=message.partition,
                    timestamp_ms=message.timestamp,
                )
                sent.append(future)
            offsets[partition] = OffsetAndMetadata(messages[-1].offset + 1, "", -1)
        left_s = until - time.perf_counter()
        if left_s <= 0 or len(sent) >= wanted:
            break
        polled = consumer.poll(timeout_ms=int(1000 * left_s))
    producer.flush()
    for future in sent:
        future.get(
            timeout=0
        )  # an expired batch shows here alone: the commit would return as if all were well
    producer.send_offsets_to_transaction(offsets, member)
    producer.commit_transaction()
    return len(sent)


def _result(message: Any) -> bytes:
    record = json.loads(message.value)
    result = {
        "key": None if message.key is None else message.key.decode(),
        "timestamp": message.timestamp,
        "score": 0.5,
        "is_anomaly": False,
        "expected": record,
        "source": {"topic": message.topic, "partition": message.partition, "offset": message.offset},
    }
    return json.dumps(result).encode()


def _poll(consumer: KafkaConsumer) -> Polled:
    until = time.monotonic() + IDLE_S
    while time.monotonic() < until:
        polled: Polled = consumer.poll(timeout_ms=1000)
        if polled:
            return polled
    raise TimeoutError(f"no record to read for {IDLE_S:.0f} s")


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A plain kafka-python loop from topic to topic.")
    parser.add_argument("bootstrap")
    parser.add_argument("source", help="topic of JSON objects")
    parser.add_argument("target", help="topic with at least as many partitions")
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--commit-interval-s", type=float, default=Loop.commit_interval_s)
    parser.add_argument("--max-poll", type=int, default=Loop.max_poll)
    parser.add_argument("--linger-ms", type=int, default=Loop.linger_ms)
    parser.add_argument("--batch-size", type=int, default=Loop.batch_size)
    given = parser.parse_args(arguments)
    usage = run(Loop(**vars(given)))
    print(json.dumps(asdict(usage)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
