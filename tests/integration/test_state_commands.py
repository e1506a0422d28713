"""`streamgen state` over a real broker: what looks, and what forgets, beside real workers."""

from __future__ import annotations

import os
import re
import time

from streamgen.configfile import load_config
from streamgen.kafka.groups import COORDINATOR_S, committed_offsets, live_members
from streamgen.kafka.pins import KafkaPins
from streamgen.kafka.topics import NewTopic, create_topics, delete_topic, partition_count
from streamgen.state.files import FileStore
from streamgen.state.places import open_store
from tests.integration.bench import PARTITIONS, Bench, end, offsets, process, wait_for


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
