"""The records of a topic between fixed offsets: the same ones, in the same order, whenever they are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from streamgen.config import Config, InputConfig
from streamgen.errors import ConfigError, InputError, LogGap
from streamgen.kafka.tail import Tail
from streamgen.records import RawBatch, TopicPartition, rows

Bounds = Mapping[int, tuple[int, int]]  # first offset and end, by partition
_OFFSETS = re.compile(r"\d+:\d+(,\d+:\d+)*")


def bounds(config: Config, source: InputConfig, first: str, end: str) -> dict[int, tuple[int, int]]:
    """What `first` and `end` mean now, as committed offsets: each a word of the configuration, a time, or
    `PARTITION:OFFSET,…`, where a partition that is not named is read from its beginning, or to its end.

    Raises `TopicError`, `PermissionDenied`, `BrokerUnavailable`, and `ConfigError` for what is neither, for
    a partition that is not there, and for an end beyond what is committed.
    """
    from streamgen.kafka.groups import offsets_of
    from streamgen.positions import resolve

    with offsets_of(config) as known:

        def offsets(name: str, where: str, otherwise: str) -> dict[int, int]:
            said = dict(_pairs(where)) if _OFFSETS.fullmatch(where) else {}
            word = otherwise if said else where
            meant = resolve(known, source.topic, name, word, source.timestamp.timezone)
            if absent := said.keys() - {int(number) for number in meant}:
                raise ConfigError(f"{name}: {source.topic} has no partition {min(absent)}.")
            return {int(number): said.get(int(number), offset) for number, offset in meant.items()}

        begins, ends = offsets("--from", first, "earliest"), offsets("--to", end, "latest")
        last = offsets("--to", "latest", "latest")
    for number, stop in ends.items():
        if stop > last[number]:
            raise ConfigError(
                f"--to: {source.topic}-{number} has no offset {stop} yet: {last[number]} is the end of what "
                "is committed now."
            )
    return {number: (begin, max(begin, ends[number])) for number, begin in begins.items()}


def _pairs(text: str) -> Iterator[tuple[int, int]]:
    for pair in text.split(","):
        number, offset = pair.split(":")
        yield int(number), int(offset)


def read_between(tail: Tail, topic: str, between: Bounds) -> Iterator[RawBatch]:
    """The records, partition after partition.

    Raises `LogGap` where retention has removed, or removes meanwhile, what is not read yet, and `InputError`
    where a partition ends before the end that is asked for.
    """
    for number, (first, end) in sorted(between.items()):
        if first == end:
            continue
        source = TopicPartition(topic, number)
        _check_end(tail, source, end)
        tail.begin(source, first)
        try:
            if (begun := tail.position(source)) > first:
                raise _gone(source, first, begun)
            while (position := tail.position(source)) < end:
                grown = tail.poll(0.2)
                if source in grown.gaps:
                    raise _gone(source, position, grown.gaps[source])
                if not grown.batches:
                    _check_end(tail, source, end)
                for raw in grown.batches:
                    kept = int(np.searchsorted(raw.offset_N, end))
                    if kept:
                        yield rows(raw, 0, kept)
        finally:  # or the next poll would give what nobody asks for any more
            tail.stop(source)


def _check_end(tail: Tail, source: TopicPartition, end: int) -> None:
    now = tail.end(source)
    if now < end:
        raise InputError(
            f"{source} ends at offset {now}, and its records up to {end} are needed: the topic was made "
            "anew, or has lost them."
        )


def _gone(source: TopicPartition, needed: int, first: int) -> LogGap:
    """`first`: from where on there are records now; below `needed`, they are others."""
    what = f"has no records before offset {first} any more" if first > needed else "was cut, or made anew"
    return LogGap(
        f"{source} {what}, and those from {needed} on are needed: begin anew with what there is, in another "
        "folder."
    )
