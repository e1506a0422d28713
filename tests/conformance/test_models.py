"""The suite that every registered model passes: it finds them in the registry."""

from collections.abc import Mapping
from typing import get_args

import numpy as np
import pytest
import torch

from streamgen import models
from streamgen.config import InputConfig, WindowConfig
from streamgen.errors import InputError
from streamgen.learners.calibration import Calibration
from streamgen.learners.episodes import Episodes
from streamgen.learners.task import Results, Task
from streamgen.models.online import KINDS, Kind
from streamgen.records import Columns, Floats, TopicPartition

N, D = 700, 2
FEW = 280  # where it is bits that are compared: a window more is no better a test
# By model and preset: small ones.
SMALL: dict[str, dict[str, object]] = {
    "stream_ae": {"hidden": 8},
    "stream_ae full": {"hidden": 8, "components": 2, "burn_in": 4, "reservoir": 10, "batch": 4},
    "stream_ae paper": {"hidden": 8, "dense": 4},
    "rvae": {"hidden": 8, "latent": 2, "components": 2},
    "rvae full": {"hidden": 8, "latent": 2, "components": 2, "reservoir": 10, "batch": 4},
    "rvae paper": {"hidden": 8, "dense": 4, "latent": 2},
    "river": {"n_trees": 3, "height": 4, "window_size": 100},
}


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_model_and_preset_is_here() -> None:
    known = []
    for model in models.names():
        preset = type(models.settings({"name": model})).model_fields.get("preset")
        presets = get_args(preset.annotation) if preset is not None else ("light",)
        known += [model if one == "light" else f"{model} {one}" for one in presets]
    assert list(SMALL) == known


def task(
    name: str, seed: int = 0, device: str = "cpu", stride: int | None = None, **settings: object
) -> Task:
    model, _, preset = name.partition(" ")
    given = {"preset": preset} if preset else {}
    config = InputConfig(
        topic="t",
        model={"name": model, **given, **SMALL[name], **settings},
        window=WindowConfig(stride=stride),
    )
    return Task(TopicPartition("t", 0), config, ("a", "b"), seed, device)


def stream(seed: int = 0, count: int = N) -> Floats:
    rng = np.random.default_rng(seed)
    t = np.arange(N)[:, None]
    return (np.sin(t / [5.0, 9.0]) + 0.1 * rng.normal(size=(N, D)))[:count]


def columns(value_ND: Floats, key: list[str | None] | None = None, first: int = 0) -> Columns:
    count = len(value_ND)
    offset_N = np.arange(first, first + count)
    return Columns(offset_N, offset_N * 60_000, key or ["k"] * count, value_ND, np.arange(count))


def together(parts: list[Results]) -> dict[str, Floats]:
    return {
        "surprise": np.concatenate([p.scores.surprise_NS for p in parts]),
        "p": np.concatenate([p.p_N for p in parts]),
        "expected": np.concatenate([p.scores.expected_ND for p in parts]),
        "contribution": np.concatenate([p.scores.contribution_ND for p in parts]),
        "step": np.concatenate([p.scores.step_N for p in parts]),
    }


def same(one: dict[str, Floats], other: dict[str, Floats], rows: slice | np.ndarray = slice(None)) -> bool:
    """Bitwise; NaN equals NaN."""
    return all(one[field].tobytes() == other[field][rows].tobytes() for field in one)


def in_batches(name: str, value_ND: Floats, size: int) -> dict[str, Floats]:
    learner = task(name)
    return together(
        [learner.process(columns(value_ND[n : n + size], first=n)) for n in range(0, len(value_ND), size)]
    )


@pytest.mark.parametrize("size", [1, 7])
def test_batches_change_no_bit(name: str, size: int) -> None:
    whole, parts = task(name), task(name)
    expected = together([whole.process(columns(stream(count=FEW)))])
    cut = [parts.process(columns(stream(count=FEW)[n : n + size], first=n)) for n in range(0, FEW, size)]
    assert same(together(cut), expected)
    left, right = whole.learners()["k"], parts.learners()["k"]
    assert {name: array.tobytes() for name, array in left.items()} == {
        name: array.tobytes() for name, array in right.items()
    }


def test_neighbours_change_no_bit(name: str) -> None:
    alone = in_batches(name, stream(count=FEW), FEW)
    rng = np.random.default_rng(9)
    keys: list[str | None] = []
    values = []
    for record in stream(count=FEW):
        for other in rng.integers(0, 20, 2):
            keys.append(f"other-{other}")
            values.append(rng.normal(size=D))
        keys.append("k")
        values.append(record)
    mine = np.array([key == "k" for key in keys])
    learner = task(name)
    # The same event times for the key: the clock of a neighbour is a neighbour's.
    time_N = np.cumsum(mine) * 60_000 - 60_000
    batch = Columns(np.arange(len(keys)), np.maximum(time_N, 0), keys, np.array(values), np.arange(len(keys)))
    assert same(alone, together([learner.process(batch)]), mine)


def test_a_restored_state_goes_on_bitwise(name: str) -> None:
    uninterrupted = in_batches(name, stream(count=FEW), FEW)
    before, after = task(name), task(name)
    head = before.process(columns(stream()[:133]))
    after.restore(before.snapshot(133).facts, before.learners())
    tail = after.process(columns(stream(count=FEW)[133:], first=133))
    assert same(uninterrupted, together([head, tail]))


def test_a_state_is_a_copy(name: str) -> None:
    learner = task(name)
    learner.process(columns(stream()[:140]))
    state = learner.learners()["k"]
    frozen = {field: values.tobytes() for field, values in state.items()}
    learner.process(columns(stream(count=FEW)[140:], first=140))
    assert frozen == {field: values.tobytes() for field, values in state.items()}


def test_score_comes_before_learning(name: str) -> None:
    changed_ND = stream()
    changed_ND[400] += 25.0
    clean, changed = in_batches(name, stream(), N), in_batches(name, changed_ND, N)
    for field in clean:
        if field != "contribution":
            assert clean[field][:400].tobytes() == changed[field][:400].tobytes()
    assert clean["expected"][400].tobytes() == changed["expected"][400].tobytes()
    assert changed["p"][400] < clean["p"][400]
    assert clean["surprise"][401:].tobytes() != changed["surprise"][401:].tobytes()  # it did learn


def test_a_late_record_is_scored_and_changes_nothing(name: str) -> None:
    learner, other = task(name), task(name)
    learner.process(columns(stream()[:300]))
    other.process(columns(stream()[:300]))
    late = Columns(np.array([300]), np.array([0]), ["k"], np.full((1, D), 9.0), np.array([0]))
    result = learner.process(late)
    assert result.ticks.late_N.all()
    assert not np.isnan(result.scores.surprise_NS).any()
    assert not result.verdicts.is_anomaly_N.any()
    rest = columns(stream(count=400)[300:], first=301)
    assert same(together([learner.process(rest)]), together([other.process(rest)]))


@pytest.mark.parametrize("bad", [np.nan, 1e300, -1e300, 1e-300, 0.0])
def test_no_value_spreads(name: str, bad: float) -> None:
    value_ND = stream()
    value_ND[200:210, 0] = bad
    value_ND[300:350] = np.where(np.isnan(bad), stream()[300:350], bad)
    learner = task(name)
    result = learner.process(columns(value_ND))
    assert not np.isnan(result.scores.surprise_NS[-100:]).any()
    assert ((result.p_N > 0) & (result.p_N <= 1)).all()
    weights = [values for field, values in learner.learners()["k"].items() if field.endswith("_P")]
    assert all(np.isfinite(values).all() for values in weights)


def test_no_difference_of_values_spreads(name: str) -> None:
    """Both are finite, and their difference is not."""
    value_ND = stream()
    value_ND[200:210, 0] = [1.7e308, -1.7e308] * 5
    result = task(name).process(columns(value_ND))
    assert not np.isnan(result.scores.surprise_NS[-100:]).any()
    assert not np.isinf(result.scores.expected_ND).any()


def test_constant_and_missing_columns(name: str) -> None:
    value_ND = stream()
    value_ND[:, 1] = 1e9
    result = task(name).process(columns(value_ND))
    assert not np.isnan(result.scores.surprise_NS[-100:]).any()
    value_ND[:, 1] = np.nan
    result = task(name).process(columns(value_ND))
    assert not np.isnan(result.scores.surprise_NS[-100:]).any()


def test_a_scale_that_jumps_is_strange_and_then_normal(name: str) -> None:
    value_ND = np.concatenate([stream(), 1000 * stream(1)])
    p_N = in_batches(name, value_ND, N)["p"]
    assert p_N[N : N + 20].min() < 0.01
    assert np.median(p_N[-100:]) > 0.02


def test_the_seed_and_the_key_name_the_noise(name: str) -> None:
    def final(key: str | None, seed: int) -> bytes:
        learner = task(name, seed)
        return learner.process(columns(stream(count=FEW), key=[key] * FEW)).scores.surprise_NS.tobytes()

    assert final("k", 0) == final("k", 0)
    assert len({final("k", 0), final("k", 1), final("j", 0), final(None, 0), final("", 0)}) == 5


def test_generation_or_a_word_that_it_cannot(name: str) -> None:
    learner = task(name)
    learner.process(columns(stream()))
    if not learner.model.kinds:
        with pytest.raises(InputError, match="stream_ae"):
            learner.generate("k", 5, 2, 0)
        return
    before = learner.learners()["k"]
    drawn = learner.generate("k", 5, 2, 0)
    assert drawn.shape == (2, 5, D)
    assert np.isfinite(drawn).all()
    after = learner.learners()["k"]
    assert all(before[field].tobytes() == after[field].tobytes() for field in before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_gives_what_the_cpu_gives(name: str) -> None:
    """To rounding: the bits of a GPU are its own (docs/guarantees.md)."""
    cpu, gpu = task(name), task(name, device="cuda")
    there = gpu.process(columns(stream()[:200])).scores
    here = cpu.process(columns(stream()[:200])).scores
    np.testing.assert_allclose(there.surprise_NS[:64], here.surprise_NS[:64], rtol=1e-3, atol=1e-4)
    moved = task(name)
    moved.restore(gpu.snapshot(200).facts, gpu.learners())
    assert np.isfinite(moved.process(columns(stream()[200:], first=200)).scores.surprise_NS).all()


UPDATED = (
    *("weights_P", "first_P", "second_P", "average_P", "updates", "draws", "mass_RV2", "windows"),
    *("stretch_D", "stretch_count"),
)


def carried(state: Mapping[str, np.ndarray], judged: set[str]) -> dict[str, bytes]:
    """What moves from record to record, without what is learned and what only judges scores."""
    return {
        field: values.tobytes()
        for field, values in state.items()
        if field not in UPDATED and field not in judged and not field.startswith(("kept_", "fan_"))
    }


@pytest.mark.parametrize(("size", "stride"), [(1, None), (7, 5), (150, 5)])
def test_following_moves_what_is_carried_as_scoring_does_and_learns_nothing(
    name: str, size: int, stride: int | None
) -> None:
    """A learner whose updates are of size nothing moves as one that only follows."""
    never: dict[str, object] = {} if name == "river" else {"learning_rate": 1e-300}
    still, followed, learner = (task(name, stride=stride, **more) for more in (never, {}, {}))
    learner.process(columns(stream()[:300]))
    for other in (still, followed):
        other.restore(learner.snapshot(300).facts, learner.learners())
    before = learner.learners()["k"]
    tail_ND = stream()[300:450]
    tail_ND[20:25, 0] = np.nan
    still.process(columns(tail_ND, first=300))
    for n in range(0, 150, size):
        followed.follow(columns(tail_ND[n : n + size], first=300 + n))
    after = followed.learners()["k"]
    for field in UPDATED:
        if field in before:
            assert after[field].tobytes() == before[field].tobytes(), field
    fields = {*Calibration(followed.model.surprises).fields(), *Episodes.fields(D)}
    assert carried(after, fields) == carried(still.learners()["k"], fields)
    assert carried(after, fields) != carried(before, fields)
    assert {field: after[field].tobytes() for field in fields} == {f: before[f].tobytes() for f in fields}


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_given_or_refused_by_name(name: str, kind: Kind) -> None:
    learner = task(name)
    learner.process(columns(stream()[:300]))
    given_TD = np.full((6, D), np.nan)
    given_TD[:, 1] = 0.25
    if kind not in learner.model.kinds:
        with pytest.raises(InputError, match=f"{name.split()[0]} "):
            learner.generate("k", 6, 1, 0, kind, given_TD)
        return
    known_TD = given_TD if kind in ("impute", "what-if") else None
    before = learner.learners()["k"]
    drawn = [learner.generate("k", 6, 1, seed, kind, known_TD) for seed in (3, 3, 4)]
    assert drawn[0].shape == (1, 6, D)
    assert np.isfinite(drawn[0]).all()
    assert drawn[0].tobytes() == drawn[1].tobytes()
    assert (drawn[0].tobytes() == drawn[2].tobytes()) == (kind == "impute")
    if known_TD is not None:
        assert (drawn[0][..., 1] == 0.25).all()
    after = learner.learners()["k"]
    assert all(before[field].tobytes() == after[field].tobytes() for field in before)


def test_a_likelihood_changes_nothing_or_is_refused_by_name(name: str) -> None:
    """Beside `tests/models/test_likelihood.py`, which says what it is."""
    one = task(name)
    one.process(columns(stream()[:300]))
    new, before = columns(stream()[300:340], first=300), one.learners()
    if not one.model.kinds:
        with pytest.raises(InputError, match="has no likelihood"):
            one.likelihood("k", new, 2, 0)
        return
    first, again = (one.likelihood("k", new, 2, 0) for _ in range(2))
    assert np.isfinite(first.log_p_N).all()
    assert first.values_N.tolist() == [D] * 40
    assert first.log_p_N.tobytes() == again.log_p_N.tobytes()
    after = one.learners()
    assert all(before["k"][field].tobytes() == after["k"][field].tobytes() for field in before["k"])
