"""Further brokers for the cluster of a running embedded one, which stays its only controller."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path

from streamgen.kafka.broker import EmbeddedBroker


def another_broker(
    first: EmbeddedBroker, node: int, folder: Path, properties: Mapping[str, str] | None = None
) -> EmbeddedBroker:
    """A broker that is not started yet; `node` is its number, from 2 on."""
    settings = (first.data_dir / "server.properties").read_text()
    identity = (first.data_dir / "log" / "meta.properties").read_text()
    voters = re.search(r"^controller.quorum.voters=(.*)$", settings, re.MULTILINE)
    cluster = re.search(r"^cluster.id=.*$", identity, re.MULTILINE)
    assert voters
    assert cluster
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = folder / "log"
    log.mkdir(parents=True)
    (log / "meta.properties").write_text(f"version=1\nnode.id={node}\n{cluster[0]}\n")
    joined = {
        "process.roles": "broker",
        "node.id": str(node),
        "controller.quorum.voters": voters[1],
        "listeners": f"PLAINTEXT://127.0.0.1:{port}",
    }
    return EmbeddedBroker(port, folder, properties={**(properties or {}), **joined})
