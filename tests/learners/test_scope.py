"""`scope: task` and `start_from: shared`: what the keys of a task share, and what each keeps. Bits:
tests/conformance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from streamgen import models
from streamgen.config import InputConfig
from streamgen.errors import ConfigError, StateError
from streamgen.learners.task import Task
from streamgen.records import Columns, Floats, TopicPartition

MINUTE = 60_000
SHARED = {"weights_P", "first_P", "second_P", "updates"}
MODELS: dict[str, Mapping[str, object]] = {
    "stream_ae": {"name": "stream_ae", "hidden": 4},
    "stream_ae full": {
        "name": "stream_ae", "preset": "full", "hidden": 4, "components": 2, "burn_in": 4, "reservoir": 4,
        "updates": 1, "batch": 2,
    },
    "rvae": {"name": "rvae", "hidden": 4, "latent": 2, "components": 2},
    "rvae full": {
        "name": "rvae", "preset": "full", "hidden": 4, "latent": 2, "components": 2, "reservoir": 4,
        "updates": 1, "batch": 2, "joint": 4,
    },
}  # fmt: skip


def task(model: Mapping[str, object], scope: str = "task", **settings: object) -> Task:
    config = InputConfig(
        topic="t",
        model={**model, "scope": scope},
        window={"length": 8},  # type: ignore[arg-type]
        min_records=1,
        **settings,  # type: ignore[arg-type]
    )
    return Task(TopicPartition("t", 0), config, ("x",), 0, "cpu")


def records(key: str | None, first: int, count: int, scale: float = 1.0) -> Columns:
    n_N = np.arange(first, first + count)
    value_ND: Floats = scale * np.sin(n_N / 3.0)[:, None] + 0.1 * np.cos(n_N * 1.7)[:, None]
    return Columns(n_N, n_N * MINUTE, [key] * count, value_ND, np.arange(count))


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> Mapping[str, object]:
    return MODELS[request.param]


def test_one_key_learns_as_it_does_alone(model: Mapping[str, object]) -> None:
    """Of the same name, bit by bit: sharing with nobody changes nothing."""
    own, shared = task(model, "key"), task(model)
    told = [one.process(records(None, 0, 40)) for one in (own, shared)]
    assert told[0].scores.step_N.max() > 2
    assert told[0].scores.surprise_NS.tobytes() == told[1].scores.surprise_NS.tobytes()
    drawn = [one.generate(None, 5, 2, 0) for one in (own, shared)]
    assert drawn[0].tobytes() == drawn[1].tobytes()
    likely = [one.likelihood(None, records(None, 40, 9), 2, 0).log_p_N for one in (own, shared)]
    assert likely[0].any()
    assert likely[0].tobytes() == likely[1].tobytes()


def test_a_new_key_begins_with_what_the_others_have_taught(model: Mapping[str, object]) -> None:
    learner = task(model)
    learner.process(records("a", 0, 40))
    before = learner.slab.shared()
    results = learner.process(records("b", 40, 1, 1000.0))
    updates = int(before["updates"])
    assert updates > 2
    assert results.scores.step_N.tolist() == [updates]
    assert {name: array.tobytes() for name, array in learner.slab.shared().items()} == {
        name: array.tobytes() for name, array in before.items()
    }
    learner.process(records("b", 41, 11, 1000.0))  # its first window is complete, also one with a burn-in
    after = learner.slab.shared()
    assert int(after["updates"]) == updates + 1
    assert (after["weights_P"] != before["weights_P"]).any()
    # The other key is where it was, but for the weights.
    rows = {key: learner.slab.row(row) for key, row in learner._residents.rows.items()}
    mean = next(name for name in rows["a"] if "mean" in name)
    assert np.abs(rows["a"][mean]).max() < 2 < np.abs(rows["b"][mean]).max()


def test_a_checkpoint_has_what_is_shared_once(model: Mapping[str, object]) -> None:
    learner = task(model)
    for key in ("a", "b"):
        learner.process(records(key, 0, 20))
    shared = SHARED | ({"average_P"} if "average_P" in learner.slab.fields else set())
    assert learner.slab.shared().keys() == shared
    snapshot = learner.snapshot(40)
    assert all(not shared & one.fields.keys() for one in snapshot.take(9))
    assert "shared" in snapshot.facts
    assert "shared" not in task(model, "key").snapshot(0).facts


def test_what_is_shared_outlives_every_key() -> None:
    learner = task(MODELS["stream_ae"], key_ttl="1h")
    learner.process(records("a", 0, 40))
    before = learner.slab.shared()["weights_P"]
    results = learner.process(records("b", 1000, 1))
    assert learner.keys == ["b"]
    assert results.scores.step_N.tolist() == [5]
    assert learner.slab.shared()["weights_P"].tobytes() == before.tobytes()


def test_a_key_takes_no_memory_for_weights() -> None:
    own, shared = (task(MODELS["stream_ae"], scope) for scope in ("key", "task"))
    size = own.slab.row(0)["weights_P"].nbytes
    assert own.slab.bytes_per_learner - shared.slab.bytes_per_learner == 3 * size + 8


def test_a_state_without_what_is_shared_is_refused() -> None:
    with pytest.raises(StateError, match=r"that the keys of .* share is damaged"):
        task(MODELS["stream_ae"]).restore({}, {})


def test_a_detector_without_weights_refuses_it() -> None:
    with pytest.raises(ConfigError, match=r"model\.scope"):
        models.settings({"name": "river", "scope": "task"})


def test_a_new_key_starts_from_the_mean_of_what_others_have_learned(model: Mapping[str, object]) -> None:
    """Reptile's update, by the definition, from the weights after each update of two keys."""
    learner = task({**model, "start_from": "shared"}, "key")

    def weights(key: str) -> Floats:
        return np.array(learner.learners()[key]["weights_P"], dtype=np.float64)

    learner.process(records("a", 0, 1))
    first_P = expected_P = weights("a")
    updates = 0
    for n in range(1, 40):
        for key, scale in (("a", 1.0), ("b", 1000.0)):
            before = learner.slab.shared()["start_updates"]
            learner.process(records(key, n, 1, scale))
            if learner.slab.shared()["start_updates"] > before:
                decay = min(0.99, updates / (10 + updates))
                expected_P = decay * expected_P + (1 - decay) * weights(key)
                updates += 1
    assert updates >= 4
    np.testing.assert_allclose(learner.slab.shared()["start_P"], expected_P, atol=1e-6)
    assert np.abs(expected_P - first_P).max() > 1e-3
    learner.process(records("c", 40, 1))
    np.testing.assert_array_equal(weights("c"), learner.slab.shared()["start_P"])
    assert learner.learners()["c"]["updates"] == 0
    assert not np.array_equal(weights("a"), weights("b"))  # each has its own


def test_a_new_key_in_the_middle_of_a_batch_starts_where_the_records_before_it_led() -> None:
    one, other = (task({**MODELS["stream_ae"], "start_from": "shared"}, "key") for _ in range(2))
    parts = [records("a", 0, 20), records("b", 20, 3), records("a", 23, 20), records("c", 43, 3)]
    for part in parts:
        one.process(part)
    whole = Columns(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("offset_N", "timestamp_N")),
        [key for part in parts for key in part.key],
        np.concatenate([part.value_ND for part in parts]),
        np.arange(46),
    )
    other.process(whole)
    for key in "abc":
        assert {name: array.tobytes() for name, array in one.learners()[key].items()} == {
            name: array.tobytes() for name, array in other.learners()[key].items()
        }


def test_start_from_changes_nothing_where_all_keys_have_the_same_weights() -> None:
    with pytest.raises(ConfigError, match=r"model\.start_from changes nothing with scope: task"):
        models.settings({"name": "rvae", "scope": "task", "start_from": "shared"})
