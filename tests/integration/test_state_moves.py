"""Moving and rebuilding state over a real broker, with real workers before and after."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import pytest

import streamgen.moving
from streamgen.config import Config
from streamgen.errors import StateError
from streamgen.generation import generate
from streamgen.kafka.client import client_settings
from streamgen.kafka.topics import NewTopic, create_topics, delete_topic, partition_count
from streamgen.state.checkpoint import Checkpoint
from streamgen.state.files import FileStore
from streamgen.state.places import put
from tests.integration.bench import PARTITIONS, Bench, checksums, end, offsets, process, wait_for


def test_imported_state_goes_on_at_its_offset_as_if_it_had_learned_here(bench: Bench) -> None:
    bench.fill(0, 150)
    one, other = bench.config(), bench.config()
    bench.work(one)
    code, exported, _ = bench.cli("export", bench.folder / "out", of=one)
    assert code == 0
    first = offsets(one)
    assert first == bench.ends()
    x_SLD, _ = generate(bench.folder / "out", 5, 2, 0, "key-0")  # what generates reads it
    assert x_SLD.shape == (2, 5, 2)
    bench.fill(150, 250)
    assert bench.cli("import", bench.folder / "out", of=other)[0] == 0
    assert bench.cli("verify", of=other)[0] == 0
    assert checksums(bench.cli("export", bench.folder / "again", of=other)[1]) == checksums(exported)
    bench.work(other)
    bench.work(one)
    assert set(bench.results(other)) == bench.places(first)
    whole = bench.results(one)
    assert set(whole) == bench.places()
    assert all(whole[place] == value for place, value in bench.results(other).items())
    assert offsets(one) == offsets(other) == bench.ends()
    assert checksums(bench.cli("export", bench.folder / "a", of=one)[1]) == checksums(
        bench.cli("export", bench.folder / "b", of=other)[1]
    )


def test_state_that_cannot_be_gone_on_from_is_refused(bench: Bench) -> None:
    bench.fill(0, 60)
    one = bench.config()
    bench.work(one)
    out = bench.folder / "out"
    assert bench.cli("export", out, of=one)[0] == 0

    def refused(config: Config, *options: str) -> str:
        stored = offsets(config) if partition_count(bench.kafka, f"{config.application_id}-state") else {}
        code, said, err = bench.cli("import", out, *options, of=config)
        assert (code, said, err.count("\n")) == (1, "", 1)
        now = offsets(config) if partition_count(bench.kafka, f"{config.application_id}-state") else {}
        assert now == stored
        return err

    assert "window.length (was 8, is 9)" in refused(bench.config(window={"length": 9}))
    assert "has a checkpoint of" in refused(one)
    code, said, _ = bench.cli("import", out, "--replace", of=one)
    assert (code, said.count("goes on at offset")) == (0, len(offsets(one)))
    elsewhere = bench.fresh("elsewhere")
    create_topics(bench.kafka, [NewTopic(elsewhere)])
    assert f"{bench.topic} is no input" in refused(bench.config(topic=elsewhere))
    assert "There is no state in" in bench.cli("import", bench.folder / "none", of=bench.config())[2]

    early = bench.config()
    bench.work(early)
    bench.fill(60, 90)
    bench.work(one)
    assert bench.cli("export", out, of=one)[0] == 0
    assert "the group has committed offset" in refused(early, "--replace")

    delete_topic(bench.kafka, bench.topic)
    create_topics(bench.kafka, [NewTopic(bench.topic, PARTITIONS, settings={"retention.ms": "-1"})])
    bench.fill(0, 200)
    assert f"another topic of the name {bench.topic}" in refused(bench.config())

    # What says nothing of its topic is taken: it was written where Kafka gives topics no ids.
    files, unknown = FileStore(out), FileStore(bench.folder / "unknown")
    for source in files.sources():
        checkpoint = files.peek(source)
        assert checkpoint is not None
        put(unknown, checkpoint, replace(checkpoint.manifest, topic_id="", made_with={"torch": "0.1"}))
    fresh = bench.config()
    assert bench.cli("import", bench.folder / "unknown", of=fresh)[0] == 0
    first = offsets(fresh)
    assert bench.cli("verify", of=fresh)[0] == 0
    assert "torch 0.1 (here " in bench.cli("list", of=fresh)[1]  # where it was learned, not where it is moved
    bench.work(fresh)
    assert set(bench.results(fresh)) == bench.places(first)


def test_an_interrupted_import_changes_nothing_and_is_made_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.fill(0, 100)
    one, other = bench.config(), bench.config()
    bench.work(one)
    first = offsets(one)
    assert len(first) == 2
    assert bench.cli("export", bench.folder / "out", of=one)[0] == 0
    bench.fill(100, 160)
    real, calls = put, []

    def dies(store: Any, checkpoint: Checkpoint, manifest: Any) -> Any:
        calls.append(manifest)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(store, checkpoint, manifest)

    with monkeypatch.context() as broken:
        broken.setattr(streamgen.moving, "put", dies)
        with pytest.raises(KeyboardInterrupt):
            streamgen.moving.start_from(other, bench.folder / "out")
    assert len(offsets(other)) == 1
    bench.work(other, bench.folder / "out")
    assert set(bench.results(other)) == bench.places(first)
    bench.work(one)
    whole = bench.results(one)
    assert all(whole[place] == value for place, value in bench.results(other).items())


def test_run_from_state_begins_with_it_once(bench: Bench) -> None:
    bench.fill(0, 100)
    one, other = bench.config(), bench.config()
    bench.work(one)
    first = offsets(one)
    out = bench.folder / "out"
    assert bench.cli("export", out, of=one)[0] == 0
    bench.fill(100, 150)
    for last in (150, 200):
        bench.fill(150, last)
        with process(bench, other, "--from-state", out) as running:
            wait_for(lambda: set(bench.results(other)) == bench.places(first), "not all was scored")
            end(running)
        if last == 150:
            (out / "away").mkdir()
            os.rename(out, bench.folder / "gone")  # a pod's first folder need not outlive it
    bench.work(one)
    whole = bench.results(one)
    assert all(whole[place] == value for place, value in bench.results(other).items())

    with process(bench, one, "--from-state", bench.folder / "gone") as running:
        assert running.wait(timeout=60) == 1
    said = (bench.folder / f"{one.application_id}.log").read_text()
    assert f"The application {one.application_id} has state of its own for {bench.topic}" in said


@pytest.mark.parametrize("files", [False, True])
def test_a_rebuild_is_as_if_the_new_model_had_been_there_from_the_start(bench: Bench, files: bool) -> None:
    bench.fill(0, 150)
    store = {"store": str(bench.folder / "store")} if files else {}
    old = bench.config(**store)
    bench.work(old)
    before, switch = bench.results(old), bench.ends()
    one = old.inputs[0].model_copy(update={"model": {"name": "stream_ae", "hidden": 12}})
    new = old.model_copy(update={"inputs": [one]})
    bench.fill(150, 160)
    with pytest.raises(StateError, match=r"model\.hidden .*streamgen state rebuild.*streamgen state reset"):
        bench.work(new)
    code, out, _ = bench.cli("verify", of=new)
    assert (code, "model.hidden (was" in out) == (1, True)
    code, out, err = bench.cli("rebuild", of=new)
    assert (code, err) == (0, "")
    assert "the next run learns 150 records again" in out
    assert offsets(new) == {}
    bench.fill(160, 250)
    bench.work(new)
    after = bench.results(new)
    assert set(after) == bench.places()
    assert {place: after[place] for place in before} == before
    fresh = bench.config(model={"name": "stream_ae", "hidden": 12})
    bench.work(fresh)
    whole = bench.results(fresh)
    beyond = bench.places(switch)
    assert len(beyond) == 100
    assert {place: after[place] for place in beyond} == {place: whole[place] for place in beyond}
    assert any(before[place] != whole[place] for place in before)
    assert bench.cli("verify", of=new)[0] == 0
    # The learners that the rebuild left behind are gone: the state is that of the fresh application.
    of_new = bench.cli("export", bench.folder / "new", of=new)[1]
    of_fresh = bench.cli("export", bench.folder / "fresh", of=fresh)[1]
    assert checksums(of_new) == checksums(of_fresh)


def test_a_rebuild_begins_with_what_the_log_still_has(bench: Bench) -> None:
    from kafka import KafkaAdminClient
    from kafka import TopicPartition as ClientPartition

    bench.fill(0, 150)
    config = bench.config()
    assert bench.cli("rebuild", of=config)[0] == 0  # nothing was learned yet
    bench.work(config)
    cut = {source: end // 2 for source, end in bench.ends().items()}
    admin = KafkaAdminClient(**client_settings(bench.kafka))
    admin.delete_records({ClientPartition(*source): offset for source, offset in cut.items()})
    admin.close()
    code, out, _ = bench.cli("rebuild", of=config)
    assert code == 0
    for source, offset in cut.items():
        left = bench.ends()[source] - offset
        assert f"{source}: {left} records from offset {offset} on; {offset} before them" in out
    bench.fill(150, 180)
    bench.work(config)  # with on_log_gap: fail
    assert len(bench.results(config)) == 180
    begun = bench.config()
    bench.work(begun)
    values = bench.results(config)
    late = {place: value for place, value in bench.results(begun).items() if values[place] == value}
    assert len(late) >= 30, "what came after is scored as one that began with what is left would"
