"""The streaming autoencoder's equations against torch's GRU, finite differences and its own promises."""

from unittest.mock import patch

import numpy as np
import pytest
import torch

from streamgen.config import WindowConfig
from streamgen.models.factor_t import likelihood
from streamgen.models.online import Kind, Learner, Scores
from streamgen.models.recurrent_t import Shape, carry, predict, step_gru, window_loss
from streamgen.models.scale import Scale
from streamgen.models.slab import Slab
from streamgen.models.stream_ae import Settings, StreamAE
from streamgen.records import Floats
from streamgen.windows import TIME_FEATURES, Clock

ME = Learner(seed=0, topic="t", key="k")


def made(D: int = 2, **settings: object) -> tuple[StreamAE, Slab]:
    model = StreamAE(Settings(**{"hidden": 8, **settings}), D, WindowConfig(length=8), "cpu")
    slab = Slab({**model.fields(), **Clock.FIELDS})
    model.start(slab, slab.add(), ME)
    return model, slab


def run(model: StreamAE, slab: Slab, value_ND: Floats, start: int = 0):
    row_N = np.zeros(len(value_ND), dtype=np.int64)
    ticks = Clock(WindowConfig()).advance(slab, row_N, (start + np.arange(len(value_ND))) * 60_000)
    return model.run(slab, row_N, value_ND, ticks, [ME])


def test_step_gru_is_torchs_gru() -> None:
    shape = Shape(D=2, H=5, K=1, C=TIME_FEATURES)
    w = shape.views(torch.randn(shape.size, dtype=torch.float64, generator=torch.manual_seed(0)))
    inputs = 3 * shape.D + shape.C
    oracle = torch.nn.GRUCell(inputs, 5, dtype=torch.float64)
    with torch.no_grad():
        oracle.weight_ih.copy_(w["gru_input_IG"].T)
        oracle.weight_hh.copy_(w["gru_hidden_HG"].T)
        oracle.bias_ih.copy_(w["gru_bias_G"])
        oracle.bias_hh.copy_(torch.cat([torch.zeros(10), w["gru_hidden_bias_H"]]))
    x_1I, h_1H = torch.randn(1, inputs, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    ours = step_gru(w, h_1H, x_1I @ w["gru_input_IG"] + w["gru_bias_G"])
    torch.testing.assert_close(ours, oracle(x_1I, h_1H))


def test_layers_are_torchs_one_on_the_other() -> None:
    shape = Shape(D=2, H=5, K=1, C=TIME_FEATURES, layers=2)
    w = shape.views(torch.randn(shape.size, dtype=torch.float64, generator=torch.manual_seed(0)))
    inputs = 3 * shape.D + shape.C
    oracle = torch.nn.GRU(inputs, 5, num_layers=2, dtype=torch.float64)
    with torch.no_grad():
        for n, layer in enumerate(("gru", "gru2")):
            of = {name: getattr(oracle, f"{name}_l{n}") for name in ("weight_ih", "weight_hh", "bias_ih")}
            of["weight_ih"].copy_(w[f"{layer}_input_IG"].T)
            of["weight_hh"].copy_(w[f"{layer}_hidden_HG"].T)
            of["bias_ih"].copy_(w[f"{layer}_bias_G"])
            hidden_bias_H = w[f"{layer}_hidden_bias_H"]
            getattr(oracle, f"bias_hh_l{n}").copy_(torch.cat([torch.zeros(10), hidden_bias_H]))
        x_TI, h_1S = torch.randn(4, inputs, dtype=torch.float64), torch.randn(1, 10, dtype=torch.float64)
        _, last_21H = oracle(x_TI[:, None], torch.stack(h_1S.split(5, 1)))
        for t in range(4):
            h_1S = carry(w, h_1S, x_TI[t : t + 1])
    torch.testing.assert_close(h_1S, torch.cat(list(last_21H), 1))


def test_the_loss_of_a_deep_window_is_the_mean_over_its_records() -> None:
    """Record by record, each from the states that were carried to it."""
    shape, T = Shape(D=2, H=4, K=2, C=TIME_FEATURES, layers=3, dense=5), 6
    gen = torch.Generator().manual_seed(1)

    def draw(*size: int) -> torch.Tensor:
        return 0.5 * torch.randn(*size, dtype=torch.float64, generator=gen)

    w, h_1S = shape.views(draw(shape.size)), draw(1, 12)
    skip_T2D, input_TI, target_TD = draw(T, 4), draw(T, 6 + TIME_FEATURES), draw(T, 2)
    seen_TD = torch.ones(T, 2, dtype=torch.float64)
    loss = window_loss(w, h_1S, skip_T2D, input_TI, target_TD, seen_TD, 4.0, "relu")
    total = 0.0
    for t in range(T):
        at = slice(t, t + 1)
        predicted = predict(w, h_1S, skip_T2D[at], input_TI[at, 6:], 4.0, "relu")
        total += float(likelihood(predicted, target_TD[at], seen_TD[at]).nll_B)
        h_1S = carry(w, h_1S, input_TI[at])
    assert float(loss) == pytest.approx(total / (2 * T), rel=1e-9)


@pytest.mark.parametrize(
    "changed",
    [
        {"preset": "paper"}, {"hidden": 9}, {"layers": 2}, {"dense": 4}, {"activation": "leaky_relu"},
        {"latent": 1}, {"dof": 5.0}, {"learning_rate": 0.01}, {"clip_norm": 0.1}, {"clip_norm": None},
        {"optimizer": "momentum"}, {"schedule": "inverse_sqrt"}, {"normalisation": "none"},
        {"normalisation": "minmax"}, {"normalisation": "standard"},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_changes_something(changed: dict[str, object]) -> None:
    def drawn(**settings: object) -> bytes:
        model, slab = made(**settings)
        run(model, slab, np.random.default_rng(0).normal(size=(60, 2)).cumsum(0))
        return model.generate(slab, 0, ME, 3, 1, 0).tobytes()

    assert drawn(**changed) != drawn()
    assert drawn() == drawn()


@pytest.mark.parametrize("normalisation", ["none", "minmax", "standard", "robust"])
def test_the_nll_is_a_density_of_steps_in_any_units(normalisation: str) -> None:
    """Over all that the next record could be, e^−nll integrates to one."""
    model, slab = made(D=1, normalisation=normalisation)
    value_ND = 3.0 + np.random.default_rng(0).normal(size=(60, 1)).cumsum(0) / 5
    run(model, slab, value_ND)
    now, time_C = Scale.of(slab, 0), np.zeros(TIME_FEATURES, dtype=np.float32)
    delta = float(now.delta()[0])
    step_N = np.sinh(np.linspace(-9, 9, 801))  # in δ
    scores = Scores.empty(801, 1, model.surprises)
    with torch.inference_mode():
        for n, step in enumerate(step_N):
            model._score(slab, 0, now.last_D + delta * step, time_C, scores, n)
    assert np.trapezoid(np.exp(-scores.nll_N), step_N) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("missing", [False, True])
def test_gradient_agrees_with_finite_differences(missing: bool) -> None:
    shape, T = Shape(D=3, H=4, K=2, C=TIME_FEATURES), 5
    gen = torch.Generator().manual_seed(1)

    def draw(*size: int) -> torch.Tensor:
        return 0.5 * torch.randn(*size, dtype=torch.float64, generator=gen)

    used = torch.zeros(shape.size, dtype=torch.bool)
    for view in shape.views(used).values():
        view.fill_(True)
    weights_P = (draw(shape.size) * used).requires_grad_()
    window = (draw(1, 4), draw(T, 6), draw(T, 3 * 3 + TIME_FEATURES), draw(T, 3))
    seen_TD = torch.ones(T, 3, dtype=torch.float64)
    if missing:
        seen_TD[1, 0] = seen_TD[3] = 0.0

    def loss(flat_P: torch.Tensor) -> torch.Tensor:
        return window_loss(shape.views(flat_P), *window, seen_TD, 4.0)

    (gradient_P,) = torch.autograd.grad(loss(weights_P), weights_P)
    with torch.no_grad():
        for i in used.nonzero().flatten().tolist():
            step = torch.zeros_like(weights_P)
            step[i] = 1e-6
            central = (loss(weights_P + step) - loss(weights_P - step)) / 2e-6
            assert float(gradient_P[i]) == pytest.approx(float(central), rel=1e-5, abs=1e-8)


def test_before_it_learns_it_expects_the_last_value() -> None:
    model, slab = made(D=1)
    value_ND = np.array([[3.0], [5.0], [4.0], [9.0]])
    expected_ND = run(model, slab, value_ND).expected_ND
    assert np.isnan(expected_ND[0, 0])
    np.testing.assert_allclose(expected_ND[1:, 0], value_ND[:-1, 0])


def test_it_learns_a_sine_far_better_than_the_last_value() -> None:
    t = np.arange(4000)
    value_ND = (np.sin(t / 7) + 0.02 * np.random.default_rng(0).normal(size=4000))[:, None]
    model, slab = made(D=1, hidden=16)
    scores = run(model, slab, value_ND)
    late = slice(3000, None)
    error = np.abs(scores.expected_ND[late, 0] - value_ND[late, 0]).mean()
    assert error < 0.5 * np.abs(np.diff(value_ND[2999:, 0])).mean()
    inside = (value_ND[late] >= scores.low_ND[late]) & (value_ND[late] <= scores.high_ND[late])
    assert 0.8 < inside.mean() < 0.99  # an interval said to cover 90 %


def test_contributions_add_up_to_the_nll() -> None:
    model, slab = made(D=3)
    value_ND = np.random.default_rng(0).normal(size=(60, 3)).cumsum(0)
    value_ND[20:30, 1] = np.nan
    scores = run(model, slab, value_ND)
    np.testing.assert_allclose(scores.contribution_ND.sum(1)[1:], scores.nll_N[1:], rtol=1e-6)
    assert (scores.contribution_ND[20:30, 1] == 0).all()


def test_the_feature_that_did_it_contributes_most() -> None:
    model, slab = made(D=3)
    value_ND = np.random.default_rng(0).normal(size=(300, 3)).cumsum(0)
    value_ND[299, 2] += 50.0
    assert run(model, slab, value_ND).contribution_ND[299].argmax() == 2


def test_a_gradient_that_is_not_finite_skips_the_update() -> None:
    model, slab = made(D=1)
    run(model, slab, np.random.default_rng(0).normal(size=(7, 1)))
    slab.tensor("window_target_TD")[0, 3] = torch.inf
    before = slab.tensor("weights_P")[0].clone()
    scores = run(model, slab, np.array([[0.5]]), start=7)
    assert scores.skipped == [0]
    assert scores.loss == []
    assert torch.equal(slab.tensor("weights_P")[0], before)
    assert slab.host("updates")[0] == 0


def test_stride_keeps_the_newest_of_the_window() -> None:
    model = StreamAE(Settings(hidden=4), 1, WindowConfig(length=4, stride=1), "cpu")
    slab = Slab({**model.fields(), **Clock.FIELDS})
    model.start(slab, slab.add(), ME)
    assert len(run(model, slab, np.random.default_rng(0).normal(size=(10, 1))).loss) == 7
    assert slab.host("window_fill")[0] == 3


def test_generated_sequences_have_the_streams_spread_and_are_a_function_of_the_seed() -> None:
    t = np.arange(2000)
    value_ND = (10 + np.sin(t / 7))[:, None] + 0.1 * np.random.default_rng(0).normal(size=(2000, 1))
    model, slab = made(D=1, hidden=16)
    run(model, slab, value_ND)
    drawn = model.generate(slab, 0, ME, length=100, count=20, seed=3)
    assert drawn.shape == (20, 100, 1)
    assert np.array_equal(drawn, model.generate(slab, 0, ME, length=100, count=20, seed=3))
    assert not np.array_equal(drawn, model.generate(slab, 0, ME, length=100, count=20, seed=4))
    assert abs(np.median(drawn) - 10) < 1.0
    assert 0.2 < drawn.std() / value_ND.std() < 5.0


def test_forecasts_of_a_learner_that_is_too_sure_fan_out() -> None:
    """Of a walk whose steps keep their sign for a while, a network that hardly learns is right one step
    ahead, and far too sure of sixteen: the fan mends that. The forecasts that are judged begin in every phase
    of those whiles: every 37th record."""
    noise = np.random.default_rng(0)
    drift_N = np.repeat(noise.normal(size=200), 20)
    value_N1 = np.cumsum(drift_N + 0.5 * noise.normal(size=4000))[:, None]

    def covered() -> float:
        model = StreamAE(Settings(learning_rate=1e-6), 1, WindowConfig(), "cpu")
        slab, clock, inside = Slab({**model.fields(), **Clock.FIELDS}), Clock(WindowConfig()), []
        model.start(slab, slab.add(), ME)
        row_N = np.zeros(37, dtype=np.int64)
        for n in range(0, 4000 - 37, 37):
            if n >= 2000:
                drawn_ST = model.generate(slab, 0, ME, 16, 100, n)[:, :, 0]
                low_T, high_T = np.quantile(drawn_ST, [0.1, 0.9], axis=0)
                came_T = value_N1[n : n + 16, 0]
                inside.append((low_T <= came_T) & (came_T <= high_T))
            ticks = clock.advance(slab, row_N, np.arange(n, n + 37) * 60_000)
            model.run(slab, row_N, value_N1[n : n + 37], ticks, [ME])
        return float(np.mean(inside))

    assert covered() == pytest.approx(0.8, abs=0.1)
    with patch("streamgen.models.fan.due", return_value=False):
        assert covered() < 0.6


@pytest.mark.parametrize("preset", ["light", "paper"])
@pytest.mark.parametrize("kind", ["continue", "prior"])
def test_sequences_keep_to_what_the_stream_ever_had(preset: str, kind: Kind) -> None:
    """Decimals and the order of columns; from the prior also the ranges of steps and values. What is
    continued may take larger steps: the fan widens them."""
    model, slab = made(D=3, preset=preset, hidden=8)
    rng = np.random.default_rng(0)
    low_N = np.clip(rng.normal(size=400).cumsum(), -5, 5)
    value_ND = np.stack([low_N, low_N + rng.exponential(size=400), 10.0 * rng.integers(0, 3, 400)], 1).round(
        2
    )
    run(model, slab, value_ND)
    drawn_BTD = model.generate(slab, 0, ME, 40, 50, 0, kind)
    assert (drawn_BTD == drawn_BTD.round(2)).all()
    assert (drawn_BTD[..., 2] % 10 == 0).all()
    assert (drawn_BTD[..., 0] <= drawn_BTD[..., 1]).all()
    if kind == "prior":
        step_BTD, step_ND = np.diff(drawn_BTD, axis=1), np.diff(value_ND, axis=0)
        for d in (0, 2):  # one that is lifted to where another one is may move further
            assert step_BTD[..., d].min() >= step_ND[:, d].min() - 0.006
            assert step_BTD[..., d].max() <= step_ND[:, d].max() + 0.006
        assert (drawn_BTD >= value_ND.min(0)).all()
        assert (drawn_BTD <= value_ND.max(0)).all()
    assert len(np.unique(drawn_BTD[..., 0])) > 50
