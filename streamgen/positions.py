"""Where a partition begins: start, first published record, committed offset.

`start` and `publish_from` may be said in times; they are resolved to offsets once, for all partitions of the
topic, and pinned, so that every later start and every other worker begins at the same records.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamgen.config import InputConfig
from streamgen.errors import ConfigError, LogGap
from streamgen.kafka.pins import Pins
from streamgen.kafka.transport import Committed, Offsets
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

    def __init__(self, offsets: Offsets, pins: Pins) -> None:
        self._offsets, self._pins = offsets, pins

    def of(self, source: TopicPartition, config: InputConfig) -> Begun:
        """A partition that was added later begins at its first record.

        Raises `RetryError` when its leader does not answer, and `LogGap` when it ends before what the group
        has committed of it.
        """
        topic_id = self._offsets.topic_id(source.topic)
        topic = pinned_name(source.topic, topic_id)
        start = self._pinned(topic, config, "start", config.start)
        publish_from = self._pinned(topic, config, "publish_from", config.publish_from)
        committed = self._offsets.committed([source])[source]
        remade = committed is not None and not is_of(committed, topic_id)
        retained, end = self._offsets.bounds([source])[source]
        if committed is not None and not remade and committed.offset > end:
            raise LogGap(cut(source, f"it ends at {end}, and offset {committed.offset} is committed"))
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
            resolved = resolve(self._offsets, config.topic, name, where, config.timestamp.timezone)
            known = self._pins.put_if_absent(topic, name, resolved)
        return known


def resolve(known: Offsets, topic: str, name: str, where: str, timezone: str) -> dict[str, int]:
    """The offset of each partition of a topic, by its number as text, that `name` (`start` or `publish_from`)
    means now when the configuration says `where`."""
    sources = known.partitions(topic)
    if where in ("earliest", "first"):
        offsets = {source: first for source, (first, _) in known.bounds(sources).items()}
    elif where in ("latest", "now"):
        offsets = {source: end for source, (_, end) in known.bounds(sources).items()}
    else:
        time = time_ms(where, timezone)
        if time is None:
            raise ConfigError(f"inputs: {topic}: {name} is {where!r}, which is no time.")
        offsets = known.offsets_at(sources, time)
    return {str(source.partition): offset for source, offset in offsets.items()}


def cut(source: TopicPartition, how_known: str) -> str:
    """What is said of a partition that lost records at its end, as when an unclean leader is elected."""
    return (
        f"The log of {source} was cut ({how_known}): what comes next has offsets that were scored already. "
        "Choose another application_id, or forget this one's state (streamgen state reset)."
    )


def pinned_name(topic: str, topic_id: str) -> str:
    """What the application's pins of a topic are under: which topic of that name it is belongs to it."""
    return f"{topic}#{topic_id}" if topic_id else topic  # no topic's name has a #


def is_of(committed: Committed, topic_id: str) -> bool:
    """Whether an offset was committed for that topic, and not for one of its name that is gone."""
    return topic_id == "" or committed.topic_id in ("", topic_id)
