"""A topic is learned batch after batch over a Kafka in memory: what is kept, committed and refused."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from banded import png
from memory_rig import Ticking
from torch import Tensor

from streamgen.config import Config
from streamgen.errors import ConfigError, InputError, LogGap, StateError
from streamgen.health import Health
from streamgen.images import collecting, judging, rounds
from streamgen.images.checkpoint import Manifest, existing, newest
from streamgen.images.rounds import Rounds
from streamgen.images.source import Look
from streamgen.images.topic import Decoded
from streamgen.images.training import Outcome, Training
from streamgen.images.watch import Watch
from streamgen.metrics import ImageMetrics
from streamgen.records import OutputBatch, TopicPartition
from streamgen.state.folder import open_folder
from streamgen.testing import Crash, Fault, MemoryLog, MemoryTail, MemoryTransport

MODEL = {"name": "vae", "width": 4, "latent": 2, "batch": 8, "steps": 4}
BATCH = 100
GROUP = "streamgen-images-run"
FIRST = TopicPartition("in", 0)


class Rig:
    """A topic with two partitions, of which the second gets every third image."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.clock, self.metrics = folder, MemoryLog(), Ticking(), ImageMetrics()
        for topic in ("in", "in.dlq"):
            self.log.create_topic(topic, 2)
        self.sent = 0

    def send(self, count: int, **form: Any) -> None:
        for n in range(self.sent, self.sent + count):
            self.log.append("in", png(n, **form), None, n, int(n % 3 == 2))
        self.sent += count

    def transport(self, *faults: Fault | None) -> MemoryTransport:
        made = MemoryTransport(self.log, ["in"], group=GROUP)
        made.inject(*faults)
        return made

    def learner(self, transport: MemoryTransport | None = None, **images: Any) -> Rounds:
        settings = {"topic": "in", "model": MODEL, "batch": BATCH, "checkpoint_steps": 2, **images}
        inputs = [] if settings["topic"] else [{"topic": "other"}]
        return Rounds(
            Config.model_validate({"images": settings, "inputs": inputs}),
            transport or self.transport(),
            MemoryTail(self.log, 30),
            open_folder(self.folder),
            self.metrics,
            Health(),
            clock=self.clock,
            sleep=self.clock.sleep,
        )

    def model(self) -> tuple[Manifest, dict[str, Tensor]]:
        return existing(open_folder(self.folder))

    def committed(self) -> dict[int, int]:
        return {one.partition: offset for one, offset in self.log.committed.get(GROUP, {}).items()}


def turn(learner: Rounds, times: int = 5) -> Rounds:
    for _ in range(times):
        learner.turn()
    return learner


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "ITERATIONS", 5)
    monkeypatch.setattr(judging, "DRAWN", 64)
    monkeypatch.setattr(rounds, "BEAT_S", 0.05)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path / "model")


def test_a_batch_is_learned_when_it_is_there(rig: Rig) -> None:
    rig.send(BATCH - 1)
    learner = turn(rig.learner())
    assert newest(open_folder(rig.folder)) is None
    assert rig.committed() == {}
    rig.send(1)
    turn(learner)
    manifest, _ = rig.model()
    assert manifest.round is not None
    assert (manifest.round.number, manifest.round.taken, manifest.images, manifest.step) == (1, True, 90, 4)
    assert manifest.cut is not None
    assert manifest.cut.between == {0: (0, 67), 1: (0, 33)}
    assert rig.committed() == {0: 67, 1: 33}
    assert (rig.folder / "samples.png").read_bytes().startswith(b"\x89PNG")
    rig.send(2 * BATCH)
    turn(learner, 8)
    manifest, _ = rig.model()
    assert manifest.round is not None
    assert manifest.round.number >= 2
    assert rig.metrics.registry.get_sample_value(
        "streamgen_images_rounds_total", {"topic": "in", "outcome": "taken"}
    )


def test_what_is_no_image_is_dead_lettered_once_with_the_offsets(rig: Rig) -> None:
    for value in (b"", b"no image", png(1, (20, 30))):
        rig.send(30)
        rig.log.append("in", value, b"key", 7, 1)
    rig.send(BATCH)
    turn(rig.learner())
    letters = rig.log.records("in.dlq", 1)
    why = [dict(letter.headers) for letter in letters]
    assert [one["__streams.errors.exception"] for one in why] == [b"empty", b"malformed", b"malformed"]
    assert (
        why[2]["__streams.errors.message"]
        == b"30 \xc3\x97 20 pixels, and the images before have 16 \xc3\x97 16"
    )
    assert (letters[1].value, letters[1].key, letters[1].timestamp) == (b"no image", b"key", 7)
    assert why[1]["__streams.errors.offset"] == b"21"
    turn(rig.learner())
    assert len(rig.log.records("in.dlq", 1)) == 3


@pytest.mark.parametrize("fault", [None, Fault.ABORT, Fault.UNKNOWN_COMMITTED, Fault.UNKNOWN_LOST])
def test_many_dead_letters_go_out_in_pieces(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, fault: Fault | None
) -> None:
    monkeypatch.setattr(collecting, "PIECE", 100)
    for n in range(60):
        rig.log.append("in", b"%03d" % n + 17 * b"x", None, 0, n % 2)
    rig.send(BATCH)
    transport = rig.transport(None, fault)
    sizes, publish = [], transport.publish

    def noted(outputs: Sequence[OutputBatch], *given: Any) -> None:
        sizes.append(sum(map(len, outputs)))
        publish(outputs, *given)

    monkeypatch.setattr(transport, "publish", noted)
    turn(rig.learner(transport), 10)
    assert max(sizes) == 5
    for number in (0, 1):
        letters = rig.log.records("in.dlq", number)
        assert [letter.value[:3] for letter in letters if letter.value] == [
            b"%03d" % n for n in range(number, 60, 2)
        ]
    assert rig.committed() == {0: 97, 1: 63}


def test_a_topic_of_something_else_is_named(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collecting, "MOST_SKIPPED", 2)
    for n in range(3 * BATCH):
        rig.log.append("in", b"{}", None, 0, n % 2)
    with pytest.raises(InputError, match="300 of 300 records of in cannot be learned, the first of them"):
        turn(rig.learner(), 10)


def test_a_gan_learns_on_too(rig: Rig) -> None:
    gan = {"name": "gan", "width": 4, "latent": 2, "batch": 8, "steps": 4}
    rig.send(BATCH)
    learner = turn(rig.learner(model=gan))
    rig.send(BATCH)
    turn(learner)
    manifest, _ = rig.model()
    assert manifest.round is not None
    assert (manifest.round.number, manifest.model["name"]) == (2, "gan")


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER])
def test_a_crash_at_the_commit_doubles_and_loses_nothing(rig: Rig, fault: Fault) -> None:
    rig.send(BATCH - 40)
    rig.log.append("in", b"x", None, 0, 0)
    rig.send(40)
    with pytest.raises(Crash):
        turn(rig.learner(rig.transport(fault)))
    first, state = rig.model()
    assert len(rig.log.records("in.dlq", 0)) == (fault is Fault.CRASH_AFTER)
    turn(rig.learner())
    again, same = rig.model()
    assert len(rig.log.records("in.dlq", 0)) == 1
    assert again == first
    assert all((state[name] == same[name]).all() for name in state)
    assert rig.committed() == {0: 68, 1: 33}


@pytest.mark.parametrize("fault", [Fault.ABORT, Fault.UNKNOWN_COMMITTED, Fault.UNKNOWN_LOST, Fault.FENCED])
def test_a_commit_that_fails_is_made_again(rig: Rig, fault: Fault) -> None:
    rig.send(BATCH)
    rig.log.append("in", b"x", None, 0, 0)
    turn(rig.learner(rig.transport(fault)), 8)
    manifest, _ = rig.model()
    assert manifest.round is not None
    # The round is not made again on top of itself.
    assert (manifest.round.number, manifest.step, manifest.round.distance_before) == (1, 4, None)
    taken = {"topic": "in", "outcome": "taken"}
    assert rig.metrics.registry.get_sample_value("streamgen_images_rounds_total", taken) == 1
    assert rig.committed() == {0: 68, 1: 33}
    assert len(rig.log.records("in.dlq", 0)) == 1


class Killed(Exception):
    pass


def test_a_round_that_is_broken_off_has_the_same_images_and_bits(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came meanwhile belongs to the next one."""
    rig.send(BATCH)
    whole = Rig(tmp_path / "whole")
    whole.send(BATCH)
    turn(whole.learner())
    made = Training._store

    def killed(self: Training) -> None:
        made(self)
        if self.step == 2:
            raise Killed

    monkeypatch.setattr(Training, "_store", killed)
    with pytest.raises(Killed):
        turn(rig.learner())
    monkeypatch.undo()
    rig.send(50)
    monkeypatch.setattr(judging, "ITERATIONS", 5)
    monkeypatch.setattr(judging, "DRAWN", 64)
    turn(rig.learner(), 2)
    (one, state), (other, same) = rig.model(), whole.model()
    assert (one.round, one.cut, one.checksum) == (other.round, other.cut, other.checksum)
    assert all((state[name] == same[name]).all() for name in state)


def test_reading_a_batch_again_keeps_the_group(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large images take minutes to decode: who does not poll for as long is put out of the group."""
    rig.send(BATCH)
    monkeypatch.setattr(Training, "run", lambda *given: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        turn(rig.learner())
    monkeypatch.undo()
    monkeypatch.setattr(rounds, "BEAT_S", 0.01)
    learner, beats, polled = rig.learner(), list[int](), list[int]()
    read, beat = rounds.read_cut, learner._beat

    def slowly(*given: Any) -> Decoded:
        deadline = time.monotonic() + 10
        while len(beats) < 3 and time.monotonic() < deadline:
            time.sleep(0.001)
        polled.append(len(beats))
        return read(*given)

    monkeypatch.setattr(rounds, "read_cut", slowly)
    monkeypatch.setattr(learner, "_beat", lambda: (beats.append(1), beat()))
    monkeypatch.setattr(judging, "ITERATIONS", 5)
    turn(learner, 2)
    assert polled
    assert polled[0] >= 3
    assert rig.model()[0].round is not None


def test_a_batch_whose_partition_is_lost_while_it_is_read_is_left(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.send(BATCH)
    transport = rig.transport()
    learner = turn(rig.learner(transport), 1)
    assert learner._collecting is not None

    def slowly() -> bool:
        transport.lose(FIRST)
        assert learner._halt.wait(10)
        return True

    monkeypatch.setattr(learner._collecting, "look_on", slowly)
    turn(learner)
    assert newest(open_folder(rig.folder)) is None


def test_a_model_that_is_worse_is_not_taken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    rig.send(BATCH)
    learner = turn(rig.learner())
    _, before = rig.model()
    monkeypatch.setattr(rounds, "distances", lambda *given: (2.0, 1.0))
    rig.send(BATCH)
    turn(learner)
    manifest, after = rig.model()
    assert manifest.round is not None
    assert (manifest.round.number, manifest.round.taken) == (2, False)
    assert (manifest.step, manifest.cut and manifest.cut.between) == (4, {0: (67, 134), 1: (33, 66)})
    assert all((before[name] == after[name]).all() for name in before)
    assert rig.committed() == {0: 134, 1: 66}
    # The next one learns on from the model that was kept.
    monkeypatch.setattr(rounds, "distances", lambda *given: (1.0, 1.0))
    rig.send(BATCH)
    turn(learner)
    manifest, _ = rig.model()
    assert manifest.round is not None
    assert (manifest.round.number, manifest.round.taken, manifest.step) == (3, True, 8)


def test_another_batch_is_learned_on_from_the_model_before(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights, their averages and the optimiser's moments are where they were."""
    rig.send(BATCH)
    learner = turn(rig.learner())
    _, before = rig.model()
    begun: list[Any] = []
    made = Training.__init__

    def noted(self: Training, *given: Any, **named: Any) -> None:
        made(self, *given, **named)
        begun.append({name: tensor.clone() for name, tensor in self.model.state().items()})

    monkeypatch.setattr(Training, "__init__", noted)
    rig.send(BATCH)
    turn(learner)
    assert begun[0].keys() == before.keys()
    assert all((begun[0][name] == before[name]).all() for name in before)


def test_only_who_has_partition_0_works(rig: Rig) -> None:
    rig.send(BATCH)
    transport = rig.transport()
    learner = rig.learner(transport)
    transport.lose(FIRST)
    learner.turn()
    transport.lose(FIRST)
    turn(learner)
    assert newest(open_folder(rig.folder)) is None
    transport.assign(FIRST)
    turn(learner)
    assert newest(open_folder(rig.folder)) is not None


def test_a_round_whose_partition_is_lost_is_left_to_another(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.send(BATCH)
    transport = rig.transport()
    learner = rig.learner(transport, model=MODEL | {"steps": 100_000}, checkpoint_steps=100_000)
    beat = learner._beat

    def losing() -> None:
        transport.lose(FIRST)
        beat()

    monkeypatch.setattr(learner, "_beat", losing)
    turn(learner)
    assert newest(open_folder(rig.folder)) is None
    assert rig.committed() == {}


@pytest.mark.parametrize("fenced", [False, True])
def test_a_partition_that_comes_back_is_worked_on_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, fenced: bool
) -> None:
    rig.send(BATCH)
    transport = rig.transport()
    learner, ran = rig.learner(transport), Training.run

    def losing(self: Training, *given: Any) -> Outcome:
        if fenced:
            transport.fence()
        else:
            transport.lose(FIRST)
        assert learner._halt.wait(10)
        return ran(self, *given)

    monkeypatch.setattr(Training, "run", losing)
    turn(learner, 2)
    assert learner._halt.is_set()
    monkeypatch.setattr(Training, "run", ran)
    transport.assign(FIRST)
    turn(learner)
    manifest, _ = rig.model()
    assert manifest.round is not None
    assert (manifest.round.number, manifest.step) == (1, 4)


def test_a_first_round_that_learned_nothing_is_not_taken(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else noise would be published. The next one is, however near to real images its own noise was."""
    rig.send(BATCH)
    look = Watch.look
    monkeypatch.setattr(Watch, "look", lambda self, model: "diverged")
    learner = turn(rig.learner())
    manifest, _ = rig.model()
    assert manifest.round is not None
    assert (manifest.round.number, manifest.round.taken, manifest.step) == (1, False, 0)
    assert not (rig.folder / "samples.png").exists()
    assert rig.committed() == {0: 67, 1: 33}
    monkeypatch.setattr(Watch, "look", look)
    monkeypatch.setattr(rounds, "distances", lambda *given: (2.0, 1.0))
    rig.send(BATCH)
    turn(learner)
    manifest, _ = rig.model()
    assert manifest.round is not None
    assert (manifest.round.number, manifest.round.taken, manifest.step) == (2, True, 4)
    # A later one that learns nothing is not taken either.
    monkeypatch.setattr(Watch, "look", lambda self, model: "diverged")
    monkeypatch.setattr(rounds, "distances", lambda *given: (1.0, 1.0))
    rig.send(BATCH)
    turn(learner)
    manifest, _ = rig.model()
    assert manifest.round is not None
    assert (manifest.round.number, manifest.round.taken, manifest.step) == (3, False, 4)


def test_a_topic_in_colour_stays_in_colour(rig: Rig) -> None:
    rig.send(BATCH, colour=True)
    learner = turn(rig.learner())
    rig.send(BATCH)  # grey
    turn(learner)
    manifest, _ = rig.model()
    assert manifest.shape == (3, 16, 16)
    assert manifest.round is not None
    assert manifest.round.number == 2


@pytest.mark.parametrize("remade", [False, True])
def test_records_that_are_gone_stop_it_unless_it_may_go_on(rig: Rig, remade: bool) -> None:
    rig.send(BATCH)
    turn(rig.learner())
    if remade:
        rig.log.delete_topic("in")
        rig.log.create_topic("in", 2)
    rig.send(BATCH + 20)
    if not remade:
        rig.log.expire(FIRST, 80)
    with pytest.raises(LogGap, match="on_log_gap to continue"):
        turn(rig.learner())
    turn(rig.learner(on_log_gap="continue"))
    manifest, _ = rig.model()
    assert manifest.round is not None
    assert manifest.round.number == 2
    assert manifest.cut is not None
    assert manifest.cut.between[0][0] == (0 if remade else 80)


def test_retention_that_overtakes_a_round_begins_it_again(rig: Rig) -> None:
    """The plan of a round that was broken off cannot be read any more."""
    rig.send(BATCH)
    collecting = turn(rig.learner(), 1)._collecting
    assert collecting is not None
    while collecting.plan() is None:
        collecting.look_on()
    plan = collecting.plan()
    assert plan is not None
    plan.write(open_folder(rig.folder / rounds.ROUND))
    rig.log.expire(FIRST, 10)
    with pytest.raises(LogGap):
        turn(rig.learner())
    rig.send(20)
    turn(rig.learner(on_log_gap="continue"))
    manifest, _ = rig.model()
    assert manifest.cut is not None
    assert manifest.cut.between[0][0] == 10


def test_what_cannot_be_is_refused(rig: Rig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no topic of images"):
        rig.learner(topic=None)
    with pytest.raises(ConfigError, match="cosine"):
        rig.learner(model=MODEL | {"schedule": "cosine"})
    with pytest.raises(ConfigError, match="widht"):
        rig.learner(model=MODEL | {"widht": 4})
    images = np.random.default_rng(0).integers(0, 255, (8, 16, 16, 1), dtype=np.uint8)
    Training(images, MODEL, Look(), 0, "cpu", open_folder(rig.folder)).run(2, lambda progress: None)
    with pytest.raises(StateError, match="holds one training, not one of in in batches"):
        turn(rig.learner())


def test_other_settings_are_refused_in_the_same_folder(rig: Rig) -> None:
    rig.send(BATCH)
    turn(rig.learner())
    with pytest.raises(StateError, match=r"model.width"):
        turn(rig.learner(model=MODEL | {"width": 8}))
    turn(rig.learner(model=MODEL | {"steps": 6}))
    with pytest.raises(StateError, match=r"images.size is 32, and what is in .* was learned with None"):
        turn(rig.learner(size=32))
    with pytest.raises(StateError, match=r"images.colours is colour, and .* learned with grey"):
        turn(rig.learner(colours="colour"))
    turn(rig.learner(colours="grey"))
