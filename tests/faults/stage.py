"""Where a run plays: one broker, three places for workers with a proxy before each, and the story of it all.

    worker-N ── proxy-N ── listener N ┐
    the reference and the checker ────┴ broker

Every process dies with this one, also when it is killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

from streamgen.kafka.broker import EmbeddedBroker
from streamgen.yamlfile import dump_yaml

HERE = Path(__file__).parent
SLOTS = 3
SESSION_MS = 2000


class Worker:
    """One worker process. It has everything imported and waits until `run` lets it go."""

    def __init__(self, log: Path) -> None:
        self.log, self.name = log, ""
        environment = {n: v for n, v in os.environ.items() if not n.startswith("STREAMGEN_")}
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "worker.py")],
                stdin=subprocess.PIPE, bufsize=0, stdout=output, stderr=output, start_new_session=True,
                env=environment | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip

    def run(self, config: Path, name: str, commands: tuple[str, ...] = ()) -> None:
        """Let it go."""
        self.name = name
        self.tell(json.dumps({"config": str(config), "worker_id": name, "commands": commands}))

    def tell(self, line: str) -> None:
        """Give it a command; one that is gone does not mind."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    def signal(self, which: signal.Signals) -> None:
        """Send a signal to the process."""
        self._process.send_signal(which)

    @property
    def code(self) -> int | None:
        """How it ended; None while it lives."""
        return self._process.poll()

    def said(self, text: str) -> int:
        """How often its log holds a text."""
        return self.log.read_text(errors="replace").count(text)

    @property
    def ready(self) -> bool:
        """Whether it says that its partitions are restored, all of them."""
        started = re.search(rb'"metrics": "(http[^"]*)"', self.log.read_bytes())
        if started is None:
            return False
        try:
            with urlopen(f"{started[1].decode()}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:  # 503 is one too
            return False

    def wait(self, seconds: float) -> int:
        """Wait for its end; returns the exit code."""
        return self._process.wait(seconds)

    def end(self) -> None:
        """End it, whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


class ProxyProcess:
    """A proxy before one worker."""

    def __init__(self, port: int, broker_port: int, log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "proxy.py"), str(port), str(broker_port)],
                stdin=subprocess.PIPE, bufsize=0, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    def tell(self, line: str) -> None:
        """Give it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def said(self, text: str) -> int:
        """How often its log holds a text."""
        return self.log.read_text(errors="replace").count(text)

    def end(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


class Stage:
    """A broker and what is around it, as a context manager; `folder` holds data, logs and the story."""

    def __init__(
        self, folder: Path, tell: Callable[[str], None] = print, properties: Mapping[str, str] | None = None
    ) -> None:
        self.folder, self._tell = folder, tell
        folder.mkdir(parents=True, exist_ok=True)
        # What tests opened, also those that failed: a client's thread would go on, and log, in later tests.
        self.clients = contextlib.ExitStack()
        self._began = time.monotonic()
        self._proxies: list[ProxyProcess] = []
        self._workers: list[Worker] = []
        self._spare: Worker | None = None
        self._logs = 0
        main, controller, *rest = _free_ports(2 + 2 * SLOTS)
        self._ports = [(rest[2 * n], rest[2 * n + 1]) for n in range(SLOTS)]  # proxy, listener
        self.bootstrap = f"127.0.0.1:{main}"
        listeners = {f"PROXY{n}": listener for n, (_, listener) in enumerate(self._ports)}
        advertised = {f"PROXY{n}": proxy for n, (proxy, _) in enumerate(self._ports)}
        self.broker = EmbeddedBroker(
            port=main,
            data_dir=folder / "broker",
            properties={
                "listeners": _listeners({"PLAINTEXT": main, **listeners, "CONTROLLER": controller}),
                "advertised.listeners": _listeners({"PLAINTEXT": main, **advertised}),
                "controller.quorum.voters": f"1@127.0.0.1:{controller}",
                "listener.security.protocol.map": ",".join(
                    f"{name}:PLAINTEXT" for name in ("PLAINTEXT", *listeners, "CONTROLLER")
                ),
                "group.min.session.timeout.ms": "500",
                # Kafka's default. With less than the broker needs to start, it aborts transactions that
                # timed out while it was away before it knows its partitions, writes them no markers, and
                # what was aborted is visible with the next commit of the same producer (Kafka 4.3.1).
                "transaction.abort.timed.out.transaction.cleanup.interval.ms": "10000",
                **(properties or {}),
            },
        )

    def __enter__(self) -> Self:
        try:
            self.broker.start()
            for n, (proxy, listener) in enumerate(self._ports):
                self._proxies.append(ProxyProcess(proxy, listener, self.folder / f"proxy-{n}.log"))
            self.wait(lambda: all(p.said("ready") for p in self._proxies), 20, "proxies that are ready")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything."""
        self.clients.close()
        for worker in [*self._workers, *([self._spare] if self._spare else [])]:
            worker.end()
        for proxy in self._proxies:
            proxy.end()
        self._workers, self._spare, self._proxies = [], None, []
        self.broker.close()

    def say(self, text: str) -> None:
        """A line of the story."""
        self._tell(f"t={time.monotonic() - self._began:.1f}s {text}")

    def proxy(self, slot: int) -> ProxyProcess:
        """The proxy before the worker of a slot."""
        return self._proxies[slot]

    def way(self, slot: int) -> str:
        """Which broker a slot's worker asks."""
        return f"127.0.0.1:{self._ports[slot][0]}"

    def start_worker(
        self, application: str, topic: str, slot: int | None, *commands: str, state: dict[str, Any]
    ) -> Worker:
        """A worker of an application; `slot` None has no proxy before it, and is the reference's."""
        name = "reference" if slot is None else f"worker-{slot}"
        config = self.folder / f"{application}-{name}.yaml"
        bootstrap = self.bootstrap if slot is None else self.way(slot)
        config.write_text(dump_yaml(configuration(application, topic, bootstrap, state)))
        worker, self._spare = self._spare or self._new_worker(), self._new_worker()
        for gone in [w for w in self._workers if w.code is not None]:
            gone.end()
            self._workers.remove(gone)
        self._workers.append(worker)
        worker.run(config, name, commands)
        return worker

    def _new_worker(self) -> Worker:
        self._logs += 1
        return Worker(self.folder / f"worker-{self._logs:04d}.log")

    @staticmethod
    def wait(until: Callable[[], object], seconds: float, what: str) -> None:
        """Wait for something that has to come."""
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {seconds:.0f} s")
            time.sleep(0.05)


def configuration(application: str, topic: str, bootstrap: str, state: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a worker."""
    from stream import inputs

    return {
        "application_id": application,
        "kafka": {"bootstrap_servers": bootstrap, "session_timeout_ms": SESSION_MS},
        "inputs": inputs(topic, application),
        "device": "cpu",
        "commit_interval_ms": 20,
        "state": state,
        "metrics": {"port": 0},
    }


def _listeners(ports: dict[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def _free_ports(count: int) -> Iterator[int]:
    """Below the ports that the system gives to connections: one of those could take a broker's port while the
    broker is dead, even one that tries to reach it and meets itself."""
    found: list[int] = []
    candidates = list(range(20_000, 32_000))
    random.shuffle(candidates)
    for port in candidates:
        with socket.socket() as one, contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return iter(found)
    raise AssertionError(f"no {count} free ports")
