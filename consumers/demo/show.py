"""The demo from its start to its end: broker, topics, processes, the live screen, the verdict."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

from rich.console import Console

from consumers.demo.forecasts import ASK_AT, Forecast, ask
from consumers.demo.judgement import delivery, judge
from consumers.demo.outcome import Outcome
from consumers.demo.processes import Processes
from consumers.demo.report import report
from consumers.demo.screen import Screen
from consumers.demo.tail import Tail
from producers.data import shipped_series
from producers.sending import Stop, stop_on_signals
from streamgen.config import Config
from streamgen.csvfile import CsvRows
from streamgen.errors import InputError, MissingDependency
from streamgen.kafka.broker import EmbeddedBroker
from streamgen.kafka.topics import NewTopic, create_topics, ensure_publishing_topics, ensure_topics
from streamgen.yamlfile import read_yaml

SERIES, HOST = "series", "host"  # the two topics
PARTITIONS = 2  # of the first: a share of it for each worker
WORKERS = 2
RATE = 500  # records a second of the replay; a slow core alone keeps up with it
START_S = 120.0  # for a worker, which imports torch, on a machine that has much else to do
DRAIN_S = 30.0  # without a new result, at the end: what is written and not yet scored will not be
DRAW_S = 0.25

CONFIG = """\
# What the workers and the publisher of the demo ran with: streamgen run (or publish) demo.yaml
application_id: streamgen-demo
kafka:
  bootstrap_servers: {bootstrap}
inputs:
  - topic: {series}
  - topic: {host}
state:
  directory: {state}
  every_seconds: 5  # so that sequences come from fresh weights
"""


def run_demo(seconds: float, keep: bool, output: Path) -> None:
    """Show streamgen at work on real data, then judge it by what is in the scores topic.

    The replay is stopped after `seconds`, unless it is done before. `keep` stays up until SIGINT or SIGTERM.
    Raises a `StreamgenError` when something is missing or fails; nothing is left running.
    """
    _check(output)
    console = Console(highlight=False)
    began = monotonic()

    def tell(doing: str) -> None:
        console.print(f"{monotonic() - began:4.0f} s  {doing}", style="dim", soft_wrap=True)

    with (
        TemporaryDirectory(prefix="streamgen-demo-") as scratch,
        console.status("please wait") as waiting,
        EmbeddedBroker(progress=tell) as broker,
        stop_on_signals() as stop,
    ):
        config = _configure(output / "demo.yaml", broker.bootstrap_servers, Path(scratch))
        tell(f"starting {WORKERS} workers, the replay and this machine's metrics")
        with Processes(Path(scratch)) as processes, Tail(config.kafka, config.inputs) as tail:
            stage = Stage(console, config, processes, tail, _start(processes, output, broker))
            waiting.stop()
            stage.play(seconds, stop)
            if keep and not stop.requested:
                report(console, stage.judged(), output)
                stage.stay(stop)
            tell("stopping the producers and the workers")
            stage.end()
            outcome = stage.judged()
        tell("stopping Kafka")
    if not keep:
        report(console, outcome, output)
    console.print(f"{monotonic() - began:4.0f} s  done; nothing is left running", style="dim")


@dataclass
class Stage:
    """All that runs."""

    console: Console
    config: Config
    processes: Processes
    tail: Tail
    metrics: list[str]  # where each worker serves them
    asked: set[str] = field(default_factory=set)  # series of which sequences are asked for

    def play(self, seconds: float, stop: Stop) -> None:
        """Until the replay is scored, or the time is up, or the end is asked for."""
        with self._screen() as screen:
            deadline = monotonic() + seconds
            while not self.processes.ended("replay"):
                self._look(screen, "replay")
                if stop.requested or monotonic() > deadline:
                    self._terminate("replay", SERIES)
            deadline = monotonic() + DRAIN_S
            # What is still missing then, the report says.
            while not self.tail.answered(SERIES) and monotonic() < deadline:
                scored = self.tail.seen[SERIES].scored
                self._look(screen, "scoring")
                if self.tail.seen[SERIES].scored > scored and not stop.requested:
                    deadline = monotonic() + DRAIN_S  # a slow machine comes to its end, too

    def _look(self, screen: Screen, doing: str) -> None:
        self.tail.poll(DRAW_S)
        self.processes.check()
        screen.show(doing)
        self._ask()

    def _ask(self) -> None:
        """Ask how it will go on, of every series that is half written."""
        source, seen = self.config.inputs[0], self.tail.seen[SERIES]
        for name, total in self._lengths.items():
            if name not in self.asked and len(seen.places[name]) >= ASK_AT * total:
                ask(self.config.kafka, source, name)
                self.asked.add(name)

    @cached_property
    def _lengths(self) -> dict[str, int]:
        return {one.name: sum(map(len, CsvRows(one.path))) for one in shipped_series()}

    def stay(self, stop: Stop) -> None:
        """Until the end is asked for."""
        bootstrap = self.config.kafka.bootstrap_servers
        self.console.print("All stays up until Ctrl-C. Look around from another terminal:")
        for command in (
            f"streamgen watch {HOST} --bootstrap {bootstrap}",
            f"streamgen watch {SERIES} --bootstrap {bootstrap} --from-start",
            f"curl {self.metrics[0]}/metrics",
        ):
            self.console.print(f"  {command}", style="bold", soft_wrap=True)
        with self._screen() as screen:
            while not stop.requested:
                self.tail.poll(DRAW_S)
                self.processes.check()
                screen.show("live")

    def end(self) -> None:
        """End the producer, then the workers when all is answered, and read what is left to read."""
        deadline = monotonic() + DRAIN_S
        while not (self.processes.ended("host") and self.tail.answered(HOST)) and monotonic() < deadline:
            self._terminate("host", HOST)
            self.tail.poll(DRAW_S)
        self.processes.stop()
        self.tail.drain()

    def _terminate(self, producer: str, topic: str) -> None:
        """End a producer that has begun: before, it does not listen to signals yet and would just die."""
        if self.tail.seen[topic].written:
            self.processes.terminate(producer)

    def judged(self) -> Outcome:
        """What the topics say by now."""
        source, seen = self.config.inputs[0], self.tail.seen
        return Outcome(
            series=shipped_series(),
            seen=seen[SERIES],
            judgements={
                one.name: judge(one.incidents, seen[SERIES].scores[one.name], source.anomaly.close_after)
                for one in shipped_series()
            },
            forecasts={
                name: Forecast.of(answer, seen[SERIES].places[name], seen[SERIES].values)
                for name, answer in seen[SERIES].answers.items()
                if answer.whole
            },
            refusals=seen[SERIES].refusals,
            delivery=delivery(
                self.tail.ends(SERIES), seen[SERIES].scored_places(), seen[SERIES].dead_letters
            ),
            host=seen[HOST],
            source=source,
            bootstrap=self.config.kafka.bootstrap_servers,
            metrics=self.metrics,
        )

    def _screen(self) -> Screen:
        total = sum(self._lengths.values())
        footer = [
            f"Kafka {self.config.kafka.bootstrap_servers}   "
            f"{WORKERS} workers, metrics at {' and '.join(self.metrics)}",
            f"scores in the topics {' and '.join(one.scores_topic for one in self.config.inputs)}",
        ]
        return Screen(self.console, self.tail.seen, SERIES, total, footer)


def _check(output: Path) -> None:
    """Raises before anything is started for what would fail at the end."""
    for package in ("psutil", "matplotlib"):
        if find_spec(package) is None:
            raise MissingDependency(
                f"The demo needs the package {package}: pip install 'streamgen-kafka[demo]'."
            )
    try:
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise InputError(
            f"Cannot write to {output} ({error.strerror}): give another folder with --output."
        ) from None


def _configure(path: Path, bootstrap: str, scratch: Path) -> Config:
    """Write the workers' configuration, and make the topics."""
    path.write_text(
        CONFIG.format(bootstrap=bootstrap, series=SERIES, host=HOST, state=scratch / "state"),
        encoding="utf-8",
    )
    # Not with the environment's overrides: they may be meant for another cluster.
    config = Config.model_validate(read_yaml(path))
    # The series are years old: by age, Kafka would delete them at once.
    create_topics(
        config.kafka, [NewTopic(SERIES, PARTITIONS, settings={"retention.ms": "-1"}), NewTopic(HOST)]
    )
    ensure_topics(config)
    ensure_publishing_topics(config)
    return config


def _start(processes: Processes, output: Path, broker: EmbeddedBroker) -> list[str]:
    """Start workers and publisher, then what they read; returns where each worker serves its metrics."""
    workers = [f"worker {number + 1}" for number in range(WORKERS)]
    for worker in workers:
        processes.start(worker, ["run", str(output / "demo.yaml")])
    metrics = [processes.wait_for(worker, _metrics_address, START_S) for worker in workers]
    processes.start("publisher", ["publish", str(output / "demo.yaml"), "--metrics-port", "0"])
    processes.wait_for("publisher", _publisher_started, START_S)
    to = ["--bootstrap", broker.bootstrap_servers]
    processes.start("host", ["host", "--topic", HOST, *to])
    files = [str(one.path) for one in shipped_series()]
    processes.start("replay", ["replay", *files, "--topic", SERIES, "--rate", str(RATE), *to])
    return metrics


def _metrics_address(line: str) -> str | None:
    """Where the worker that logs this line serves its metrics, when it says so."""
    if not line.startswith("{"):
        return None
    entry = json.loads(line)
    return str(entry["metrics"]) if entry.get("event") == "worker started" else None


def _publisher_started(line: str) -> str | None:
    return line if '"publisher started"' in line else None
