"""The suite that every state store passes: files by path and by URL, a real S3 server, Kafka, memory."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from streamgen.errors import Fenced
from streamgen.records import TopicPartition
from streamgen.state.checkpoint import Fields, LearnerState, Manifest, Tally
from streamgen.state.files import FileStore
from streamgen.state.store import Store, TaskStore
from streamgen.testing import MemoryStore

SOURCE = TopicPartition("in", 0)
KEYS = (None, "", "k", "ключ 🗝", 'a"b\\c\n\0', "null", "x" * 5000)
Learners = dict[str | None, Fields]
Connect = Callable[[], Store]


@pytest.fixture(params=["path", "file", "memory", "s3", "kafka", "in memory"])
def connect(request: pytest.FixtureRequest, tmp_path: Path, fresh: Callable[[str], str]) -> Iterator[Connect]:
    """Makes a store as another process would, of the same place."""
    if request.param == "kafka":
        from streamgen.kafka.pins import state_topic
        from streamgen.kafka.topics import ensure_compacted
        from streamgen.state.on_kafka import KafkaStore

        kafka, application = request.getfixturevalue("kafka"), fresh("stores")
        ensure_compacted(kafka, state_topic(application), 3)
        yield lambda: KafkaStore(kafka, application)
    elif request.param == "in memory":
        store = MemoryStore()
        yield lambda: store
    else:
        url = {
            "path": lambda: str(tmp_path / "é x"),
            "file": lambda: (tmp_path / "state").as_uri(),
            "memory": lambda: f"memory://{uuid.uuid4()}/state",
            "s3": lambda: f"{request.getfixturevalue('s3')}/{uuid.uuid4()}/state",
        }[request.param]()
        yield lambda: FileStore(url)


@pytest.fixture
def onlooker(connect: Connect) -> Store:
    """Another process that only looks. It is one for the whole test, and must not remember what it saw."""
    return connect()


@pytest.fixture
def claim(connect: Connect) -> Iterator[Callable[..., TaskStore]]:
    """A task's store, claimed by a new owner."""
    claimed: list[TaskStore] = []
    store = connect()

    def new(source: TopicPartition = SOURCE) -> TaskStore:
        claimed.append(store.claim(source))
        return claimed[-1]

    yield new
    for one in claimed:
        one.close()


def fields(seed: int) -> Fields:
    rng = np.random.default_rng(seed)
    return {
        "weights.a_P": rng.normal(size=(3, 7)).astype(np.float32),
        "count": np.array(2**62 + seed),
        "scale": np.array([math.nan, -0.0, math.inf, 5e-324]),
        "open": rng.integers(0, 2, 5).astype(np.bool_),
        "nothing": np.zeros((0, 4)),
    }


def manifest(offset: int, source: TopicPartition = SOURCE, topic_id: str = "") -> Manifest:
    facts = {"time": offset, "dead": [1, 2], "waiting": {"ключ": 3, "null": None}}
    return Manifest(source, offset, ("a", "b.ц"), 7, {"topic": "in"}, "f00", topic_id, facts)


def write(
    store: TaskStore,
    manifest: Manifest,
    state: Learners,
    changed: Mapping[str | None, Fields] | None = None,
    removed: tuple[str | None, ...] = (),
) -> Manifest:
    """Store `state`, of which `changed` differs from what is stored."""
    given = state if store.whole or changed is None else changed
    return store.write(manifest, (LearnerState(key, one) for key, one in given.items()), removed)


def assert_holds(store: Store, written: Manifest, state: Learners) -> None:
    found = store.peek(written.source)
    assert found is not None
    assert found.manifest == written
    assert_same(found.learners, state)


def assert_same(found: Mapping[str | None, Fields], state: Learners) -> None:
    assert found.keys() == state.keys()
    for key, expected in state.items():
        assert found[key].keys() == expected.keys()
        for name, array in expected.items():
            other = found[key][name]
            assert isinstance(other, np.ndarray)  # not a scalar
            assert (other.shape, other.dtype) == (array.shape, array.dtype)
            assert other.tobytes() == array.tobytes()


def test_nothing_is_there(onlooker: Store, claim: Callable[..., TaskStore]) -> None:
    assert onlooker.sources() == []
    assert onlooker.peek(SOURCE) is None
    assert claim().read(10**12) is None
    assert onlooker.sources() == []


def test_what_is_written_comes_back_bit_for_bit(onlooker: Store, claim: Callable[..., TaskStore]) -> None:
    state = {key: fields(n) for n, key in enumerate(KEYS)}
    owner = claim()
    assert owner.read(0) is None
    written = write(owner, manifest(41), state)
    assert (written.learners, written.offset, written.facts) == (len(KEYS), 41, manifest(41).facts)
    assert_holds(onlooker, written, state)
    found = claim().read(41)
    assert found is not None
    assert found.manifest == written
    assert_same(found.learners, state)
    assert onlooker.sources() == [SOURCE]


def test_a_learner_of_megabytes(onlooker: Store, claim: Callable[..., TaskStore]) -> None:
    """And one that is small again."""
    owner = claim()
    owner.read(0)
    state: Learners = {"k": {"w": np.random.default_rng(0).normal(size=300_000)}}
    assert_holds(onlooker, write(owner, manifest(1), state), state)
    state = {"k": {"w": np.arange(3.0)}}
    assert_holds(onlooker, write(owner, manifest(2), state), state)


def test_a_task_without_learners_has_facts(onlooker: Store, claim: Callable[..., TaskStore]) -> None:
    owner = claim()
    owner.read(0)
    assert_holds(onlooker, write(owner, manifest(3), {}), {})


def test_each_checkpoint_is_the_one_before_and_what_changed(
    onlooker: Store, claim: Callable[..., TaskStore]
) -> None:
    owner, state = claim(), {key: fields(n) for n, key in enumerate(KEYS)}
    owner.read(0)
    write(owner, manifest(10), state)
    changed: Learners = {"k": fields(50), "new": fields(51)}
    del state[None]
    state |= changed
    assert_holds(onlooker, write(owner, manifest(20), state, changed, (None, "never there")), state)
    changed = {None: fields(52)}  # it is back
    del state[""], state["new"]
    state |= changed
    assert_holds(onlooker, write(owner, manifest(30), state, changed, ("", "new")), state)
    # Another owner goes on from what it read.
    owner.close()
    owner = claim()
    assert owner.read(30) is not None
    changed = {"k": fields(53)}
    state |= changed
    written = write(owner, manifest(40), state, changed)
    assert_holds(onlooker, written, state)
    assert_holds(onlooker, write(owner, manifest(41), state, {}), state)  # only the offset moved


def test_the_checksum_is_the_states_whatever_the_store(claim: Callable[..., TaskStore]) -> None:
    state: Learners = {key: fields(n) for n, key in enumerate(KEYS)}
    owner = claim()
    owner.read(0)
    assert write(owner, manifest(1), state).checksum == Tally.of(state).seal(manifest(1)).checksum
    changed: Learners = {"k": fields(9)}
    del state[""]
    state |= changed
    written = write(owner, manifest(2), state, changed, ("",))
    assert written.checksum == Tally.of(state).seal(manifest(2)).checksum


def test_a_checkpoint_past_the_committed_offset_is_not_read(claim: Callable[..., TaskStore]) -> None:
    owner = claim()
    owner.read(0)
    write(owner, manifest(100), {"k": fields(0)})
    owner.close()
    assert claim().read(99) is None
    found = claim().read(100)
    assert found is not None
    assert found.manifest.offset == 100


def test_a_topic_of_the_same_name_is_another(claim: Callable[..., TaskStore]) -> None:
    owner = claim()
    owner.read(0, "first")
    write(owner, manifest(100, topic_id="first"), {"k": fields(0)})
    owner.close()
    assert claim().read(100, "second") is None
    assert claim().read(100, "first") is not None


def test_after_nothing_was_read_all_that_others_stored_is_forgotten(
    onlooker: Store, claim: Callable[..., TaskStore]
) -> None:
    owner = claim()
    owner.read(0)
    write(owner, manifest(100), {"old": fields(0), "k": fields(1)})
    write(owner, manifest(200), {"old": fields(0), "k": fields(2)}, {"k": fields(2)})
    owner.close()
    owner = claim()
    assert owner.read(50) is None
    state: Learners = {"k": fields(3)}
    written = write(owner, manifest(60), state)
    assert_holds(onlooker, written, state)
    owner.close()
    found = claim().read(10**12)  # also when the committed offset is past what others stored
    assert found is not None
    assert found.manifest.offset == 60
    assert claim().read(59) is None


def test_tasks_do_not_mix(onlooker: Store, claim: Callable[..., TaskStore]) -> None:
    sources = [
        TopicPartition("in", 0), TopicPartition("in", 1), TopicPartition("in-0", 1), TopicPartition("in", 12),
        TopicPartition("In.x_1", 0),
    ]  # fmt: skip
    owners = [claim(source) for source in sources]
    states: list[Learners] = [{"k": fields(n), f"{n}": fields(n)} for n in range(len(sources))]
    written = []
    for n, (source, owner) in enumerate(zip(sources, owners, strict=True)):
        assert owner.read(10**12) is None
        written.append(write(owner, manifest(n, source), states[n]))
    written[1] = write(owners[1], manifest(9, sources[1]), {}, {}, tuple(states[1]))
    states[1] = {}
    for one, state in zip(written, states, strict=True):
        assert_holds(onlooker, one, state)
    assert onlooker.sources() == sorted(sources)


def test_what_fails_in_the_middle_is_not_stored(onlooker: Store, claim: Callable[..., TaskStore]) -> None:
    def failing(first: int) -> Iterator[LearnerState]:
        for n in range(first):
            yield LearnerState(f"{n}", {"w": np.full(200_000, n, dtype=np.float64)})
        raise ZeroDivisionError

    owner = claim()
    owner.read(0)
    with pytest.raises(ZeroDivisionError):
        owner.write(manifest(1), failing(2), ())
    assert onlooker.peek(SOURCE) is None
    assert onlooker.sources() == []
    state: Learners = {"k": fields(1), "0": fields(2)}
    before = write(owner, manifest(5), state)
    for first in (0, 1, 3):
        with pytest.raises(ZeroDivisionError):
            owner.write(manifest(6), failing(first), ("k",))
        assert_holds(onlooker, before, state)
    state |= {"k": fields(3)}
    assert_holds(onlooker, write(owner, manifest(7), state, {"k": state["k"]}), state)


def test_who_looks_disturbs_no_owner(onlooker: Store, claim: Callable[..., TaskStore]) -> None:
    owner = claim()
    owner.read(0)
    state: Learners = {"k": fields(0)}
    for offset in (1, 2, 3):
        state["k"] = fields(offset)
        assert_holds(onlooker, write(owner, manifest(offset), state), state)
        assert onlooker.sources() == [SOURCE]


def test_an_owner_that_gives_up_leaves_its_successor_alone(
    onlooker: Store, claim: Callable[..., TaskStore]
) -> None:
    """In the middle of a checkpoint, its task having gone to another worker that has claimed it."""
    stale = claim()
    stale.read(0)
    state: Learners = {"k": fields(1)}
    before = write(stale, manifest(1), state)
    owner: list[TaskStore] = []

    def overtaken() -> Iterator[LearnerState]:
        yield LearnerState("k", {"w": np.zeros(200_000)})
        owner.append(claim())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stale.write(manifest(2), overtaken(), ())
    assert owner[0].read(1) is not None
    stale.close()
    assert_holds(onlooker, before, state)
    state["k"] = fields(3)
    assert_holds(onlooker, write(owner[0], manifest(3), state), state)


def test_an_earlier_owner_is_fenced_or_harmless(onlooker: Store, claim: Callable[..., TaskStore]) -> None:
    first: Learners = {"k": fields(1)}
    second: Learners = {"k": fields(2), "new": fields(3)}
    stale = claim()
    stale.read(0)
    write(stale, manifest(1), first)
    owner = claim()
    assert owner.read(1) is not None
    written = write(owner, manifest(5), second)
    try:
        late = write(stale, manifest(2), first)
    except Fenced:
        assert_holds(onlooker, written, second)
    else:
        assert stale.whole, "a store of changes must fence: two owners' changes are no state"
        assert_holds(onlooker, late, first)
    assert_holds(onlooker, write(owner, manifest(6), second), second)
