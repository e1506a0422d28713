"""What the recurrent variational autoencoder promises as a learner; its equations have files of their own."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from streamgen.config import InputConfig, WindowConfig
from streamgen.learners.task import Task
from streamgen.models.axes import Axes, compressed
from streamgen.models.noise import generator
from streamgen.models.online import Learner, Scores
from streamgen.models.rvae import RVAE, Settings
from streamgen.models.sequence_vae import SequenceVAE, Windows
from streamgen.models.slab import Slab
from streamgen.records import Columns, Floats, TopicPartition
from streamgen.windows import Clock, Ticks

ME = Learner(seed=0, topic="t", key="k")
T = 8
FULL = {"preset": "full", "reservoir": 5, "updates": 2, "batch": 4}


def made(D: int = 2, stride: int | None = None, **settings: object) -> tuple[RVAE, Slab]:
    given = {"name": "rvae", "hidden": 8, "latent": 2, "components": 2, **settings}
    model = RVAE(Settings(**given), D, WindowConfig(length=T, stride=stride), "cpu")  # type: ignore[arg-type]
    slab = Slab({**model.fields(), **Clock.FIELDS})
    model.start(slab, slab.add(), ME)
    return model, slab


def ticks_of(slab: Slab, count: int, start: int = 0) -> Ticks:
    row_N = np.zeros(count, dtype=np.int64)
    return Clock(WindowConfig()).advance(slab, row_N, (start + np.arange(count)) * 60_000)


def run(model: RVAE, slab: Slab, value_ND: Floats, start: int = 0) -> Scores:
    row_N = np.zeros(len(value_ND), dtype=np.int64)
    return model.run(slab, row_N, value_ND, ticks_of(slab, len(value_ND), start), [ME])


def walk(N: int, D: int = 2, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(N, D)).cumsum(0)


def sine(N: int, noise: float = 0.02) -> Floats:
    return (np.sin(np.arange(N) / 3) + noise * np.random.default_rng(0).normal(size=N))[:, None]


def full_task() -> Task:
    config = InputConfig(
        topic="t", model={"name": "rvae", "hidden": 4, "latent": 2, **FULL}, window={"length": T, "stride": 2}
    )
    return Task(TopicPartition("t", 0), config, ("a", "b"), 0, "cpu")


def columns(value_ND: Floats, key: list[str | None], first: int = 0) -> Columns:
    offset_N = np.arange(first, first + len(value_ND))
    return Columns(offset_N, offset_N * 60_000, key, value_ND, np.arange(len(value_ND)))


def test_full_batches_neighbours_and_a_restore_change_no_bit() -> None:
    """Beside the conformance suite: a window every other record, and values that are missing."""
    value_ND = np.repeat(walk(150), 2, axis=0)
    value_ND[::14, 1] = np.nan
    value_ND[1::2] += np.random.default_rng(3).normal(size=(150, 2))
    key: list[str | None] = ["k", "other"] * 150
    whole = full_task()
    expected = whole.process(columns(value_ND, key)).scores.surprise_NS.tobytes()
    first, second, parts = full_task(), full_task(), []
    for n in range(0, 300, 7):
        if n == 147:
            second.restore(first.snapshot(n).facts, first.learners())
        part = columns(value_ND[n : n + 7], key[n : n + 7], n)
        parts.append((first if n < 147 else second).process(part).scores.surprise_NS)
    assert np.concatenate(parts).tobytes() == expected
    alone = full_task()
    mine = [n for n in range(300) if key[n] == "k"]
    # The neighbour's offsets leave gaps, and the event times are the same.
    batch = Columns(np.array(mine), np.array(mine) * 60_000, ["k"] * 150, value_ND[mine], np.arange(150))
    alone.process(batch)
    left, right = whole.learners()["k"], alone.learners()["k"]
    assert all(left[name].tobytes() == right[name].tobytes() for name in left)


def test_the_reservoir_is_algorithm_r() -> None:
    model, slab = made(D=1, stride=1, **FULL)
    value_N1 = np.arange(40.0)[:, None]
    run(model, slab, value_N1)
    kept: list[int] = []
    for n in range(1, 40 - T + 2):
        if n <= 5:
            kept.append(n)
        else:
            slot = generator(0, "t", "k", "rvae.keep", n).integers(n)
            if slot < 5:
                kept[slot] = n
    assert slab.host("windows")[0] == 33
    assert slab.host("kept_value_RTD")[0, :, 0, 0].tolist() == [n - 1.0 for n in kept]
    assert max(kept) > 5
    assert (np.diff(slab.host("kept_value_RTD")[0, :, :, 0], axis=1) == 1).all()


def test_a_score_is_what_the_record_adds_to_the_windows_nll() -> None:
    """By the teacher-forced likelihood of the window with and without the record."""
    model, slab = made()
    value_ND = walk(60)
    run(model, slab, value_ND[:59])
    now = Axes.of(slab, 0, "whitening", compressed)
    network = model._network(slab.tensor("weights_P")[0], now, slab.host("stretch_D")[0].copy())
    ticks = ticks_of(Slab(Clock.FIELDS), 60)  # the times of all sixty
    seen_TD, time_TC = np.ones((T, 2), dtype=np.bool_), ticks.time_NC[52:60]
    input_TI = now.window(value_ND[52:60], seen_TD, time_TC)
    blind_ND, blind_TD = value_ND[52:60].copy(), seen_TD.copy()
    blind_ND[-1], blind_TD[-1] = value_ND[58], False
    z_1Z, _ = network.encode(torch.from_numpy(now.window(blind_ND, blind_TD, time_TC))[None])
    target_TD, known_TD = now.targets(value_ND[52:60], seen_TD)

    def nll(t: int) -> float:
        parts = (torch.from_numpy(part[:t])[None] for part in (input_TI, input_TI, target_TD, known_TD))
        with torch.no_grad():
            return float(network.nll(Windows(*parts), z_1Z))

    assert run(model, slab, value_ND[59:], 59).nll_N[0] == pytest.approx(nll(T) - nll(T - 1), rel=1e-5)


def test_behind_a_gap_the_nll_is_still_of_steps() -> None:
    """A first record is judged by its level; another unit of levels must not change what it is worth."""
    model, slab = made()
    run(model, slab, walk(60))
    slab.host("window_fill")[0] = 0
    now = Axes.of(slab, 0, "whitening", compressed)
    record_D = now.mean_D + 0.3 * now.unit_D
    scores = Scores.empty(1, 2, 3)
    with torch.inference_mode():
        model._score(slab, 0, record_D, np.zeros(7, dtype=np.float32), scores, 0)
        first = model._network(slab.tensor("weights_P")[0], now).first(torch.zeros(1, 2), torch.zeros(1, 7))
        levels = float(
            first.nll(torch.full((1, 2), 0.3, dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool))
        )
    assert scores.nll_N[0] == pytest.approx(levels + np.log(now.unit_D / now.delta_D).sum(), rel=1e-6)
    assert scores.contribution_ND[0].sum() == pytest.approx(scores.nll_N[0])


def test_units_do_not_matter() -> None:
    """Powers of two, so that there is nothing to round."""
    one, other = (run(*made(), walk(200) * unit).nll_N for unit in (1.0, 2.0**20))
    np.testing.assert_allclose(one[1:], other[1:], rtol=1e-3, atol=1e-3)


def test_contributions_add_up_and_name_the_feature_that_did_it() -> None:
    value_ND = walk(200, 3)
    value_ND[50:60, 1] = np.nan
    value_ND[199, 2] += 50.0
    scores = run(*made(D=3), value_ND)
    np.testing.assert_allclose(scores.contribution_ND.sum(1)[1:], scores.nll_N[1:], rtol=1e-6, atol=1e-9)
    assert (scores.contribution_ND[50:60, 1] == 0).all()
    assert scores.contribution_ND[199].argmax() == 2


def test_a_missing_value_is_expected_from_the_columns_that_move_with_it() -> None:
    value_ND = np.repeat(walk(600, 1), 2, axis=1)
    model, slab = made(stride=2)
    run(model, slab, value_ND)
    record_D = value_ND[-1] + [5.0, np.nan]
    scores = run(model, slab, record_D[None], 600)
    assert scores.expected_ND[0, 1] == pytest.approx(record_D[0], abs=0.05)


def test_columns_that_are_equal_are_generated_equal() -> None:
    value_ND = np.repeat(walk(800, 1), 3, axis=1) * [1.0, 1.0, -100.0]
    model, slab = made(D=3, stride=4)
    run(model, slab, value_ND)
    for drawn in (model.generate(slab, 0, ME, 40, 5, 0), model.sequences(slab, 0, ME).sample(T, 5, 0)):
        spread = drawn[..., 0].std()
        assert spread > 0.1
        assert np.abs(drawn[..., 0] - drawn[..., 1]).max() < 0.02 * spread
        assert np.abs(drawn[..., 0] + drawn[..., 2] / 100).max() < 0.02 * spread


@pytest.mark.parametrize("preset", [{}, FULL], ids=["light", "full"])
def test_nothing_from_the_prior_leaves_what_was_seen(preset: dict[str, object]) -> None:
    value_ND = np.random.default_rng(0).standard_t(2, size=(300, 2))  # tails that no sample exhausts
    model, slab = made(**preset)
    run(model, slab, value_ND)
    drawn_BTD = model.sequences(slab, 0, ME).sample(T, 300, 0)
    assert (drawn_BTD >= value_ND.min(0) - 1e-6).all()
    assert (drawn_BTD <= value_ND.max(0) + 1e-6).all()
    step_ND, drawn_step = np.diff(value_ND, axis=0), np.diff(drawn_BTD, axis=1)
    assert (drawn_step >= step_ND.min(0) - 1e-6).all()
    assert (drawn_step <= step_ND.max(0) + 1e-6).all()


def test_what_goes_on_may_come_to_where_the_stream_never_was() -> None:
    value_ND = np.arange(400.0)[:, None] + 0.1 * np.random.default_rng(0).normal(size=(400, 1))
    model, slab = made(D=1, **FULL)
    run(model, slab, value_ND)
    drawn_BTD = model.generate(slab, 0, ME, 20, 50, 0)
    assert drawn_BTD[:, -1].min() > value_ND.max()
    assert np.diff(drawn_BTD, axis=1).max() <= np.diff(value_ND, axis=0).max() + 1e-6


def test_from_the_prior_each_goes_on_from_a_record_that_was_kept() -> None:
    """The stream is at three levels, a quarter, a quarter and half of the time; no network could know them
    after so few updates."""
    level_N = np.repeat([0.0, 1000.0, 50.0, 50.0], 400)
    value_ND = (level_N + np.random.default_rng(0).normal(size=1600))[:, None]
    model, slab = made(D=1, preset="full", reservoir=400, updates=1, batch=4)
    run(model, slab, value_ND)
    first_B = model.sequences(slab, 0, ME).sample(T, 1000, 0)[:, 0, 0]
    shares = [(np.abs(first_B - level) < 20).mean() for level in (0.0, 1000.0, 50.0)]
    assert shares == pytest.approx([0.25, 0.25, 0.5], abs=0.1)
    # Goes on: it is not the record itself (what leaves the stream's range is put at its end).
    assert np.isin(first_B, value_ND).mean() < 0.05


def test_ahead_of_the_stream_the_prior_knows_the_hour() -> None:
    minute_N = np.arange(0, 3 * 1440, 10)
    value_ND = (50 * np.cos(2 * np.pi * minute_N / 1440) + np.random.default_rng(0).normal(size=432))[:, None]
    model, slab = made(D=1, preset="full", reservoir=400, updates=1, batch=4, stride=1)
    ticks = Clock(WindowConfig()).advance(slab, np.zeros(432, dtype=np.int64), minute_N * 60_000)
    model.run(slab, np.zeros(432, dtype=np.int64), value_ND, ticks, [ME])
    ahead_B, any_B = (
        model.sequences(slab, 0, ME).sample(1, 300, 0, ahead=ahead)[:, 0, 0] for ahead in (True, False)
    )
    assert ahead_B.mean() > 30  # the newest record is of midnight, when it is at 50
    assert abs(any_B.mean()) < 10


def test_what_holds_half_of_the_time_is_generated_so() -> None:
    """Sensors that report on change, each by itself: no component of all features at once could say it."""
    rng = np.random.default_rng(0)
    value_ND = (rng.normal(size=(1500, 3)) * (rng.random((1500, 3)) < 0.5)).cumsum(0)
    shares = {}
    for joint in (0, 32):
        model, slab = made(D=3, preset="full", reservoir=200, updates=1, batch=32, stride=2, joint=joint)
        run(model, slab, value_ND)
        step = np.abs(np.diff(model.sequences(slab, 0, ME).sample(T, 300, 0), axis=1))
        shares[joint] = (step < 0.02).mean((0, 1))
    assert shares[32] == pytest.approx(0.5, abs=0.15)
    assert (shares[0] < 0.3).all()


def test_z_of_a_record_to_go_on_from_is_drawn_from_its_posterior() -> None:
    """Of one dimension, against the integral over a grid."""
    model, slab = made(D=1, latent=1, components=1)
    run(model, slab, sine(40))
    slab.tensor("average_P")[0] += 0.5 * torch.randn(
        model.shape.size, generator=torch.Generator().manual_seed(0)
    )
    sequences = model.sequences(slab, 0, ME)
    network, now = sequences.network(stretched=False), sequences.now
    value_BD, time_BC = np.full((4000, 1), 0.9), np.zeros((4000, 7), dtype=np.float32)
    seen_BD = np.ones((4000, 1), dtype=np.bool_)
    with torch.inference_mode():
        grid_GZ = torch.linspace(-5, 5, 4000)[:, None]
        level_GD = torch.from_numpy(now.level(value_BD))
        nll_G = network.first(grid_GZ, torch.from_numpy(time_BC)).nll(level_GD, torch.from_numpy(seen_BD))
        z_BZ = sequences._given_first(network, value_BD, seen_BD, time_BC, np.random.default_rng(0))
    share_G = torch.softmax(-nll_G.double() - grid_GZ[:, 0].double() ** 2 / 2, 0)
    mean = float((share_G * grid_GZ[:, 0]).sum())
    deviation = float((share_G * (grid_GZ[:, 0] - mean) ** 2).sum() ** 0.5)
    assert abs(mean) > 0.2 or abs(deviation - 1) > 0.2  # the record says something of z
    assert float(z_BZ.mean()) == pytest.approx(mean, abs=0.1)
    assert float(z_BZ.std()) == pytest.approx(deviation, abs=0.1)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + 1e9,
        lambda x: np.concatenate([x[:150], 1000 * x[150:]]),
        lambda x: np.where([False, True], 3.5, x),
        lambda x: np.where([False, True], np.nan, x),
        lambda x: np.where(np.arange(300)[:, None] % 50 == 49, x * 1e300, x),
    ],
    ids=["offset", "jump", "constant", "all missing", "huge"],
)
def test_what_a_stream_may_be(change) -> None:  # type: ignore[no-untyped-def]
    model, slab = made(**FULL)
    value_ND = change(walk(300))
    scores = run(model, slab, value_ND)
    assert not scores.skipped
    assert np.isfinite(scores.nll_N[1:]).all()
    assert torch.isfinite(slab.tensor("weights_P")[0]).all()
    window_TD = value_ND[-T:]
    for drawn in (
        model.generate(slab, 0, ME, 20, 3, 0),
        model.sequences(slab, 0, ME).sample(T, 3, 0),
        model.sequences(slab, 0, ME).reconstruct(window_TD),
        model.sequences(slab, 0, ME).impute(window_TD),
    ):
        assert np.isfinite(drawn).all()


def test_a_column_that_never_moves_is_generated_still() -> None:
    value_ND = np.where([False, True], 3.5, walk(300))
    model, slab = made()
    run(model, slab, value_ND)
    assert np.abs(model.sequences(slab, 0, ME).sample(T, 20, 0)[..., 1] - 3.5).max() < 1e-3


def test_a_gradient_that_is_not_finite_skips_the_update() -> None:
    model, slab = made(D=1)
    run(model, slab, walk(T - 1, 1))
    slab.host("window_time_TC")[0, 3] = np.inf
    fields = ("weights_P", "first_P", "average_P")
    before = [slab.tensor(name)[0].clone() for name in fields]
    scores = run(model, slab, np.array([[0.5]]), start=T - 1)
    assert (scores.skipped, scores.loss) == ([0], [])
    assert all(torch.equal(slab.tensor(name)[0], old) for name, old in zip(fields, before, strict=True))
    assert (slab.host("updates")[0], slab.host("draws")[0]) == (0, 1)


@pytest.mark.parametrize(("stride", "losses"), [(None, 3), (1, 18), (3, 6)])
def test_windows_are_learned_every_stride(stride: int | None, losses: int) -> None:
    assert len(run(*made(stride=stride), walk(25)).loss) == losses


@pytest.mark.parametrize(
    "changed",
    [
        {"preset": "light"}, {"hidden": 9}, {"layers": 2}, {"dense": 4}, {"activation": "relu"},
        {"activation": "leaky_relu"}, {"activation": "silu"}, {"latent": 3}, {"components": 3}, {"dof": 5.0},
        {"learning_rate": 0.01},
        {"optimizer": "sgd"}, {"schedule": "warmup"}, {"schedule": "warmup", "warm_up": 3},
        {"clip_norm": 0.1}, {"clip_norm": None}, {"kl_weight": 3.0}, {"kl_annealing": 3}, {"free_bits": 0.5},
        {"ema": 0.1},
        {"normalisation": "minmax"}, {"normalisation": "robust"}, {"reservoir": 2}, {"reservoir": 0},
        {"updates": 1},
        {"batch": 3},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_something(changed: dict[str, object]) -> None:
    def drawn(**settings: object) -> bytes:
        model, slab = made(stride=2, **{**FULL, **settings})
        run(model, slab, walk(60))
        return model.generate(slab, 0, ME, 3, 1, 0).tobytes()

    assert drawn(**changed) != drawn()
    assert drawn() == drawn()


def test_the_average_is_of_the_weights_and_forgets_the_first() -> None:
    model, slab = made(stride=1, ema=0.9)
    average_P = slab.tensor("weights_P")[0].clone()
    value_ND = walk(T + 30)
    for n in range(len(value_ND)):
        if run(model, slab, value_ND[n : n + 1], n).loss:
            u = n - T + 2
            decay = min(0.9, u / (10 + u))
            average_P = decay * average_P + (1 - decay) * slab.tensor("weights_P")[0]
    torch.testing.assert_close(slab.tensor("average_P")[0], average_P)


@pytest.fixture(scope="module")
def learned() -> tuple[RVAE, Slab, Floats, Scores]:
    """A sine of 19 records, learned long enough to know it; the latent may say three nats."""
    settings = {"reservoir": 1024, "updates": 1, "batch": 8, "free_bits": 1.5, "learning_rate": 0.01}
    model, slab = made(D=1, stride=2, preset="full", **settings)
    value_ND = 10 + sine(1500)
    return model, slab, value_ND, run(model, slab, value_ND)


def test_it_learns_a_sine_far_better_than_the_last_value(learned) -> None:  # type: ignore[no-untyped-def]
    _, _, value_ND, scores = learned
    late = slice(1000, None)
    error = np.abs(scores.expected_ND[late, 0] - value_ND[late, 0]).mean()
    assert error < 0.4 * np.abs(np.diff(value_ND[999:, 0])).mean()
    inside = (value_ND[late] >= scores.low_ND[late]) & (value_ND[late] <= scores.high_ND[late])
    assert 0.8 < inside.mean() < 0.99  # an interval said to cover 90 %


def test_sequences_are_a_function_of_the_seed_and_have_the_streams_spread(learned) -> None:  # type: ignore[no-untyped-def]
    model, slab, value_ND, _ = learned
    for draw in (partial(model.generate, slab, 0, ME), model.sequences(slab, 0, ME).sample):
        drawn = draw(20, 50, 3)
        assert drawn.shape == (50, 20, 1)
        assert np.array_equal(drawn, draw(20, 50, 3))
        assert not np.array_equal(drawn, draw(20, 50, 4))
        assert not np.array_equal(drawn[0], drawn[1])
        assert abs(np.median(drawn) - 10) < 0.5
        assert 0.7 < drawn.std() / value_ND.std() < 1.4


def test_generation_goes_on_from_the_last_record(learned) -> None:  # type: ignore[no-untyped-def]
    model, slab, _, _ = learned
    drawn = model.generate(slab, 0, ME, 12, 200, 0)
    true_T = 10 + np.sin(np.arange(1500, 1512) / 3)
    assert np.abs(np.median(drawn[:, :, 0], 0) - true_T).max() < 0.35
    sampled = model.sequences(slab, 0, ME).sample(12, 200, 0)
    assert sampled[:, 0].std() > 3 * drawn[:, 0].std()  # from the prior: at any phase


def test_reconstruction_knows_the_window(learned) -> None:  # type: ignore[no-untyped-def]
    model, slab, value_ND, _ = learned
    errors = {
        shift: np.mean(
            [
                np.abs(
                    model.sequences(slab, 0, ME).reconstruct(value_ND[n : n + T])
                    - value_ND[n + shift : n + shift + T]
                )
                for n in range(1400, 1440)
            ]
        )
        for shift in (0, 9)
    }
    assert errors[0] < 0.5 * errors[9]


def test_interpolation_goes_from_one_reconstruction_to_the_other(learned) -> None:  # type: ignore[no-untyped-def]
    model, slab, value_ND, _ = learned
    one, other = value_ND[1400 : 1400 + T], value_ND[1405 : 1405 + T]
    path = model.sequences(slab, 0, ME).interpolate(one, other, 5)
    assert path.shape == (5, T, 1)
    np.testing.assert_allclose(path[0], model.sequences(slab, 0, ME).reconstruct(one), rtol=1e-4)
    np.testing.assert_allclose(path[-1], model.sequences(slab, 0, ME).reconstruct(other), rtol=1e-4)
    steps = np.abs(np.diff(path, axis=0)).mean((1, 2))
    assert (steps > 0.001).all()
    assert steps.sum() > 0.5


def test_imputation_keeps_what_is_there_and_fills_the_rest(learned) -> None:  # type: ignore[no-untyped-def]
    model, slab, value_ND, _ = learned
    ours, last = [], []
    for n in range(1400, 1440):
        window_TD = value_ND[n : n + T].copy()
        window_TD[3:6] = np.nan
        filled_TD = model.sequences(slab, 0, ME).impute(window_TD)
        there_TD = ~np.isnan(window_TD)
        assert np.array_equal(filled_TD[there_TD], window_TD[there_TD])
        ours.append(np.abs(filled_TD - value_ND[n : n + T])[3:6].mean())
        last.append(np.abs(window_TD[2] - value_ND[n : n + T])[3:6].mean())
    assert np.mean(ours) < 0.4 * np.mean(last)


def test_every_kind_has_the_decimals_of_the_stream() -> None:
    model, slab = made()
    run(model, slab, np.round(walk(80), 1))
    given_TD = np.full((5, 2), np.nan)
    given_TD[:, 1] = 0.125  # what is given stays as it is
    for kind in ("continue", "prior", "impute", "what-if"):
        known_TD = given_TD if kind in ("impute", "what-if") else None
        drawn = model.generate(slab, 0, ME, 5, 1, 0, kind, known_TD)
        assert np.array_equal(drawn[..., 0], np.round(drawn[..., 0], 1)), kind
        assert known_TD is None or (drawn[..., 1] == 0.125).all()


def test_what_is_free_beside_what_is_fixed_is_in_order_with_it_and_moves_as_the_stream_does() -> None:
    model, slab = made()
    rng = np.random.default_rng(0)
    low_N = rng.normal(size=320).cumsum()
    value_ND = np.stack([low_N, low_N + rng.exponential(size=320)], 1)
    run(model, slab, value_ND)
    given_TD = np.full((8, 2), np.nan)
    given_TD[:, 0] = value_ND[-1, 0]
    drawn_BTD = model.generate(slab, 0, ME, 8, 200, 0, "what-if", given_TD)
    assert (drawn_BTD[..., 0] == value_ND[-1, 0]).all()
    assert (drawn_BTD[..., 1] >= drawn_BTD[..., 0] - 1e-9).all()
    step_BTD, step_N = np.diff(drawn_BTD, axis=1), np.diff(value_ND[:, 1])
    moved_BT = drawn_BTD[:, 1:, 1] > drawn_BTD[:, 1:, 0] + 1e-9  # not only lifted to be in order
    assert step_BTD[..., 1][moved_BT].min() >= step_N.min() - 1e-9
    assert step_BTD[..., 1][moved_BT].max() <= step_N.max() + 1e-9


def test_bytes_of_a_learner_are_bounded_by_the_settings() -> None:
    """Weights, moments and averages; windows of 8 + 1 bytes a value and 4 a time feature; the axes."""
    light, full, joint = made()[1], made(**FULL, joint=0)[1], made(**FULL, joint=16)[1]
    window = T * (2 * 9 + 7 * 4)
    assert full.bytes_per_learner - light.bytes_per_learner == 5 * (window + 8) + 8
    # Of the record, the state, z and last steps; of three views of two features; of 2 × 54 outputs.
    assert joint.bytes_per_learner - full.bytes_per_learner == pytest.approx(
        4 * 4 * 16 * (8 + 3 * 2 + 2 + 6 + 1 + 108), rel=0.1
    )
    weights = (
        4
        * 4
        * RVAE(Settings(name="rvae", hidden=8, latent=2, components=2), 2, WindowConfig(), "cpu").shape.size
    )
    assert light.bytes_per_learner - weights - window < 500


@pytest.fixture
def learned_from(monkeypatch: pytest.MonkeyPatch) -> list[Windows]:
    """The minibatch of each update from here on."""
    taken: list[Windows] = []
    bound = SequenceVAE.loss

    def loss(self: SequenceVAE, windows: Windows, *rest: object) -> torch.Tensor:
        taken.append(windows)
        return bound(self, windows, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(SequenceVAE, "loss", loss)
    return taken


def test_training_hides_the_newest_records_from_the_encoder_alone(learned_from: list[Windows]) -> None:
    """None to a quarter of them (T = 8: two); the decoder and the likelihood see all."""
    model, slab = made(stride=1)
    run(model, slab, walk(T + 60))
    counts = []
    for one in learned_from:
        shown_T = one.hidden_BTI[0, :, 4] == 1  # the mask
        count = int((~shown_T).sum())
        counts.append(count)
        assert torch.equal(one.hidden_BTI[:, shown_T], one.input_BTI[:, shown_T])
        assert not count or bool((~shown_T[-count:]).all())
        last_level = one.input_BTI[0, T - count - 1, :2]
        assert (one.hidden_BTI[0, T - count :, :2] == last_level).all()
        assert (one.hidden_BTI[0, T - count :, 2:6] == 0).all()  # no step, no mask
        assert torch.equal(one.hidden_BTI[..., 6:], one.input_BTI[..., 6:])  # times are known
        assert one.seen_BTD.all()
        assert (one.input_BTI[..., 4:6] == 1).all()
    assert set(counts) == {0, 1, 2}


def test_the_density_of_whole_records_learns_from_those_alone(learned_from: list[Windows]) -> None:
    """A third of all steps is drawn; of these it has those of which no value is missing. Here none is at
    first, and the rest of the loss is learned all the same."""
    model, slab = made(stride=1, joint=4, **FULL)  # type: ignore[arg-type]
    value_ND = walk(80)
    value_ND[:20, 1] = value_ND[30::3, 0] = np.nan
    run(model, slab, value_ND)
    counts = []
    for one in learned_from:
        assert one.whole is not None
        b_M, t_M = np.divmod(one.whole.index_M.numpy(), T - 1)
        assert one.seen_BTD[b_M, t_M + 1].all()
        steps = len(one.seen_BTD) * (T - 1)
        assert one.whole.share == np.ceil(steps * 0.333) / steps
        counts.append(len(b_M))
    assert counts[0] == 0
    assert max(counts) > 0
    assert slab.host("updates")[0] == len(learned_from)


def test_a_features_first_value_is_not_judged_and_spoils_nothing() -> None:
    value_ND = walk(60)
    value_ND[:40, 1] = np.nan
    scores = run(*made(), value_ND)
    assert np.isnan(scores.nll_N[0])
    assert (scores.contribution_ND[0] == 0).all()
    assert np.isfinite(scores.nll_N[1:]).all()
    assert np.isnan(scores.expected_ND[:41, 1]).all()
    assert scores.contribution_ND[40, 1] == 0
    assert scores.contribution_ND[41, 1] != 0
    assert np.isfinite(scores.expected_ND[41:]).all()
