"""Kafka in memory, for tests: a log, and a transport over it that fails on demand.

    log = MemoryLog()
    log.create_topic("orders", partitions=2)
    log.append("orders", b'{"x": 1}', key=b"a", timestamp_ms=0)
    transport = MemoryTransport(log, ["orders"], poll_sizes=[7])
    transport.inject(None, Fault.ABORT)  # the second publish from now on is aborted
    ...
    log.records("orders.scores")

Nothing here waits, and nothing depends on the clock: the same calls give the same results.
"""

from streamgen.testing.log import LogRecord, MemoryLog, MemoryPins
from streamgen.testing.store import Inline, MemoryStore
from streamgen.testing.tail import MemoryTail
from streamgen.testing.transport import Crash, Fault, MemoryTransport

__all__ = [
    "Crash", "Fault", "Inline", "LogRecord", "MemoryLog", "MemoryPins", "MemoryStore", "MemoryTail",
    "MemoryTransport",
]  # fmt: skip
