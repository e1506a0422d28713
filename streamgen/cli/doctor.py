"""`streamgen doctor`: what is wrong between here and the broker, and what to do about each."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from streamgen.cli.options import Bootstrap, configuration

if TYPE_CHECKING:
    from streamgen.cli.sample import Sample, Usable
    from streamgen.config import Config, InputConfig

GOOD, BAD, NOTE = "✓", "✗", "!"
AHEAD_S = 5.0  # a newest record later than this machine's clock by more says that a clock is wrong


class Finding(NamedTuple):
    """One line: a mark, what was found, and what to do where it is not good."""

    mark: str
    found: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="Configuration file.", show_default=False)
    ] = None,
    topic: Annotated[
        list[str] | None, typer.Option("--input", metavar="TOPIC", help="Input topic; may be given again.")
    ] = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Say what is wrong between here and the broker, and what to do.

    Nothing is made or changed. The exit code is 1 when a check failed (✗); ! is worth knowing.
    """
    encoding = (sys.stdout.encoding or "ascii").lower()
    plain = {GOOD: "ok", BAD: "FAILED", NOTE: "note"} if not encoding.startswith("utf") else {}
    failed = False
    for mark, found in examine(config, bootstrap, tuple(topic or ())):
        print(f"{plain.get(mark, mark)} {found}", flush=True)
        failed = failed or mark == BAD
    if failed:
        raise typer.Exit(1)


def examine(file: Path | None, bootstrap: str | None, topics: tuple[str, ...]) -> Iterator[Finding]:
    """Every check in order; those that need what failed are left out."""
    from consumers.online import check
    from streamgen.errors import StreamgenError
    from streamgen.kafka.reach import reach
    from streamgen.models.device import use_device

    try:
        config = configuration(file, bootstrap, topics)
        check(config)
        yield Finding(GOOD, f"the configuration is sound ({len(config.inputs)} inputs)")
        yield Finding(GOOD, f"models compute on {use_device(config.device)}")
    except StreamgenError as error:
        yield Finding(BAD, str(error))
        return
    yield state_directory(config)
    try:
        protocol = config.kafka.security_protocol
        yield Finding(GOOD, f"Kafka answers at {reach(config.kafka)} and lets this user in ({protocol})")
        yield from broker(config)
    except StreamgenError as error:
        yield Finding(BAD, str(error))
        return
    for source in config.inputs:
        try:
            yield from input_topic(config, source)
        except StreamgenError as error:
            yield Finding(BAD, f"{source.topic}: {error}")


def state_directory(config: Config) -> Finding:
    """Whether workers can hold their names there; the directory itself is made by the first of them."""
    wanted = Path(config.state.directory).resolve()
    there = next(path for path in (wanted, *wanted.parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return Finding(GOOD, f"workers can hold their names under {wanted}")
    return Finding(
        BAD,
        f"workers cannot hold their names under {wanted}: give rights to {there} or set state.directory.",
    )


def broker(config: Config) -> Iterator[Finding]:
    """Whether this user has the rights of a worker."""
    from streamgen.kafka.rights import check_rights

    check_rights(config)
    yield Finding(
        GOOD,
        f"this user may read the inputs, write the outputs and the state, be in the group "
        f"{config.application_id}, and have transactions",
    )


def input_topic(config: Config, source: InputConfig) -> Iterator[Finding]:
    """The topic, its outputs, what is in it, and how far the group is."""
    from streamgen.cli.sample import take_sample
    from streamgen.kafka.topics import missing_topics

    missing = missing_topics(config.kafka, source)
    yield Finding(GOOD, f"{source.topic}: it exists and is not compacted; its output topics fit")
    if missing:
        yield Finding(NOTE, f"{source.topic}: {', '.join(missing)} will be made when a worker starts")
    sample = take_sample(config, source)
    yield Finding(
        GOOD,
        f"{source.topic}: {sample.partitions} partitions hold {sample.end} records, the group "
        f"{config.application_id} has {sample.behind} of them left to read",
    )
    if not sample.records:
        yield Finding(NOTE, f"{source.topic}: no record to look at; send some (streamgen replay or host)")
        return
    yield from contents(source, sample)
    yield clock(source, sample.newest_ms, time.time() * 1000)


def contents(source: InputConfig, sample: Sample) -> Iterator[Finding]:
    """What the newest records say."""
    looked = f"{source.topic}: of the newest {sample.records} records"
    features, columns, dead = sample.decoded(source)
    reasons = ", ".join(f"{count} {reason}" for reason, count in dead.most_common())
    if not columns.keys:
        yield Finding(
            BAD,
            f"{looked} none can be used ({reasons}): set the input's format, features and timestamp as its "
            "records are",
        )
        return
    if dead:
        yield Finding(NOTE, f"{looked} {dead.total()} would be dead-lettered ({reasons})")
    yield Finding(GOOD, f"{looked} {len(columns.keys)} can be used; features: {', '.join(features)}")
    yield from keys(source, columns)
    candidate = sample.time_field(source)
    if source.timestamp.field is None and candidate is not None:
        yield Finding(
            NOTE,
            f"{source.topic}: the event time is Kafka's own timestamp, and the records have a field "
            f"{candidate}: set timestamp.field if it holds the time",
        )


def keys(source: InputConfig, columns: Usable) -> Iterator[Finding]:
    """Whose learners there will be: one for each partition and key."""
    name, without = source.topic, columns.keys.count(None)
    known = len(set(columns.keys) - {None})
    if without:
        where = "the record's key" if source.key.field is None else f"the field {source.key.field}"
        yield Finding(
            NOTE,
            f"{name}: {without} of {len(columns.keys)} records have no key ({where} is empty): those "
            "share one learner per partition; name a key.field if a field tells them apart",
        )
    if known:
        yield Finding(GOOD, f"{name}: {known} keys among them, a learner for each partition and key")
    if source.key.field is not None and columns.keys != columns.partition_keys:
        yield Finding(
            NOTE,
            f"{name}: the field {source.key.field} is not the key by which records are partitioned: records "
            "of one key may lie in several partitions, and there is one learner for each partition and key; "
            "partition the topic by that field to have one for each key",
        )


def clock(source: InputConfig, newest_ms: int, now_ms: float) -> Finding:
    """The newest record's timestamp, which the producer or the broker gave, against this machine's clock."""
    ahead_s = (newest_ms - now_ms) / 1000
    if ahead_s > AHEAD_S:
        return Finding(
            NOTE,
            f"{source.topic}: the newest record is {ahead_s:.0f} s ahead of this machine's clock: one of the "
            "clocks is wrong (see NTP); scores do not depend on this one, lag and times in logs do",
        )
    return Finding(GOOD, f"{source.topic}: no record is ahead of this machine's clock")
