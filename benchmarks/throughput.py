"""Kafka to Kafka: what a record costs beside its learner, against a loop written by hand; and the learner.

    python benchmarks/throughput.py [--records 60000] [--learned 15000] [--results benchmarks/results]

Four features, JSON, 4 partitions, with 1 key and with 1,000 keys, on the embedded broker. The peer
(`loop_peer.py`) reads JSON and writes one JSON result a record with `send()`; it is run with kafka-python's
defaults and with the settings that were found to make it fastest. All are CPU times of one process, all of
its threads, from the first record to the last commit, taken in turn in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from kafka import KafkaProducer
from loop_peer import Loop, measure
from machine import processor

from streamgen.config import KafkaConfig
from streamgen.kafka.broker import EmbeddedBroker
from streamgen.kafka.topics import NewTopic, create_topics

PARTITIONS = 4
TUNED = {"max_poll": 5000, "linger_ms": 50, "batch_size": 262_144}


def fill(bootstrap: str, topic: str, records: int, keys: int) -> None:
    """Four random walks a key, a record a second."""
    kafka = KafkaConfig(bootstrap_servers=bootstrap)
    names = [topic, f"{topic}.peer"]
    create_topics(kafka, [NewTopic(name, PARTITIONS, 1, {"retention.ms": "-1"}) for name in names])
    rng = np.random.default_rng(0)
    step_N4 = rng.normal(size=(records, 4))
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=50, batch_size=262_144)
    for n, step_4 in enumerate(step_N4.tolist()):
        value = json.dumps(dict(zip("abcd", (round(v, 4) for v in step_4), strict=True))).encode()
        producer.send(topic, value, key=b"key-%d" % (n % keys), timestamp_ms=1_700_000_000_000 + 1000 * n)
    producer.flush()
    producer.close()


def ours(bootstrap: str, topic: str, records: int, *options: str) -> dict[str, float]:
    """One run of streamgen's loop in a process of its own."""
    script = str(Path(__file__).with_name("worker_cost.py"))
    line = [sys.executable, script, bootstrap, topic, f"--records={records}", *options]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"the loop failed: {ended.stderr.strip()[-2000:]}")
    measured: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return measured


def compare(bootstrap: str, keys: int, records: int, learned: int, rounds: int) -> dict[str, float]:
    """Medians over `rounds` of peer, tuned peer and streamgen in turn, µs of CPU a record."""
    topic, short = f"keys-{keys}", f"keys-{keys}-learned"
    fill(bootstrap, topic, records, keys)
    fill(bootstrap, short, learned, keys)
    peer, tuned, beside, live, learner, rate, core = ([] for _ in range(7))
    for _ in range(rounds):
        peer.append(measure(Loop(bootstrap, topic, f"{topic}.peer", records)).cpu_us_per_record)
        tuned.append(measure(Loop(bootstrap, topic, f"{topic}.peer", records, **TUNED)).cpu_us_per_record)
        without = ours(bootstrap, topic, records, "--no-learner")
        beside.append(1e6 * (without["cpu_s"] - without["learner_s"]) / without["records"])
        whole = ours(bootstrap, short, learned)
        live.append(1e6 * (whole["cpu_s"] - whole["learner_s"]) / whole["records"])
        learner.append(1e6 * whole["learner_s"] / whole["records"])
        core.append(whole["records"] / whole["cpu_s"])
        rate.append(whole["records"] / whole["wall_s"])
    return {
        "peer_us": statistics.median(peer),
        "tuned_peer_us": statistics.median(tuned),
        "beside_learner_us": statistics.median(beside),
        "beside_learner_at_live_rate_us": statistics.median(live),
        "learner_us": statistics.median(learner),
        "records_per_cpu_second": statistics.median(core),
        "records_per_second": statistics.median(rate),
        "ratio_to_peer": statistics.median(b / p for b, p in zip(beside, peer, strict=True)),
        "ratio_to_tuned_peer": statistics.median(b / p for b, p in zip(beside, tuned, strict=True)),
    }


def table(results: dict[int, dict[str, float]], about: str) -> str:
    """The figures as Markdown."""
    rows = {
        "plain kafka-python loop, CPU µs a record": "peer_us",
        "the same, tuned": "tuned_peer_us",
        "streamgen beside the learner, CPU µs a record": "beside_learner_us",
        "… of the plain loop": "ratio_to_peer",
        "… of the tuned loop": "ratio_to_tuned_peer",
        "streamgen beside the learner, at the learner's pace": "beside_learner_at_live_rate_us",
        "the learner (stream_ae, light, torch), CPU µs a record": "learner_us",
        "records scored and learned in a second of one core": "records_per_cpu_second",
        "records scored and learned a second, this run": "records_per_second",
    }
    lines = ["# Kafka to Kafka", "", about, ""]
    lines += ["| | " + " | ".join(f"{keys:,} key{'s' * (keys > 1)}" for keys in results) + " |"]
    lines += ["|---|" + "---:|" * len(results)]
    for label, name in rows.items():
        digits = 2 if name.startswith("ratio") else 0 if name.startswith("records") else 1
        lines += [f"| {label} | " + " | ".join(f"{r[name]:,.{digits}f}" for r in results.values()) + " |"]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--records", type=int, default=60_000)
    parser.add_argument("--learned", type=int, default=15_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    with EmbeddedBroker() as broker:
        results = {
            keys: compare(broker.bootstrap_servers, keys, given.records, given.learned, given.rounds)
            for keys in (1, 1000)
        }
    about = (
        f"Medians of {given.rounds} rounds, {given.records:,} records ({given.learned:,} with the learner), "
        f"4 features, JSON, {PARTITIONS} partitions, {processor()}, one machine with "
        "broker and client. Made by `python benchmarks/throughput.py`."
    )
    text = table(results, about)
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "throughput.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
