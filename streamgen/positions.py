"""Where a partition begins: start, first published record, committed offset.

`start` and `publish_from` may be said in times; they are resolved to offsets once, for all partitions of the
topic, and pinned, so that every later start and every other worker begins at the same records.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamgen.config import InputConfig
from streamgen.errors import ConfigError
from streamgen.kafka.pins import Pins
from streamgen.kafka.transport import Transport
from streamgen.records import TopicPartition
from streamgen.times import time_ms


@dataclass(frozen=True, slots=True)
class Begun:
    """`start`: first record of the learners' history. `retained`: first one that the log still has.

    `topic` names the topic and which one of that name it is: the application's pins are of it. `remade`: the
    offset that was committed, `lost_at`, is of another topic of that name, which is gone.
    """

    topic: str
    topic_id: str
    start: int
    publish_from: int
    committed: int
    retained: int
    remade: bool
    lost_at: int


class Positions:
    """Resolves and pins where topics begin."""

    def __init__(self, transport: Transport, pins: Pins) -> None:
        self._transport, self._pins = transport, pins

    def of(self, source: TopicPartition, config: InputConfig) -> Begun:
        """A partition that was added later begins at its first record."""
        topic_id = self._transport.topic_id(source.topic)
        topic = f"{source.topic}#{topic_id}" if topic_id else source.topic  # no topic's name has a #
        start = self._pinned(topic, config, "start", config.start)
        publish_from = self._pinned(topic, config, "publish_from", config.publish_from)
        committed = self._transport.committed([source])[source]
        remade = committed is not None and topic_id != "" and committed.topic_id not in ("", topic_id)
        retained, _ = self._transport.bounds([source])[source]
        begin = start.get(str(source.partition), 0)
        return Begun(
            topic,
            topic_id,
            begin,
            publish_from.get(str(source.partition), 0),
            max(begin, 0 if committed is None or remade else committed.offset),
            retained,
            remade,
            0 if committed is None else committed.offset,
        )

    def _pinned(self, topic: str, config: InputConfig, name: str, where: str) -> dict[str, int]:
        known: dict[str, int] | None = self._pins.get(topic, name)
        if known is None:
            resolved = self._resolve(config.topic, name, where, config.timestamp.timezone)
            known = self._pins.put_if_absent(topic, name, resolved)
        return known

    def _resolve(self, topic: str, name: str, where: str, timezone: str) -> dict[str, int]:
        sources = self._transport.partitions(topic)
        if where in ("earliest", "first"):
            offsets = {source: first for source, (first, _) in self._transport.bounds(sources).items()}
        elif where in ("latest", "now"):
            offsets = {source: end for source, (_, end) in self._transport.bounds(sources).items()}
        else:
            time = time_ms(where, timezone)
            if time is None:
                raise ConfigError(f"inputs: {topic}: {name} is {where!r}, which is no time.")
            offsets = self._transport.offsets_at(sources, time)
        return {str(source.partition): offset for source, offset in offsets.items()}
