"""Health over real HTTP on loopback."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from streamgen.errors import ConfigError
from streamgen.health import Health, HealthServer
from streamgen.metrics import Metrics
from streamgen.records import TopicPartition


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(patience_s=30, clock=clock)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def server(health: Health, metrics: Metrics) -> Iterator[HealthServer]:
    with HealthServer("127.0.0.1", 0, metrics.registry, health) as server:
        yield server


def get(server: HealthServer, path: str, **headers: str) -> tuple[int, str, str]:
    connection = HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    finally:
        connection.close()


def test_livez_follows_the_turns_of_the_loop(server: HealthServer, health: Health, clock: Clock) -> None:
    assert get(server, "/livez")[:2] == (200, "ok\n")
    clock.now += 30
    assert get(server, "/livez")[0] == 200
    clock.now += 11
    assert get(server, "/livez")[:2] == (503, "the loop made no turn for 41 s (allowed: 30 s)\n")
    health.turn()
    assert get(server, "/livez")[0] == 200


def test_readyz_says_what_is_missing(server: HealthServer, health: Health) -> None:
    def missing() -> tuple[int, set[str]]:
        status, body, kind = get(server, "/readyz")
        assert kind == "application/json"
        content = json.loads(body)
        assert content["ready"] == (not content["missing"]) == (status == 200)
        return status, set(content["missing"])

    assert missing() == (503, {"assigned", "broker"})
    health.broker(True)
    assert missing() == (503, {"assigned"})
    health.assigned(3)
    health.restoring(2, 100)
    assert missing() == (503, {"restored"})
    assert "2 of 3 partitions" in get(server, "/readyz")[1]
    health.restoring(0, 0)
    assert missing() == (200, set())
    health.broker(False)
    assert missing() == (503, {"broker"})
    health.broker(True)
    health.assigned(0)  # more workers than partitions: idle, and ready to take over
    assert missing() == (200, set())


def test_metrics_are_served_in_the_format_asked_for(server: HealthServer, metrics: Metrics) -> None:
    source = TopicPartition("cpu", 0)
    metrics.assigned(source)
    metrics.received(source, 3)
    status, body, kind = get(server, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    families = {family.name: family for family in text_string_to_metric_families(body)}
    assert families["streamgen_records"].samples[0].value == 3
    status, body, kind = get(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert "streamgen_records" in {family.name for family in parse_openmetrics(body)}  # type: ignore[no-untyped-call]


def test_other_paths_are_not_found(server: HealthServer) -> None:
    assert get(server, "/")[0] == 404
    assert get(server, "/metricsx")[0] == 404
    assert get(server, "/livez?verbose")[0] == 200


def test_a_taken_port_is_a_sentence(health: Health) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf":{port} \(Address already in use\); set metrics\."):
            HealthServer("127.0.0.1", port, CollectorRegistry(), health)


def test_an_address_of_another_machine_is_a_sentence(health: Health) -> None:
    with pytest.raises(ConfigError, match=r"metrics cannot be served at 192\.0\.2\.1:0 "):
        HealthServer("192.0.2.1", 0, CollectorRegistry(), health)


def test_closing_frees_the_port(health: Health) -> None:
    with HealthServer("127.0.0.1", 0, CollectorRegistry(), health) as first:
        port = first.port
    with HealthServer("127.0.0.1", port, CollectorRegistry(), health) as second:
        assert second.port == port
        assert get(second, "/livez")[0] == 200


def test_a_hanging_client_keeps_nobody_waiting(health: Health) -> None:
    with (
        HealthServer("127.0.0.1", 0, CollectorRegistry(), health) as server,
        socket.create_connection(("127.0.0.1", server.port)),
    ):
        assert get(server, "/livez")[0] == 200
