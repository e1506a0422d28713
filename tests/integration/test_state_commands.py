"""`streamgen state` and `run --from-state` over a real broker, with real workers before and after."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import streamgen.moving
from consumers.online import run_worker
from producers.sending import Record, open_sender
from streamgen.cli import main
from streamgen.config import Config, KafkaConfig
from streamgen.configfile import load_config, print_config
from streamgen.errors import StateError, StreamgenError
from streamgen.generation import generate
from streamgen.kafka.client import client_settings
from streamgen.kafka.groups import COORDINATOR_S, committed_offsets, live_members
from streamgen.kafka.pins import KafkaPins
from streamgen.kafka.topics import NewTopic, create_topics, delete_topic, partition_count
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import Checkpoint
from streamgen.state.files import FileStore
from streamgen.state.places import open_store, put

Said = tuple[int, str, str]
Place = tuple[int, int]
PARTITIONS = 2


@dataclass(frozen=True)
class Bench:
    """An input topic, and applications that learn it, each with outputs of its own."""

    kafka: KafkaConfig
    topic: str
    folder: Path
    fresh: Callable[[str], str]
    read: Callable[[str], list[Any]]
    run: Callable[..., Said]

    def config(self, **changes: Any) -> Config:
        """An application of its own; `changes` are of its input, `store` is where its state is."""
        name = self.fresh("app")
        create_topics(self.kafka, [NewTopic(f"{name}.s", PARTITIONS, settings={"retention.ms": "-1"})])
        state = {"directory": str(self.folder / name), "every_records": 40}
        if "store" in changes:
            state["store"] = changes.pop("store")
        one = {"topic": self.topic, "features": ["a", "b"], "window": {"length": 8}, "min_records": 2}
        one |= {"outputs": {"scores": f"{name}.s", "anomalies": f"{name}.a", "dlq": f"{name}.d"}} | changes
        return Config.model_validate(
            {"application_id": name, "kafka": self.kafka, "inputs": [one], "device": "cpu", "state": state,
             "metrics": {"port": None}, "commit_interval_ms": 20}
        )  # fmt: skip

    def cli(self, *arguments: object, of: Config, **more: Any) -> Said:
        """`streamgen state …` with the configuration as a file at the end."""
        return self.run("state", *arguments, self.file(of), **more)

    def file(self, config: Config) -> Path:
        path = self.folder / f"{config.application_id}.yaml"
        path.write_text(print_config(config))
        return path

    def fill(self, first: int, last: int) -> None:
        """Records of three keys."""
        with open_sender(self.kafka, self.topic) as sender:
            for n in range(first, last):
                value = json.dumps({"a": n % 7, "b": n * n % 5}).encode()
                sender.send(Record(1_700_000_000_000 + 1000 * n, b"key-%d" % (n % 3), value))

    def ends(self) -> dict[TopicPartition, int]:
        ends = {TopicPartition(self.topic, n): 0 for n in range(PARTITIONS)}
        for record in self.read(self.topic):
            ends[TopicPartition(self.topic, record.partition)] = record.offset + 1
        return ends

    def work(self, config: Config, from_state: Path | None = None) -> None:
        """A worker until all that is there is committed, and its last checkpoint stored."""
        ends, began, looked = self.ends(), time.monotonic(), 0.0

        def stopping() -> bool:
            nonlocal looked
            if time.monotonic() - looked < 0.3:
                return False
            looked = time.monotonic()
            assert looked - began < 60, "not all was committed"
            return committed_offsets(self.kafka, config.application_id) == ends

        run_worker(config, "w0", stopping, from_state)

    def results(self, config: Config) -> dict[Place, bytes]:
        """The one score of each record, as published."""
        found: dict[Place, bytes] = {}
        for record in self.read(f"{config.application_id}.s"):
            source = json.loads(record.value)["source"]
            place = source["partition"], source["offset"]
            assert place not in found, f"two results of {place}"
            found[place] = record.value
        return found

    def places(self, first: dict[TopicPartition, int] | None = None) -> set[Place]:
        """Where records lie, from `first` on."""
        begin = first or {}
        return {
            (record.partition, record.offset)
            for record in self.read(self.topic)
            if record.offset >= begin.get(TopicPartition(self.topic, record.partition), 0)
        }


@pytest.fixture
def bench(
    kafka: KafkaConfig, fresh: Callable[[str], str], read_committed: Callable[[str], list[Any]],
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> Bench:  # fmt: skip
    def run(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["streamgen", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    topic = fresh("learned")
    create_topics(kafka, [NewTopic(topic, PARTITIONS, settings={"retention.ms": "-1"})])
    return Bench(kafka, topic, tmp_path, fresh, read_committed, run)


@contextmanager
def process(bench: Bench, config: Config, *options: object) -> Iterator[subprocess.Popen[bytes]]:
    """`streamgen run` as a user starts it; its log is `<application>.log`."""
    command = [sys.executable, "-m", "streamgen", "run", str(bench.file(config)), *map(str, options)]
    with (bench.folder / f"{config.application_id}.log").open("ab") as log:  # noqa: SIM117
        with subprocess.Popen(command, stderr=log) as running:
            try:
                yield running
            finally:
                running.kill()


def end(running: subprocess.Popen[bytes]) -> None:
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=30) == 0


def wait_for(look: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
    return found


def offsets(config: Config) -> dict[TopicPartition, int]:
    """Of the application's checkpoints."""
    store = open_store(config)
    found = {source: store.peek(source) for source in store.sources()}
    return {source: one.manifest.offset for source, one in found.items() if one is not None}


def checksums(said: str) -> set[str]:
    """Of what `export` printed."""
    return {line.split()[-1] for line in said.splitlines()}


def test_what_only_reads_leaves_a_running_worker_alone(bench: Bench) -> None:
    bench.fill(0, 200)
    config = bench.config()
    assert bench.cli("list", of=config)[0] == 1  # no state topic yet
    with process(bench, config) as running:
        wait_for(lambda: len(bench.results(config)) == 200, "not all was scored")
        wait_for(lambda: "learned-" in bench.cli("list", of=config)[1], "no checkpoint")
        seen = offsets(config)
        code, listed, _ = bench.cli("list", of=config)
        assert (code, len(listed.splitlines())) == (0, 1 + len(seen))
        assert listed.split()[:4] == ["topic", "partition", "offset", "learners"]
        assert bench.cli("verify", of=config)[0] == 0
        assert bench.cli("export", bench.folder / "out", of=config)[0] == 0
        code, shown, _ = bench.cli("show", bench.topic, min(seen).partition, of=config)
        assert (code, f"offset: {seen[min(seen)]}\n" in shown) == (0, True)
        for refused in (("import", bench.folder / "out"), ("rebuild",), ("reset", "--yes")):
            code, out, err = bench.cli(*refused, of=config)
            assert (code, "deleted;" in out) == (1, False), refused
            assert f"The application {config.application_id} has live workers (" in err
        bench.fill(200, 300)
        wait_for(lambda: len(bench.results(config)) == 300, "the worker was disturbed")
        end(running)
    log = (bench.folder / f"{config.application_id}.log").read_text()
    assert log.count('"task opened"') == PARTITIONS
    for trouble in ("opened again", "not stored", "rejoining"):
        assert trouble not in log


def test_a_key_of_a_task_is_shown(bench: Bench) -> None:
    bench.fill(0, 60)
    config = bench.config()
    bench.work(config)
    store = open_store(config)
    source = store.sources()[0]
    checkpoint = store.peek(source)
    assert checkpoint is not None
    key = next(iter(checkpoint.learners))
    code, out, _ = bench.cli("show", bench.topic, source.partition, of=config)
    assert code == 0
    assert f"checksum: {checkpoint.manifest.checksum}" in out
    code, out, _ = bench.cli("show", bench.topic, source.partition, "--key", key, of=config)
    assert code == 0
    shown = {line.split()[0]: line for line in out.partition("\n\n")[2].splitlines()}
    assert set(shown) == set(checkpoint.learners[key])
    assert all(str(array.dtype) in shown[name] for name, array in checkpoint.learners[key].items())
    code, _, err = bench.cli("show", bench.topic, source.partition, "--key", f"{key}x", of=config)
    assert (code, f"did you mean '{key}'" in err) == (1, True)
    code, _, err = bench.cli("show", bench.topic, 77, of=config)
    assert (code, f"There is no checkpoint of {bench.topic}-77" in err) == (1, True)


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


def test_a_reset_says_what_it_deletes_and_does_it_when_told(bench: Bench) -> None:
    bench.fill(0, 60)
    config = bench.config()
    state, group = f"{config.application_id}-state", config.application_id
    assert bench.cli("reset", of=config)[:2] == (0, "there is nothing to forget\n")
    bench.work(config)
    code, out, _ = bench.cli("reset", of=config)
    assert code == 1
    assert f"the topic {state}: " in out
    for source, offset in bench.ends().items():
        assert f"the committed offset of {source}, which is {offset}\n" in out
    assert offsets(config) == committed_offsets(bench.kafka, group) == bench.ends()
    code, out, err = bench.cli("reset", "--yes", of=config)
    assert (code, err) == (0, "")
    assert partition_count(bench.kafka, state) is None
    assert committed_offsets(bench.kafka, group) == {}
    delete_topic(bench.kafka, f"{group}.s")
    bench.work(config)
    assert set(bench.results(config)) == bench.places()


def test_a_store_on_files_is_verified_and_reset(bench: Bench) -> None:
    bench.fill(0, 60)
    config = bench.config(store=str(bench.folder / "store"))
    bench.work(config)
    assert bench.cli("export", bench.folder / "store", of=config)[0] == 1, "into itself"
    assert bench.cli("export", bench.folder / "out", of=config)[0] == 0
    other = bench.fresh("other")
    create_topics(bench.kafka, [NewTopic(other)])
    source = FileStore(bench.folder / "out").sources()[0]
    os.rename(bench.folder / "out" / str(source), bench.folder / "out" / f"{other}-0")
    assert "holds state of" in bench.cli("export", bench.folder / "out", of=config)[2]
    assert bench.cli("verify", of=config)[0] == 0
    file = next((bench.folder / "store" / str(source)).glob("*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    code, out, _ = bench.cli("verify", of=config)
    assert (code, out.count("FAILED")) == (1, 1)
    assert re.search(rf"^FAILED The checkpoint .*in {file} is damaged", out, re.MULTILINE)
    code, out, _ = bench.cli("reset", of=config)
    assert (code, f"the checkpoints of {source} in {bench.folder / 'store'}\n" in out) == (1, True)
    assert bench.cli("reset", "--yes", of=config)[0] == 0
    assert list((bench.folder / "store").glob("*/*")) == []


def test_a_group_that_never_was_has_no_members(bench: Bench) -> None:
    began = time.monotonic()
    assert live_members(bench.kafka, bench.fresh("nobody")) == []
    assert time.monotonic() - began < COORDINATOR_S


def test_a_pin_is_replaced_only_when_that_is_asked(bench: Bench) -> None:
    app = bench.fresh("app")
    pins = KafkaPins(bench.kafka, app)
    assert pins.put_if_absent("orders", "start", {"0": 1}) == {"0": 1}
    pins.put("orders", "start", {"0": 2})
    assert pins.get("orders", "start") == {"0": 2}
    assert KafkaPins(bench.kafka, app).put_if_absent("orders", "start", {"0": 3}) == {"0": 2}


def test_errors_of_the_command_line_are_sentences(bench: Bench) -> None:
    config = bench.config()
    code, _, err = bench.run("state", "verify", bench.file(config), "--input", "x")
    assert (code, err.startswith("streamgen: The inputs come from a file or from --input")) == (1, True)
    assert load_config(bench.file(config), {}) == config
    assert issubclass(StateError, StreamgenError)
