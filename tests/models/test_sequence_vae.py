"""The network's equations against torch's modules, and its loss against finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_t

from streamgen.models.flat import flat_views
from streamgen.models.initial import initial
from streamgen.models.joint import Places
from streamgen.models.sequence_vae import SequenceVAE, Shape, Whole, Windows

SHAPE = Shape(D=2, H=4, Z=3, K=2, C=7)
WHOLE = Shape(D=2, H=4, Z=3, K=2, C=7, joint=5)
DEEP = Shape(D=2, H=4, Z=3, K=2, C=7, layers=2, dense=5, activation="leaky_relu")
B, T, INPUTS = 3, 5, 3 * 2 + 7
GEN = torch.Generator()


def draw(*size: int, scale: float = 0.5) -> torch.Tensor:
    return scale * torch.randn(*size, dtype=torch.float64, generator=GEN)


@pytest.fixture(autouse=True)
def _seed() -> None:
    GEN.manual_seed(0)


def axes() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.tril(draw(2, 2)) + torch.eye(2, dtype=torch.float64) for _ in range(2))  # type: ignore


def network(flat_P: torch.Tensor, dof: float = 6.0, shape: Shape = SHAPE) -> SequenceVAE:
    GEN.manual_seed(7)
    return SequenceVAE(shape, flat_P, *axes(), dof)


def windows(missing: bool, whole: bool = False) -> Windows:
    seen_BTD = torch.ones(B, T, 2, dtype=torch.bool)
    if missing:
        seen_BTD[0, 1, 0] = seen_BTD[1, 0, 1] = seen_BTD[2, 3, 0] = seen_BTD[2, 3, 1] = False
    given = draw(B, T, INPUTS), draw(B, T, INPUTS), draw(B, T, 2) * seen_BTD, seen_BTD
    if not whole:
        return Windows(*given)
    # Half of the steps, in any order, of which some may miss a value.
    drawn_M = torch.tensor([4, 0, 7, 5, 2, 8])[: B * (T - 1) // 2]
    index_M = drawn_M[seen_BTD[:, 1:].flatten(0, 1).all(1)[drawn_M]]
    M, wide_D = len(index_M), torch.tensor([1.5, 2.0], dtype=torch.float64)
    places = Places(draw(M, 2), draw(M, 2), torch.exp(draw(M, 2)), wide_D, *axes())
    return Windows(*given, Whole(index_M, places, draw(M, 2), len(drawn_M) / (B * (T - 1))))


def used(shape: Shape) -> torch.Tensor:
    """Which entries of the flat vector are a parameter's, and not between two."""
    used_P = torch.zeros(shape.size, dtype=torch.bool)
    for view in flat_views(shape.parameters, used_P).values():
        view.fill_(True)
    return used_P


def torchs_gru(net: SequenceVAE, name: str, inputs: int) -> torch.nn.GRU:
    gru = torch.nn.GRU(inputs, SHAPE.H, batch_first=True, dtype=torch.float64)
    kinds = ("GI", "GH", "input_bias_G", "hidden_bias_G")
    with torch.no_grad():
        for parameter, kind in zip(gru.parameters(), kinds, strict=True):
            parameter.copy_(net.w[f"{name}_{kind}"])
    return gru


@pytest.mark.parametrize(("missing", "shape"), [(False, SHAPE), (True, SHAPE), (True, DEEP), (True, WHOLE)])
def test_gradient_agrees_with_finite_differences(missing: bool, shape: Shape) -> None:
    used_P = used(shape)
    weights_P = (draw(shape.size) * used_P).requires_grad_()
    data, noise_BZ = windows(missing, bool(shape.joint)), draw(B, shape.Z, scale=1.0)

    def loss(flat_P: torch.Tensor) -> torch.Tensor:
        return network(flat_P, shape=shape).loss(data, noise_BZ, 0.7, 0.05)

    (gradient_P,) = torch.autograd.grad(loss(weights_P), weights_P)
    with torch.no_grad():
        for i in used_P.nonzero().flatten().tolist():
            step = torch.zeros_like(weights_P)
            step[i] = 1e-6
            central = (loss(weights_P + step) - loss(weights_P - step)) / 2e-6
            assert float(gradient_P[i]) == pytest.approx(float(central), rel=1e-5, abs=1e-8)
    for name, view in flat_views(shape.parameters, gradient_P).items():
        masked = name in ("joint_3DH", "joint_HO")
        assert (view != 0).any() if masked else (view != 0).all(), name  # every parameter matters


def test_nll_is_the_sum_over_records_computed_one_by_one() -> None:
    """From the equations, with torch's GRU module and SciPy's t."""
    net = network(draw(SHAPE.size))
    data, z_BZ = windows(False), draw(B, SHAPE.Z)
    cell = torchs_gru(net, "decode", INPUTS + SHAPE.Z)
    w, D, K = net.w, SHAPE.D, SHAPE.K
    level_DD, step_DD = axes_of(net)

    def log_p(out_O: torch.Tensor, skip_D: torch.Tensor, L: np.ndarray, y_D: torch.Tensor) -> float:
        weight_K, mean_KD = torch.softmax(out_O[:K], 0), out_O[K : K + K * D].view(K, D) + skip_D
        scale_KD = torch.exp(4 * torch.tanh(out_O[K + K * D :].view(K, D) / 4))
        return np.log(
            sum(
                float(weight_K[k])
                * multivariate_t(
                    L @ mean_KD[k].numpy(), L @ np.diag(scale_KD[k].numpy() ** 2) @ L.T, df=6.0
                ).pdf(y_D)
                for k in range(K)
            )
        )

    for b in range(B):
        with torch.no_grad():
            z_Z, x_TI, y_TD = z_BZ[b], data.input_BTI[b], data.target_BTD[b]
            a = torch.tanh(torch.cat([z_Z, x_TI[0, 3 * D :]]) @ w["first_ZCH"] + w["first_bias_H"])
            total = log_p(a @ w["first_HO"] + w["first_bias_O"], torch.zeros(D), level_DD, y_TD[0])
            g_H = torch.tanh(z_Z @ w["begin_ZS"] + w["begin_bias_S"])
            for t in range(1, T):
                seen_I = torch.cat([x_TI[t - 1, : 3 * D], x_TI[t, 3 * D :], z_Z])
                g_H = cell(seen_I[None, None], g_H[None, None])[0][0, 0]
                f_F = torch.cat([g_H, x_TI[t - 1, : 2 * D], z_Z])
                out_O = torch.tanh(f_F @ w["head_FH"] + w["head_bias_H"]) @ w["out_HO"] + w["out_bias_O"]
                total += log_p(out_O, x_TI[t - 1, : 2 * D] @ w["skip_2DD"], step_DD, y_TD[t])
            assert float(net.nll(data, z_BZ)[b]) == pytest.approx(-total, rel=1e-9)


def axes_of(net: SequenceVAE) -> tuple[np.ndarray, np.ndarray]:
    GEN.manual_seed(7)
    level_DD, step_DD = axes()
    return level_DD.numpy(), step_DD.numpy()


def test_the_encoder_is_torchs_gru_and_a_gaussian() -> None:
    net = network(draw(SHAPE.size))
    x_BTI = draw(B, T, INPUTS)
    with torch.no_grad():
        last_BH = torchs_gru(net, "encode", INPUTS)(x_BTI)[1][0]
        out_B6 = last_BH @ net.w["latent_H2Z"] + net.w["latent_bias_2Z"]
        mean_BZ, log_scale_BZ = net.encode(x_BTI)
    torch.testing.assert_close(mean_BZ, out_B6[:, :3])
    torch.testing.assert_close(log_scale_BZ, 4 * torch.tanh(out_B6[:, 3:] / 4))


def test_a_deep_network_is_torchs_layers_one_on_the_other() -> None:
    net = network(draw(DEEP.size), shape=DEEP)
    w, x_BTI, z_BZ, time_BTC = net.w, draw(B, T, INPUTS), draw(B, DEEP.Z), draw(B, T, DEEP.C)
    leaky = torch.nn.LeakyReLU()
    with torch.no_grad():
        states = deep_gru(net, "encode", INPUTS)(x_BTI)[0]
        out_B6 = leaky(states[:, -1] @ w["encode_HE"] + w["encode_bias_E"]) @ w["latent_H2Z"]
        out_B6 = out_B6 + w["latent_bias_2Z"]
        torch.testing.assert_close(net.encode(x_BTI)[0], out_B6[:, :3])
        begin_BS = torch.tanh(z_BZ @ w["begin_ZS"] + w["begin_bias_S"])
        seen_BTJ = torch.cat([x_BTI[:, :, :6], time_BTC, z_BZ[:, None].expand(-1, T, -1)], 2)
        begin_2BH = torch.stack(begin_BS.chunk(2, 1)).contiguous()
        top_BTH, last_2BH = deep_gru(net, "decode", INPUTS + DEEP.Z)(seen_BTJ, begin_2BH)
        state_BTS = net.decode(z_BZ, x_BTI, time_BTC, net.begin(z_BZ))
        torch.testing.assert_close(state_BTS[:, :, DEEP.H :], top_BTH)
        torch.testing.assert_close(state_BTS[:, -1], torch.cat(list(last_2BH), 1))
        f_BF = torch.cat([top_BTH[:, -1], x_BTI[:, 0, :4], z_BZ], 1)
        out_BO = leaky(f_BF @ w["head_FH"] + w["head_bias_H"]) @ w["out_HO"] + w["out_bias_O"]
        mixture = net.next(z_BZ, x_BTI[:, 0], state_BTS[:, -1])
        shift_BD = x_BTI[:, 0, :4] @ w["skip_2DD"]
        torch.testing.assert_close(mixture.mean_NKD, out_BO[:, 2:6].view(B, 2, 2) + shift_BD[:, None])


def deep_gru(net: SequenceVAE, name: str, inputs: int) -> torch.nn.GRU:
    gru = torch.nn.GRU(inputs, DEEP.H, num_layers=2, batch_first=True, dtype=torch.float64)
    kinds = ("GI", "GH", "input_bias_G", "hidden_bias_G")
    names = [f"{layer}_{kind}" for layer in (name, f"{name}2") for kind in kinds]
    with torch.no_grad():
        for parameter, one in zip(gru.parameters(), names, strict=True):
            parameter.copy_(net.w[one])
    return gru


def test_the_loss_is_the_bound_with_torchs_kl_and_free_bits() -> None:
    net = network(draw(SHAPE.size))
    data, noise_BZ = windows(True), draw(B, SHAPE.Z, scale=1.0)
    with torch.no_grad():
        mean_BZ, log_scale_BZ = net.encode(data.hidden_BTI)
        q = torch.distributions.Normal(mean_BZ, torch.exp(log_scale_BZ))
        kl_Z = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).mean(0)
        nll = net.nll(data, mean_BZ + torch.exp(log_scale_BZ) * noise_BZ).sum()
        free = float(kl_Z.sort().values[1])  # one dimension is below it
        for free_bits, kl in ((0.0, kl_Z.sum()), (free, kl_Z.clamp_min(free).sum())):
            expected = (nll + 0.3 * B * kl) / data.seen_BTD.sum()
            torch.testing.assert_close(net.loss(data, noise_BZ, 0.3, free_bits), expected)


def test_of_no_record_the_encoder_knows_the_prior() -> None:
    mean_BZ, log_scale_BZ = network(draw(SHAPE.size)).encode(draw(B, 0, INPUTS))
    assert (mean_BZ == 0).all()
    assert (log_scale_BZ == 0).all()


def test_components_begin_apart() -> None:
    flat_P = initial(SHAPE.parameters, SHAPE.H, SHAPE.K, torch.ones(SHAPE.size))
    w = flat_views(SHAPE.parameters, flat_P)
    for name in ("first", "out"):
        assert w[f"{name}_bias_O"].tolist() == [0.0] * 6 + [-1.5, -1.5, 1.0, 1.0]
    assert (w["skip_2DD"] == 0).all()
    assert float(w["decode_GH"][0, 0]) == 0.5


def test_some_records_say_what_the_joint_density_is_of_all() -> None:
    """The loss with it less the loss without, against what the records that it learns from say of all."""
    flat_P, data, noise_BZ = draw(WHOLE.size), windows(True, True), draw(B, WHOLE.Z, scale=1.0)
    net = network(flat_P, shape=WHOLE)
    without = replace(data, whole=None)
    values = data.seen_BTD.sum()
    more = (net.loss(data, noise_BZ, 0.7, 0.05) - net.loss(without, noise_BZ, 0.7, 0.05)) * values
    mean_BZ, log_scale_BZ = net.encode(data.hidden_BTI)
    z_BZ = mean_BZ + torch.exp(log_scale_BZ) * noise_BZ
    expected, some = 0.0, data.whole
    assert some is not None
    for m, n in enumerate(some.index_M.tolist()):
        b, t = n // (T - 1), n % (T - 1) + 1
        one = slice(b, b + 1)
        time_1TC = data.input_BTI[one, 1 : t + 1, 6:]
        state_1S = net.decode(z_BZ[one], data.input_BTI[one, :t], time_1TC, net.begin(z_BZ[one]))[:, -1]
        at, y_ND, here = some.at, some.y_MD, slice(m, m + 1)
        at = replace(at, last_ND=at.last_ND[here], home_ND=at.home_ND[here], size_ND=at.size_ND[here])
        joint = net.joint(z_BZ[one], data.input_BTI[one, t - 1], state_1S, at)
        expected += float(joint.nll(y_ND[here]))
    assert float(more) == pytest.approx(expected / some.share, rel=1e-9)
