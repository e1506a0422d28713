"""Checkpoints in Kafka: how long they take, how long the stream waits for them, what they cost; and replay.

    python benchmarks/checkpoints.py [--rounds 3] [--replays 5] [--periods 1] [--results benchmarks/results]

Every worker is a process of its own (`streamgen run`) on the embedded broker; two features, the light preset
of the default model. `checkpoint_gaps.py` stores and restores beside a stream that goes on,
`checkpoint_cost.py` compares CPU times and speeds over the same records.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from checkpoint_cost import Cost, Span, cost, replay
from checkpoint_gaps import EVERY_S, FEW_KEYS, FEW_RATE, Round, rounds
from machine import load, told
from streams import D, Stream

from streamgen.kafka.broker import EmbeddedBroker

GOALS = {"store": 3.0, "restore": 5.0, "gap": 0.5, "share": 0.05, "replay": 1.0}


def gap_table(measured: Sequence[Round], keys: int, learners: int) -> str:
    """Storing and restoring, as Markdown."""

    def row(label: str, values: Iterable[float], goal: float | None = None) -> str:
        found = list(values)
        limit = "" if goal is None else f"≤ {goal:g}"
        return f"| {label} | {statistics.median(found):.2f} | {max(found):.2f} | {limit} |"

    lines = [
        f"A task of {keys:,} keys that get {1.2 * keys / EVERY_S:.0f} records a second together, and beside "
        f"it one of {FEW_KEYS} keys that gets {FEW_RATE:.0f}; {len(measured)} rounds of a checkpoint, kill "
        f"-9 as soon as it is stored, and a new start. The last checkpoint wrote {learners:,} learners. A "
        "gap is the longest time in which a read_committed reader saw no new result; without a checkpoint "
        "that is the commit interval, 0.1 s, and what the machine is busy with.",
        "",
        "| seconds | median | worst | goal |",
        "|---|---:|---:|---:|",
        row("a checkpoint is stored", (one.store for one in measured), GOALS["store"]),
        row("… gap of the other task meanwhile", (one.few_gap for one in measured), GOALS["gap"]),
        row("… gap of the task itself meanwhile", (one.many_gap for one in measured), GOALS["gap"]),
        row("… gap of the other task just before", (one.usual_gap for one in measured)),
        row("from assignment to its first new result", (one.restore for one in measured), GOALS["restore"]),
        row("… of that, until its state is read", (one.opened for one in measured)),
        row("… gap of the other task meanwhile", (one.restoring_gap for one in measured), GOALS["gap"]),
        "",
        f"At the restarts {', '.join(f'{one.replayed:.0f}' for one in measured)} records were learned again, "
        "and the task's partition of the state topic held "
        f"{', '.join(f'{one.stored_mib:.0f}' for one in measured)} MiB: the broker removes replaced states "
        "in its own time, and until then a restore reads them too.",
    ]
    return "\n".join(lines) + "\n"


def cost_table(costs: Sequence[Cost], keys: int) -> str:
    """What checkpoints cost, as Markdown."""
    share = statistics.median(one.share for one in costs)
    lines = [
        f"One task of {keys:,} keys with more records waiting than the worker can take; every key has "
        "changed at each checkpoint. The defaults of the interval (60 s or 50,000 records), up to the end of "
        "a checkpoint, and the same records without checkpoints. The share is taken within the run: what "
        "the threads beside the loop's used while a checkpoint was written and beyond what they used just "
        "before, and the copying in the loop's thread. On a shared machine the CPU time of the same work "
        "varies more than that from run to run, as the columns with and without show.",
        "",
        "| run | records | checkpoints | CPU of one, s | share | CPU µs a record with | without | difference "
        "| records a second with | without | longest gap at a checkpoint, s | just before |",
        "|---|" + "---:|" * 11,
    ]
    for n, one in enumerate(costs, 1):
        cells = [
            f"{n}", f"{one.stored.records:,.0f}", f"{one.checkpoints}",
            f"{one.beside_s + one.loop_s:.2f}", f"{100 * one.share:.1f} %",
            f"{one.stored.cpu_us:.0f}", f"{one.free.cpu_us:.0f}", f"{100 * one.difference:+.1f} %",
            f"{one.stored.rate:,.0f}", f"{one.free.rate:,.0f}",
            f"{one.gap:.2f}", f"{one.usual_gap:.2f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"**CPU share of checkpoints: {100 * share:.1f} %** (goal ≤ {100 * GOALS['share']:.0f} %). Records a "
        "second as if no other process had taken a core from the loop.",
    ]
    return "\n".join(lines) + "\n"


def replay_table(runs: Sequence[tuple[Span, Span]], records: int) -> str:
    """Replay against live, as Markdown."""
    speed = statistics.median(again.rate / live.rate for live, again in runs)
    lines = [
        f"{records:,} records live, kill -9 without a checkpoint, and the same records again in silence. "
        "Records a second as if no other process had taken a core from the loop.",
        "",
        "| run | live, records a second | replay | ratio | live, CPU µs a record | replay |",
        "|---|" + "---:|" * 5,
    ]
    for n, (live, again) in enumerate(runs, 1):
        lines.append(
            f"| {n} | {live.rate:,.0f} | {again.rate:,.0f} | {again.rate / live.rate:.2f} "
            f"| {live.cpu_us:.0f} | {again.cpu_us:.0f} |"
        )
    lines += ["", f"**Replay is {speed:.2f} times as fast as live** (goal ≥ {GOALS['replay']:.0f})."]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--keys", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--periods", type=int, default=1, help="checkpoints of a run that tells their cost")
    parser.add_argument("--records", type=int, default=300_000, help="most records of such a run")
    parser.add_argument("--replays", type=int, default=5)
    parser.add_argument("--replayed", type=int, default=20_000, help="records of a replay")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    before = load()
    with EmbeddedBroker() as broker:
        bootstrap = broker.bootstrap_servers
        measured, learners = rounds(broker, given.keys, given.rounds)
        print(gaps := gap_table(measured, given.keys, learners), flush=True)
        short, long = Stream(bootstrap, "replay", given.keys), Stream(bootstrap, "cost", given.keys)
        short.fill(given.replayed)
        runs = [replay(bootstrap, short, f"replay-{n}", given.keys) for n in range(given.replays)]
        print(replayed := replay_table(runs, given.replayed), flush=True)
        long.fill(given.records)
        costs = [cost(bootstrap, long, f"cost-{n}", given.keys, given.periods) for n in range(given.rounds)]
        print(costed := cost_table(costs, given.keys), flush=True)
        short.close()
        long.close()
    command = "python benchmarks/checkpoints.py " + " ".join(sys.argv[1:])
    text = (
        f"# Checkpoints\n\nMade by `{command.strip()}`. {told(before)} Workers are processes of their own on "
        f"the embedded broker, {D} features, stream_ae with the light preset; ratios are of the same run.\n\n"
        f"## Storing and restoring\n\n{gaps}\n## CPU time\n\n{costed}\n## Replay\n\n{replayed}"
    )
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / "checkpoints.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
