"""What `stream_ae` promises as a learner with `preset: full`; its equations have a file of their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamgen.config import WindowConfig
from streamgen.models.axes import Axes, bounded
from streamgen.models.noise import generator
from streamgen.models.online import Learner, Scores
from streamgen.models.slab import Slab
from streamgen.models.stream_ae import Settings
from streamgen.models.stream_ae_full import StreamAEFull, _window_inputs
from streamgen.records import Floats
from streamgen.windows import Clock

ME = Learner(seed=0, topic="t", key="k")
T, BURN = 8, 4
S = T + BURN


def made(D: int = 2, stride: int | None = None, **settings: object) -> tuple[StreamAEFull, Slab]:
    given = {
        "preset": "full", "hidden": 8, "components": 2, "burn_in": BURN, "reservoir": 5, "batch": 4,
        **settings,
    }  # fmt: skip
    model = StreamAEFull(Settings(**given), D, WindowConfig(length=T, stride=stride), "cpu")  # type: ignore[arg-type]
    slab = Slab({**model.fields(), **Clock.FIELDS})
    model.start(slab, slab.add(), ME)
    return model, slab


def run(model: StreamAEFull, slab: Slab, value_ND: Floats, start: int = 0, gap: int = 0) -> Scores:
    row_N = np.zeros(len(value_ND), dtype=np.int64)
    time_N = (start + np.arange(len(value_ND))) * 60_000 + gap
    ticks = Clock(WindowConfig(max_gap="1h")).advance(slab, row_N, time_N)  # type: ignore[arg-type]
    return model.run(slab, row_N, value_ND, ticks, [ME])


def walk(N: int, D: int = 2, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(size=(N, D)).cumsum(0)


def test_the_reservoir_keeps_whole_windows_by_algorithm_r() -> None:
    model, slab = made(D=1, stride=1)
    run(model, slab, np.arange(40.0)[:, None])
    kept: list[int] = []
    for n in range(1, 40 - S + 2):
        if n <= 5:
            kept.append(n)
        else:
            slot = generator(0, "t", "k", "stream_ae.keep", n).integers(n)
            if slot < 5:
                kept[slot] = n
    assert slab.host("windows")[0] == 29
    assert slab.host("kept_value_RSD")[0, :, 0, 0].tolist() == [n - 1.0 for n in kept]
    assert max(kept) > 5
    assert (np.diff(slab.host("kept_value_RSD")[0, :, :, 0], axis=1) == 1).all()
    assert slab.host("kept_state_RSH").shape[1:] == (5, S, 8)


@pytest.mark.parametrize(("stride", "losses"), [(None, 3), (1, 18), (3, 6)])
def test_windows_are_learned_every_stride(stride: int | None, losses: int) -> None:
    """The first when it has its burn-in; each brings two updates."""
    assert len(run(*made(stride=stride), walk(S + 17)).loss) == 2 * losses


def test_the_carried_state_is_what_the_newest_weights_say_of_the_window() -> None:
    model, slab = made(stride=2)
    value_ND = walk(60)
    run(model, slab, value_ND)
    raw = model.windowed.records(slab, 0)
    now = Axes.of(slab, 0, "whitening", bounded)
    network = model._network(slab.tensor("weights_P")[0], now)
    input_1SI = torch.from_numpy(_window_inputs(now, *raw[:4]))
    with torch.no_grad():
        state_SH = network.carry(input_1SI, torch.from_numpy(raw[4][:, 0]))[0]
    torch.testing.assert_close(slab.tensor("state_1H")[0], state_SH[-1:])
    np.testing.assert_allclose(raw[4][0, 1:], state_SH[:-1].numpy(), atol=1e-6)
    # And the windows are the newest records.
    assert np.array_equal(raw[0][0], value_ND[-S:])


def test_a_state_is_carried_over_a_gap_that_no_window_spans() -> None:
    model, slab = made()
    run(model, slab, walk(30))
    before = slab.tensor("state_1H")[0].clone()
    scores = run(model, slab, walk(31)[30:], 30, gap=86_400_000)
    assert slab.host("window_fill")[0] == 1
    np.testing.assert_array_equal(slab.host("window_state_SH")[0, 0], before[0].numpy())
    assert np.isfinite(scores.nll_N).all()
    assert np.isfinite(model.generate(slab, 0, ME, 5, 2, 0)).all()


def test_burn_in_renews_a_state_without_a_gradient() -> None:
    """A window's first records and the stored state change what is learned, through the state alone."""
    model, slab = made()
    run(model, slab, walk(S))
    windows_B = model.windowed.reservoir.batch(slab, 0, 2, np.random.default_rng(0))
    loss, _ = model.loss_and_gradient(slab, 0, windows_B)
    for part, change in ((0, 1.0), (4, 1.0)):
        other = [one.copy() for one in windows_B]
        other[part][:, 0] += change
        assert model.loss_and_gradient(slab, 0, tuple(other))[0] != pytest.approx(loss, abs=1e-9)
    # The states of later records are not looked at: they are led to.
    other = [one.copy() for one in windows_B]
    other[4][:, 1:] += 1.0
    assert model.loss_and_gradient(slab, 0, tuple(other))[0] == loss


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden": 9}, {"layers": 2}, {"dense": 4}, {"activation": "silu"}, {"components": 3}, {"dof": 5.0},
        {"learning_rate": 0.01}, {"clip_norm": 0.1}, {"reservoir": 0},
        {"burn_in": 3}, {"ema": 0.1}, {"reservoir": 2}, {"updates": 1}, {"batch": 3},
        {"optimizer": "momentum"}, {"schedule": "inverse_sqrt"}, {"normalisation": "standard"},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_something(changed: dict[str, object]) -> None:
    def drawn(**settings: object) -> bytes:
        model, slab = made(stride=2, **settings)
        run(model, slab, walk(60))
        return model.generate(slab, 0, ME, 3, 1, 0).tobytes()

    assert drawn(**changed) != drawn()
    assert drawn() == drawn()


def test_spreads_follow_steps_that_grow() -> None:
    """Ten times as large from one record on: soon the intervals are right again, long before δ is."""
    rng = np.random.default_rng(0)
    step_N = rng.normal(size=1200) * np.where((np.arange(1200) // 100) % 2, 10.0, 1.0)
    model, slab = made(D=1, stride=4, reservoir=200, batch=8, learning_rate=0.01)
    value_ND = step_N.cumsum()[:, None]
    scores = run(model, slab, value_ND)
    inside_N = ((value_ND >= scores.low_ND) & (value_ND <= scores.high_ND))[:, 0]
    width_N = (scores.high_ND - scores.low_ND)[:, 0]
    loud, calm = (np.concatenate([np.arange(n + 40, n + 100) for n in starts]) for starts in
                  ((700, 900, 1100), (600, 800, 1000)))  # fmt: skip
    for part in (loud, calm):
        assert 0.75 < inside_N[part].mean() < 0.99
    assert width_N[loud].mean() > 4 * width_N[calm].mean()


def test_a_missing_value_is_expected_from_the_columns_that_move_with_it() -> None:
    value_ND = np.repeat(walk(600, 1), 2, axis=1)
    model, slab = made(stride=4)
    run(model, slab, value_ND)
    record_D = value_ND[-1] + [5.0, np.nan]
    scores = run(model, slab, record_D[None], 600)
    assert scores.expected_ND[0, 1] == pytest.approx(record_D[0], abs=0.05)


def test_columns_that_are_equal_are_generated_equal() -> None:
    value_ND = np.repeat(walk(800, 1), 3, axis=1) * [1.0, 1.0, -100.0]
    model, slab = made(D=3, stride=4)
    run(model, slab, value_ND)
    drawn = model.generate(slab, 0, ME, 40, 5, 0)
    spread = drawn[..., 0].std()
    assert spread > 0.1
    assert np.abs(drawn[..., 0] - drawn[..., 1]).max() < 0.02 * spread
    assert np.abs(drawn[..., 0] + drawn[..., 2] / 100).max() < 0.02 * spread


def test_it_learns_a_sine_and_goes_on_with_it() -> None:
    rng = np.random.default_rng(0)
    value_ND = 10 + (np.sin(np.arange(1512) / 3) + 0.02 * rng.normal(size=1512))[:, None]
    model, slab = made(D=1, stride=2, reservoir=200, batch=8, learning_rate=0.01, hidden=16)
    scores = run(model, slab, value_ND[:1500])
    late = slice(1000, 1500)
    error = np.abs(scores.expected_ND[late, 0] - value_ND[late, 0]).mean()
    assert error < 0.3 * np.abs(np.diff(value_ND[999:1500, 0])).mean()
    inside_N = (value_ND[late] >= scores.low_ND[late]) & (value_ND[late] <= scores.high_ND[late])
    assert 0.85 < inside_N.mean() < 0.95  # an interval said to cover 90 %
    drawn = model.generate(slab, 0, ME, 12, 200, 0)
    assert np.abs(np.median(drawn[:, :, 0], 0) - value_ND[1500:, 0]).max() < 0.3
    assert np.array_equal(drawn, model.generate(slab, 0, ME, 12, 200, 0))
    assert not np.array_equal(drawn, model.generate(slab, 0, ME, 12, 200, 1))


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
@pytest.mark.parametrize("normalisation", ["none", "minmax", "standard", "robust", "whitening"])
def test_what_a_stream_may_be(change, normalisation: str) -> None:  # type: ignore[no-untyped-def]
    model, slab = made(normalisation=normalisation)
    scores = run(model, slab, change(walk(300)))
    assert not scores.skipped
    assert np.isfinite(scores.nll_N[1:]).all()
    np.testing.assert_allclose(scores.contribution_ND.sum(1)[1:], scores.nll_N[1:], rtol=1e-6, atol=1e-9)
    assert torch.isfinite(slab.tensor("weights_P")[0]).all()
    assert np.isfinite(model.generate(slab, 0, ME, 20, 3, 0)).all()


def test_a_gradient_that_is_not_finite_skips_the_update() -> None:
    model, slab = made(D=1)
    run(model, slab, walk(S - 1, 1))
    slab.host("window_time_SC")[0, 3] = np.inf
    before = [slab.tensor(name)[0].clone() for name in ("weights_P", "first_P", "average_P")]
    scores = run(model, slab, np.array([[0.5]]), start=S - 1)
    assert (scores.skipped, scores.loss) == ([0, 0], [])
    after = [slab.tensor(name)[0] for name in ("weights_P", "first_P", "average_P")]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert (slab.host("updates")[0], slab.host("draws")[0]) == (0, 2)


def test_bytes_of_a_learner_are_bounded_by_the_settings() -> None:
    """A kept window's record: 8 + 1 bytes a value, 8 its swing, 4 a time feature, 4 a hidden unit; and 8 for
    which window it is."""
    sizes = [made(reservoir=count)[1].bytes_per_learner for count in (5, 6)]
    assert sizes[1] - sizes[0] == S * (2 * 17 + 7 * 4 + 8 * 4) + 8


def test_from_the_prior_each_goes_on_from_a_window_that_was_kept() -> None:
    """Levels that no network could know after so few updates; none goes further than the stream ever did."""
    level_N = np.repeat([0.0, 1000.0, 50.0, 50.0], 400)
    value_ND = (level_N + np.random.default_rng(0).standard_t(2, size=1600))[:, None]
    model, slab = made(D=1, reservoir=400, updates=1)
    run(model, slab, value_ND)
    # All at the same hour: what is near in time is everything.
    slab.host("kept_time_RSC")[0] = 0.0
    drawn_BTD = model.generate(slab, 0, ME, T, 1000, 0, "prior")
    first_B = drawn_BTD[:, 0, 0]
    steady_B = np.abs(np.diff(drawn_BTD[:, :, 0], axis=1)).max(1) < 20
    shares = [(np.abs(first_B - level) < 20).mean() for level in (0.0, 1000.0, 50.0)]
    assert shares == pytest.approx([0.25, 0.25, 0.5], abs=0.1)
    assert steady_B.mean() > 0.5
    assert not np.isin(first_B, value_ND).any()
    assert value_ND.min() - 1e-6 <= drawn_BTD.min()
    assert drawn_BTD.max() <= value_ND.max() + 1e-6


def test_the_prior_is_of_the_hour_that_it_is() -> None:
    minute_N = np.arange(0, 3 * 1440, 10)
    value_ND = (50 * np.cos(2 * np.pi * minute_N / 1440) + np.random.default_rng(0).normal(size=432))[:, None]
    model, slab = made(D=1, stride=1, reservoir=400, updates=1)
    ticks = Clock(WindowConfig()).advance(slab, np.zeros(432, dtype=np.int64), minute_N * 60_000)
    model.run(slab, np.zeros(432, dtype=np.int64), value_ND, ticks, [ME])
    assert model.generate(slab, 0, ME, 1, 300, 0, "prior").mean() > 30  # of midnight, when it is at 50


def test_before_anything_is_kept_the_prior_goes_on_from_the_newest_record() -> None:
    model, slab = made()
    run(model, slab, walk(S - 2))
    assert "windows" in slab.fields
    assert slab.host("windows")[0] == 0
    assert np.isfinite(model.generate(slab, 0, ME, 5, 3, 0, "prior")).all()
