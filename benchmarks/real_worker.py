"""`streamgen run` as a process of its own, seen from outside: its log, its metrics, /proc."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from machine import Seen, see

PATIENCE_S = 600.0


class RealWorker:
    """A worker of an application; a context manager that leaves no process behind.

    With the name that it keeps over restarts it is a static member: it has its partitions back at once.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        settings = {
            **config,
            "device": "cpu",
            "metrics": {"port": 0},
            "state": {"directory": str(folder / "names"), **config["state"]},
        }
        name = config["application_id"]
        self._config, self._log = folder / f"{name}.yaml", folder / f"{name}-{time.time_ns()}.log"
        self._config.write_text(yaml.safe_dump(settings))
        line = [sys.executable, "-m", "streamgen", "run", str(self._config), "--worker-id", name]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(line, stdout=log, stderr=log)
        self._address: str | None = None

    def log(self) -> list[dict[str, Any]]:
        """What it logged so far; what is no JSON is left out."""
        events = []
        for line in self._log.read_text().splitlines():
            try:
                events.append(json.loads(line))
            except ValueError:
                continue
        return events

    def metrics(self) -> dict[str, float]:
        """By name with labels, as in the exposition format; empty before the server listens."""
        if self._address is None:
            started = [event for event in self.log() if event.get("event") == "worker started"]
            if not started:
                self._check()
                return {}
            self._address = str(started[0]["metrics"])
        with urllib.request.urlopen(f"{self._address}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        pairs = [line.rpartition(" ") for line in lines if not line.startswith("#")]
        return {name: float(value) for name, _, value in pairs}

    def see(self) -> Seen:
        """Its process now."""
        return see(self._process.pid)

    def wait(self, until: Callable[[dict[str, float]], bool], every_s: float = 0.2) -> dict[str, float]:
        """Look at its metrics until they are as wanted."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            metrics = self.metrics()
            if metrics and until(metrics):
                return metrics
            self._check()
            time.sleep(every_s)
        raise RuntimeError(f"not reached in {PATIENCE_S:.0f} s: {self._tail()}")

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and wait for its end in order."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(120)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def _check(self) -> None:
        if self._process.poll() is not None:
            raise RuntimeError(f"the worker ended with {self._process.returncode}: {self._tail()}")

    def _tail(self) -> str:
        return self._log.read_text()[-2000:]


def of(name: str, topic: str, partition: int = 0) -> str:
    """A metric of a partition, as `metrics` names it."""
    return f'streamgen_{name}{{partition="{partition}",topic="{topic}"}}'


def of_topic(name: str, topic: str) -> str:
    """A metric of a topic, as `metrics` names it."""
    return f'streamgen_{name}{{topic="{topic}"}}'
