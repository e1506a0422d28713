"""rvae: a recurrent variational autoencoder of the last T records, learned online.

The network and its loss are in `sequence_vae`, the units in `axes`. Record n is scored in the window that
ends at n, with n hidden from the encoder:

    ẑ = mean of q(z | x_{n−T+1} … x_{n−1}, n hidden),   p(x_n | ẑ, x_{n−T+1} … x_{n−1})

Training hides from the encoder as many of a window's newest records as a draw says, none to a quarter, so
that z is what the past tells of the whole window. Any q gives a lower bound, so the loss stays one.

`light` makes one update at the end of each window. `full` keeps a uniform sample of all windows that ever
were (Vitter 1985, algorithm R) and makes several updates a window, each on a minibatch of the newest and kept
ones. Sequences come from averaged weights (Polyak & Juditsky 1992), scores from the newest.

Shapes: B windows, T records of a window, D features, Z latent dimensions, R kept windows, C time features, I
inputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from streamgen.config import WindowConfig
from streamgen.models import averaging, axes, scale, stretch
from streamgen.models.activation import Activation
from streamgen.models.axes import Axes, Float32s, compressed
from streamgen.models.free_run import drawn, drawn_given, expected, following, free_run, warm
from streamgen.models.initial import initial
from streamgen.models.joint import Places
from streamgen.models.judged import judged
from streamgen.models.likelihood import Bounds, Likelihood, one_step
from streamgen.models.mixture_t import Quantiles
from streamgen.models.noise import generator
from streamgen.models.online import KINDS, Kind, Learner, Scores, check_kind
from streamgen.models.optimiser import Optimiser, OptimiserSettings
from streamgen.models.reservoir import Reservoir
from streamgen.models.scale import Scale
from streamgen.models.sequence_vae import SequenceVAE, Shape, Windows
from streamgen.models.slab import Field as StateField
from streamgen.models.slab import Slab
from streamgen.models.span import Span
from streamgen.models.units import Normalisation
from streamgen.records import Bools, Floats, Ints
from streamgen.windows import TIME_FEATURES, Ticks, likeness, time_features

Raw = tuple[Floats, Bools, Float32s]  # records as they came: value filled, there or not, time
_WEEK_MS = 7 * 86_400_000.0
_TRIED = 32  # draws of z, of which one is chosen


class Settings(OptimiserSettings):
    """Settings of `rvae`."""

    presets = {  # noqa: RUF012 (pydantic's own, of the class)
        # Plain: widths of 128 and 64, leaky ReLU, one Gaussian, the whole KL term from the beginning. (A t of
        # the most degrees of freedom is a Gaussian to a 500th of a nat within two deviations.)
        "paper": {
            "hidden": 128, "dense": 64, "activation": "leaky_relu", "normalisation": "standard",
            "components": 1, "dof": 1000.0, "kl_annealing": 1, "free_bits": 0.0, "clip_norm": None,
            "ema": 0.0,
        },
    }  # fmt: skip

    name: Literal["rvae"]
    preset: Literal["light", "full", "paper"] = Field(
        "light",
        description="light: one update a window; full: several, on a reservoir of past windows; paper: the "
        "plain network, one update a window.",
    )
    hidden: int = Field(32, ge=1, le=1024, description="Units of the encoder's, and of the decoder's, state.")
    layers: int = Field(1, ge=1, le=8, description="Recurrent layers of either, one on the other.")
    dense: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Units of the dense layers; null: as hidden, and none in the encoder.",
    )
    activation: Activation = Field("tanh", description="What the dense layers apply.")
    latent: int = Field(8, ge=1, le=256, description="Dimensions of the latent.")
    normalisation: Normalisation = Field(
        "whitening", description="Units of what the network sees and is judged in."
    )
    components: int = Field(5, ge=1, le=64, description="Components of the mixture.")
    dof: float = Field(8.0, gt=2, le=1000, description="Degrees of freedom of its Student-t's.")
    kl_weight: float = Field(1.0, ge=0, description="Weight of the KL term after annealing.")
    kl_annealing: int = Field(200, ge=1, description="Updates over which that weight grows from 0.")
    free_bits: float = Field(0.02, ge=0, description="Nats of each latent dimension that cost nothing less.")
    ema: float = Field(
        0.995, ge=0, lt=1, description="Decay of the averaged weights that sequences come from."
    )
    reservoir: int = Field(1024, ge=0, description="full: past windows kept; 0: none.")
    updates: int = Field(2, ge=1, le=100, description="full: updates a window.")
    batch: int = Field(32, ge=1, le=4096, description="full: windows of a minibatch, the newest among them.")

    joint: int = Field(
        128,
        ge=0,
        le=1024,
        description="full: units of the density of whole records that sequences from the prior are drawn "
        "from; 0: they come from the mixture.",
    )

    def idle(self) -> dict[str, str]:
        idle = super().idle()
        if self.preset != "full":
            idle |= dict.fromkeys(("reservoir", "updates", "batch", "joint"), f"preset: {self.preset}")
        elif not self.reservoir:
            idle["batch"] = "reservoir: 0"
        return idle | ({} if self.kl_weight else dict.fromkeys(("kl_annealing", "free_bits"), "kl_weight: 0"))


class RVAE:
    """The online learner: scores a record, moves the window, learns at the window's end."""

    name = "rvae"
    kinds: tuple[Kind, ...] = KINDS
    surprises = 3  # after the records before; for the stream at all; of the recent level

    def __init__(self, settings: Settings, features: int, window: WindowConfig, device: str) -> None:
        self.settings = settings
        self.shape = Shape(
            features, settings.hidden, settings.latent, settings.components, TIME_FEATURES, settings.layers,
            settings.dense, settings.activation, settings.joint if settings.preset == "full" else 0,
        )  # fmt: skip
        self.T, self.stride = window.length, window.stride or window.length
        self.device = torch.device(device)
        full = settings.preset == "full"
        kept, self.updates = (settings.reservoir, settings.updates) if full else (0, 1)
        self._window_fields = {
            "window_value_TD": StateField((self.T, features)),
            "window_seen_TD": StateField((self.T, features), dtype="bool"),
            "window_time_TC": StateField((self.T, TIME_FEATURES), dtype="float32"),
        }
        self._reservoir = Reservoir(self.name, kept, self._window_fields)
        self._optimiser = Optimiser(settings)
        self._quantiles = Quantiles(settings.dof)

    def fields(self) -> Mapping[str, StateField]:
        """Weights, moments, averaged weights; scales and axes; the last T records, raw, missing values filled
        with the last one (NaN before the first); and R windows of such records."""
        D, P = self.shape.D, self.shape.size
        return {
            **self._optimiser.fields(P),
            **averaging.fields(P),
            "draws": StateField(dtype="int64"),  # updates and those that were skipped: keys the noise
            **scale.fields(D),
            **axes.fields(D, self.settings.normalisation),
            **stretch.fields(D),
            **self._window_fields,
            "window_fill": StateField(dtype="int64"),
            "window_new": StateField(dtype="int64"),  # records since it was learned from
            **self._reservoir.fields(),
        }

    def start(self, slab: Slab, row: int, learner: Learner) -> None:
        """Weights drawn from the learner's name."""
        noise = generator(learner.seed, learner.topic, learner.key, self.name, 0)
        drawn_P = torch.from_numpy(noise.uniform(-1.0, 1.0, self.shape.size).astype(np.float32))
        slab.tensor("weights_P")[row] = slab.tensor("average_P")[row] = initial(
            self.shape.parameters, self.shape.H, self.shape.K, drawn_P
        )

    def run(
        self,
        slab: Slab,
        row_N: Ints,
        value_ND: Floats,
        ticks: Ticks,
        learners: Sequence[Learner],
        learn: bool = True,
    ) -> Scores:
        """See `OnlineModel.run`. One record at a time with fixed shapes: no result depends on its batch."""
        scores = Scores.empty(len(value_ND), self.shape.D, self.surprises)
        time_NC = ticks.time_NC.astype(np.float32)
        for n, row in enumerate(row_N.tolist()):
            if ticks.broken_N[n]:
                slab.host("window_fill")[row] = slab.host("window_new")[row] = 0
            # Units of a scale may underflow a quotient of huge values: it is bounded right after.
            with torch.inference_mode(), np.errstate(over="ignore"):
                gradient_D = self._score(slab, row, value_ND[n], time_NC[n], scores, n)
                if ticks.late_N[n]:
                    continue
                if learn:
                    stretch.observe(slab, row, gradient_D)
                complete = self._advance(slab, row, value_ND[n], time_NC[n])
            if complete:
                slab.host("window_new")[row] = 0
                if learn:
                    self._learn(slab, row, learners[row], scores)
        return scores

    def collect(self, slab: Slab, row: int) -> None:
        """All state is in the row."""

    def adopt(self, slab: Slab, row: int, learner: Learner) -> None:
        """All state is in the row."""

    def release(self, slab: Slab, row: int) -> None:
        """All state is in the row."""

    def generate(
        self,
        slab: Slab,
        row: int,
        learner: Learner,
        length: int,
        count: int,
        seed: int,
        kind: Kind = "continue",
        given_TD: Floats | None = None,
    ) -> Floats:
        """See `OnlineModel.generate`."""
        check_kind(self, kind)
        nothing_TD = np.full((length, self.shape.D), np.nan)
        if kind == "prior":
            return self.sample(slab, row, learner, length, count, seed, ahead=True)
        if kind == "impute":
            return self.impute(slab, row, nothing_TD if given_TD is None else given_TD)[None]
        fixed_TD = given_TD if given_TD is not None and kind == "what-if" else nothing_TD
        return self._go_on(slab, row, learner, fixed_TD, count, seed)

    def _go_on(
        self, slab: Slab, row: int, learner: Learner, fixed_TD: Floats, count: int, seed: int
    ) -> Floats:
        """[count, T, D] samples that go on from the learner's last records, in input units.

        A quarter of a window at a time: z is drawn given the records before and what is fixed of those to
        come, with the same noise for all of a sequence, the decoder is led through them, and goes on by
        itself. So it never runs for longer than it was trained to. Each record is drawn given what is fixed
        of it. Time goes on at the key's usual step.
        """
        length = len(fixed_TD)
        noise = self._noise(slab, row, learner, f"generate.{seed}")
        network, now = self._averaged(slab, row)
        span = Span.of(slab, row).anywhere()
        eps_BZ = noise.standard_normal((count, self.shape.Z)).astype(np.float32)
        fill, ahead = int(slab.host("window_fill")[row]), max(self.T // 4, 1)
        value_BTD, seen_BTD, time_BTC = (
            np.tile(slab.host(name)[row, :fill], (count, 1, 1)) for name in self._WINDOW
        )
        future_TC = self._times(slab, row, np.arange(1, length + 1))
        with torch.inference_mode():
            for t in range(0, length, ahead):
                new_BTC = np.tile(future_TC[t : t + ahead], (count, 1, 1))
                past = slice(-(self.T - new_BTC.shape[1]), None)
                parts = value_BTD[:, past], seen_BTD[:, past], time_BTC[:, past]
                fixed_SD = fixed_TD[t : t + ahead]
                input_BTI = self._tensor(now.window(*_hidden(parts, new_BTC, fixed_SD)))
                mean_BZ, log_scale_BZ = network.encode(input_BTI)
                z_BZ = mean_BZ + torch.exp(log_scale_BZ) * self._tensor(eps_BZ)
                before = warm(network, z_BZ, input_BTI[:, : parts[0].shape[1]], parts[0])
                choose = drawn(noise, span) if np.isnan(fixed_SD).all() else drawn_given(noise, fixed_SD)
                new_BTD = free_run(network, now, z_BZ, before, new_BTC, choose)
                value_BTD = np.concatenate([value_BTD, new_BTD], axis=1)
                seen_BTD = np.concatenate([seen_BTD, np.ones(new_BTD.shape, dtype=np.bool_)], axis=1)
                time_BTC = np.concatenate([time_BTC, new_BTC.astype(np.float32)], axis=1)
        drawn_BTD = value_BTD[:, fill:]
        # Out of the units of steps and back a fixed value has lost its last bits.
        return np.where(np.isnan(fixed_TD), drawn_BTD, fixed_TD)

    def sample(
        self, slab: Slab, row: int, learner: Learner, length: int, count: int, seed: int, ahead: bool = False
    ) -> Floats:
        """[count, length, D] windows as the stream has them, in input units: none leaves the `span`.

        With a reservoir each goes on from a record that was kept, drawn uniformly, or (`ahead`) such that its
        hour and weekday are near those of the learner's newest; z is drawn given that record. Without, z ~
        N(0, I), the first record is drawn given z, and its time is uniform in the last week, or in the stream
        where that is shorter, or (`ahead`) the next record's.
        """
        noise = self._noise(slab, row, learner, f"sample.{seed}")
        network, now = self._averaged(slab, row, stretched=False)
        span = Span.of(slab, row)
        kept = self._reservoir.kept(slab, row)
        with torch.inference_mode(), np.errstate(over="ignore"):
            if not kept:
                return self._from_nowhere(slab, row, network, now, span, noise, length, count, ahead)
            value_RD, seen_RD, time_RC = (field[:, 0] for field in kept)
            share_R = likeness(time_RC, self._times(slab, row, np.zeros(1))[0]) if ahead else None
            slot_B = noise.choice(len(value_RD), count, p=share_R)
            value_BD, seen_BD, time_BC = value_RD[slot_B], seen_RD[slot_B], time_RC[slot_B]
            z_BZ = self._given_first(network, now, value_BD, seen_BD, time_BC, noise)
            input_BI = self._tensor(now.records(value_BD, value_BD, seen_BD, time_BC))
            before = warm(network, z_BZ, input_BI.unsqueeze(1), value_BD[:, None])
            # The time within a week can be read off the phase.
            gap = float(slab.host("clock_gap")[row])
            begin_B = np.arctan2(time_BC[:, -2], time_BC[:, -1]).astype(np.float64) / (2 * np.pi) * _WEEK_MS
            if ahead:
                begin_B = np.full(count, float(slab.host("clock_newest")[row]))
            time_BT = begin_B[:, None] + gap * np.arange(1, length + 1)
            gap_N = np.full(time_BT.size, gap)
            time_NC = time_features(time_BT.ravel().astype(np.int64), gap_N, gap_N)
            time_BTC = time_NC.reshape(count, length, -1)
            return free_run(network, now, z_BZ, before, time_BTC, drawn(noise, span, whole=True))

    def _from_nowhere(
        self, slab: Slab, row: int, network: SequenceVAE, now: Axes, span: Span, noise: np.random.Generator,
        length: int, count: int, ahead: bool,
    ) -> Floats:  # fmt: skip
        """`sample` without a record to go on from."""
        gap, gaps = float(slab.host("clock_gap")[row]), int(slab.host("clock_gaps")[row])
        back_B1 = noise.random((count, 1)) * min(gaps, _WEEK_MS / max(gap, 1.0))
        first_B1 = np.ones_like(back_B1) if ahead else -np.floor(back_B1)
        time_NC = self._times(slab, row, (np.arange(length) + first_B1).ravel())
        time_BTC = time_NC.reshape(count, length, -1)
        z_BZ = self._tensor(noise.standard_normal((count, self.shape.Z)).astype(np.float32))
        first = drawn(noise, span.jumping())
        value_B1D = free_run(network, now, z_BZ, None, time_BTC[:, :1], first)
        input_B1I = now.window(value_B1D, np.ones(value_B1D.shape, dtype=np.bool_), time_BTC[:, :1])
        before = warm(network, z_BZ, self._tensor(input_B1I), value_B1D)
        if length == 1:
            return value_B1D
        rest_BTD = free_run(network, now, z_BZ, before, time_BTC[:, 1:], drawn(noise, span, whole=True))
        return np.concatenate([value_B1D, rest_BTD], axis=1)

    def _given_first(
        self, network: SequenceVAE, now: Axes, value_BD: Floats, seen_BD: Bools, time_BC: Float32s,
        noise: np.random.Generator,
    ) -> Tensor:  # fmt: skip
        """[B, Z] z from p(z | x_1) ∝ N(z; 0, I) p(x_1 | z): drawn from the prior, and one chosen of as many
        by what each makes of the record (sampling-importance-resampling: Rubin 1988)."""
        target_B1D, known_B1D = now.targets(
            value_BD[:, None], seen_BD[:, None] & ~np.isnan(value_BD[:, None])
        )
        target_BD, known_BD = self._tensor(target_B1D[:, 0]), self._tensor(known_B1D[:, 0])
        time = self._tensor(time_BC)
        z_PBZ = self._tensor(noise.standard_normal((_TRIED, len(value_BD), self.shape.Z)).astype(np.float32))
        nll_PB = torch.stack([network.first(z_BZ, time).nll(target_BD, known_BD) for z_BZ in z_PBZ])
        below_PB = torch.softmax(-nll_PB, 0).cumsum(0)
        uniform_B = self._tensor(noise.random(len(value_BD)))
        chosen_B = (uniform_B > below_PB).sum(0).clamp_max(_TRIED - 1)
        return z_PBZ[chosen_B, torch.arange(len(value_BD), device=self.device)]

    def reconstruct(self, slab: Slab, row: int, window_TD: Floats) -> Floats:
        """[T, D] what the latent keeps of a window, NaN where missing: the decoder's own expectations from
        the mean of q(z | window). The window counts as one that ends at the learner's newest record."""
        reconstructed_1TD = self.interpolate(slab, row, window_TD, window_TD, 1)
        return np.asarray(reconstructed_1TD[0])

    def interpolate(self, slab: Slab, row: int, from_TD: Floats, to_TD: Floats, steps: int) -> Floats:
        """[steps, T, D] reconstructions from evenly spaced z, the first window's to the second's."""
        network, now = self._averaged(slab, row)
        with torch.inference_mode():
            z_2Z = torch.cat([self._latent(slab, row, network, now, one_TD) for one_TD in (from_TD, to_TD)])
            share_B1 = torch.linspace(0.0, 1.0, steps, device=self.device)[:, None]
            z_BZ = torch.lerp(z_2Z[:1].expand(steps, -1), z_2Z[1:].expand(steps, -1), share_B1)
            time_BTC = np.tile(self._ending_now(slab, row, len(from_TD)), (steps, 1, 1))
            return free_run(network, now, z_BZ, None, time_BTC, expected(np.full_like(from_TD, np.nan)))

    def impute(self, slab: Slab, row: int, window_TD: Floats) -> Floats:
        """[T, D] the window with its missing values (NaN) filled: z from the values that are there, then
        record by record the mean given z, the records before, and the record's own other values."""
        network, now = self._averaged(slab, row)
        with torch.inference_mode():
            z_1Z = self._latent(slab, row, network, now, window_TD)
            time_1TC = self._ending_now(slab, row, len(window_TD))[None]
            filled_TD = free_run(network, now, z_1Z, None, time_1TC, expected(window_TD))[0]
        return np.where(np.isnan(window_TD), filled_TD, window_TD)

    def _latent(self, slab: Slab, row: int, network: SequenceVAE, now: Axes, window_TD: Floats) -> Tensor:
        """Mean of q(z | window), [1, Z]."""
        seen_TD = ~np.isnan(window_TD)
        last_TD = np.maximum.accumulate(np.where(seen_TD, np.arange(len(window_TD))[:, None], 0))
        filled_TD = np.take_along_axis(window_TD, last_TD, 0)
        time_TC = self._ending_now(slab, row, len(window_TD))
        return network.encode(self._tensor(now.window(filled_TD, seen_TD, time_TC)[None]))[0]

    def likelihood(
        self, slab: Slab, row: int, learner: Learner, value_ND: Floats, ticks: Ticks, draws: int, seed: int
    ) -> Likelihood:
        """See `OnlineModel.likelihood`. The bounds are of what sequences come from: averaged weights, scales
        and axes as they are. Where a window's first value is missing it has the last one before."""
        records = one_step(self, slab, row, learner, value_ND, ticks)
        parts = _windows_of(self.T, value_ND, ticks, Scale.of(slab, row).last_D)
        noise = self._noise(slab, row, learner, f"likelihood.{seed}")
        network, now = self._averaged(slab, row)
        target_BTD, known_BTD = now.targets(*parts[:2])
        input_BTI = self._tensor(now.window(*parts))
        windows = Windows(input_BTI, input_BTI, self._tensor(target_BTD), self._tensor(known_BTD))
        with torch.inference_mode():
            log_weight_KB = np.array(
                [
                    network.log_weight(windows, self._tensor(eps_BZ)).cpu().numpy()
                    for eps_BZ in noise.standard_normal((draws, len(target_BTD), self.shape.Z))
                ]
            )
        log_unit_TD = np.log(np.where(np.arange(self.T)[:, None] == 0, now.unit_D, now.delta_D))
        log_unit_B = (known_BTD * log_unit_TD).sum((1, 2))
        return replace(records, bounds=Bounds.of(log_weight_KB, log_unit_B, known_BTD.sum((1, 2))))

    _WINDOW = ("window_value_TD", "window_seen_TD", "window_time_TC")

    def _score(
        self, slab: Slab, row: int, value_D: Floats, time_C: Float32s, scores: Scores, n: int
    ) -> Floats:
        """Score record n against the state before it, and write the result into `scores`. Returns what the
        stretch learns from it, nothing where the record was judged by its level."""
        before, now = Scale.of(slab, row), Axes.of(slab, row, self.settings.normalisation, compressed)
        network = self._network(slab.tensor("weights_P")[row], now, slab.host("stretch_D")[row])
        fill = int(slab.host("window_fill")[row])
        past = slice(max(fill - self.T + 1, 0), fill)
        parts = self._window(slab, row, past)
        input_1TI = self._tensor(now.window(*_hidden(parts, time_C[None, None])))
        if fill:
            z_1Z, _ = network.encode(input_1TI)
            last = warm(network, z_1Z, input_1TI[:, :-1], parts[0])
            mixture, _ = following(network, z_1Z, last, input_1TI[:, -1, 3 * self.shape.D :])
            origin_D, unit_D = before.last_D, now.delta_D
        else:  # behind a gap: the first record of a window
            mixture = network.first(network.encode(input_1TI[:, :0])[0], self._tensor(time_C[None]))
            origin_D, unit_D = now.mean_D, now.unit_D
        scores.step_N[n] = slab.host("updates")[row]
        gradient_D = judged(scores, n, value_D, mixture, origin_D, unit_D, before, self._quantiles)
        return gradient_D if fill else np.zeros_like(gradient_D)

    def _advance(self, slab: Slab, row: int, value_D: Floats, time_C: Float32s) -> bool:
        """Move scales, axes and window over a record; True when it is time to learn."""
        there_D = ~np.isnan(value_D)
        axes.observe(slab, row, self.settings.normalisation, value_D, there_D)
        fill = int(slab.host("window_fill")[row])
        # After the scales have seen it, the newest value of each feature is this record's, where it has one.
        for name, part in zip(self._WINDOW, (Scale.of(slab, row).last_D, there_D, time_C), strict=True):
            window = slab.host(name)[row]
            if fill == self.T:
                window[:-1] = window[1:].copy()
            window[min(fill, self.T - 1)] = part
        slab.host("window_fill")[row] = fill = min(fill + 1, self.T)
        slab.host("window_new")[row] += 1
        return bool(fill == self.T and slab.host("window_new")[row] >= self.stride)

    def _learn(self, slab: Slab, row: int, learner: Learner, scores: Scores) -> None:
        """The updates that a complete window brings."""
        self._reservoir.keep(slab, row, learner)
        for _ in range(self.updates):
            began = perf_counter()
            loss = self._update(slab, row, learner)
            if loss is None:
                scores.skipped.append(row)
            else:
                scores.loss.append(loss)
                scores.seconds.append(perf_counter() - began)

    def _update(self, slab: Slab, row: int, learner: Learner) -> float | None:
        """One step of the optimiser; None when it was skipped as not finite."""
        slab.host("draws")[row] += 1
        draw = int(slab.host("draws")[row])
        noise = generator(learner.seed, learner.topic, learner.key, f"{self.name}.update", draw)
        windows_B = self._reservoir.batch(slab, row, self.settings.batch, noise)
        loss, gradient_P = self.loss_and_gradient(slab, row, windows_B, noise)
        if not (math.isfinite(loss) and self._optimiser.step(slab, row, gradient_P)):
            return None
        averaging.average(slab, row, self.settings.ema)
        return loss

    def loss_and_gradient(
        self, slab: Slab, row: int, windows_B: tuple[np.ndarray, ...], noise: np.random.Generator
    ) -> tuple[float, Tensor]:
        """The loss on a minibatch (`sequence_vae`) and its gradient [P]."""
        value_BTD, seen_BTD, time_BTC = windows_B
        B, settings = len(value_BTD), self.settings
        with np.errstate(over="ignore"):
            now = Axes.of(slab, row, self.settings.normalisation, compressed)
            visible_B = self.T - noise.integers(self.T // 4 + 1, size=B)
            index_BT = np.minimum(np.arange(self.T), visible_B[:, None] - 1)
            visible_BT1 = (np.arange(self.T) < visible_B[:, None])[:, :, None]
            stopped_BTD = np.take_along_axis(value_BTD, index_BT[:, :, None], 1)
            target_BTD, known_BTD = now.targets(value_BTD, seen_BTD)
            at = None
            if self.shape.joint:
                earlier_BTD = np.concatenate([value_BTD[:, :1], value_BTD[:, :-2]], axis=1)
                place = now.places(*(x.reshape(-1, x.shape[2]) for x in (value_BTD[:, :-1], earlier_BTD)))
                at = Places(*map(self._tensor, place))
            windows = Windows(
                self._tensor(now.window(value_BTD, seen_BTD, time_BTC)),
                self._tensor(now.window(stopped_BTD, seen_BTD & visible_BT1, time_BTC)),
                self._tensor(target_BTD),
                self._tensor(known_BTD),
                at,
            )
        eps_BZ = self._tensor(noise.standard_normal((B, self.shape.Z)).astype(np.float32))
        annealed = min(1.0, int(slab.host("updates")[row]) / settings.kl_annealing)
        weights_P = slab.tensor("weights_P")[row].detach().clone().requires_grad_()
        network = self._network(weights_P, now)
        loss = network.loss(windows, eps_BZ, settings.kl_weight * annealed, settings.free_bits)
        (gradient_P,) = torch.autograd.grad(loss, weights_P)
        return float(loss.detach()), gradient_P

    def _window(self, slab: Slab, row: int, part: slice) -> Raw:
        """The newest records, of one window, [1, ...]."""
        value_TD, seen_TD, time_TC = (slab.host(name)[row, part] for name in self._WINDOW)
        return value_TD[None], seen_TD[None], time_TC[None]

    def _network(self, weights_P: Tensor, now: Axes, stretch_D: Floats | None = None) -> SequenceVAE:
        factors = self._tensor(now.level_DD), self._tensor(now.step_DD)
        added_D = None if stretch_D is None else self._tensor(stretch_D.astype(np.float32))
        return SequenceVAE(self.shape, weights_P, *factors, self.settings.dof, added_D)

    def _averaged(self, slab: Slab, row: int, stretched: bool = True) -> tuple[SequenceVAE, Axes]:
        """What sequences come from. The stretch is of records to come, and not of those that were."""
        now = Axes.of(slab, row, self.settings.normalisation, compressed)
        stretch_D = slab.host("stretch_D")[row] if stretched else None
        return self._network(slab.tensor("average_P")[row], now, stretch_D), now

    def _noise(self, slab: Slab, row: int, learner: Learner, what: str) -> np.random.Generator:
        updates = int(slab.host("updates")[row])
        return generator(learner.seed, learner.topic, learner.key, f"{self.name}.{what}", updates)

    def _times(self, slab: Slab, row: int, ahead_T: Floats | Ints) -> Floats:
        """Time features of records so many usual steps after the newest, [T, C]."""
        newest, gap = int(slab.host("clock_newest")[row]), float(slab.host("clock_gap")[row])
        gap_T = np.full(len(ahead_T), gap)
        return time_features((newest + ahead_T * gap).astype(np.int64), gap_T, gap_T)

    def _ending_now(self, slab: Slab, row: int, length: int) -> Floats:
        return self._times(slab, row, np.arange(1 - length, 1))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _windows_of(T: int, value_ND: Floats, ticks: Ticks, last_D: Floats) -> Raw:
    """Windows of T records, one after the other, of records that follow one with the values `last_D`: none
    that is late, and no window over a gap."""
    kept_N = ~ticks.late_N
    broken_N, time_NC = ticks.broken_N[kept_N], ticks.time_NC[kept_N].astype(np.float32)
    seen_ND = ~np.isnan(value_ND[kept_N])
    # Where a value is missing the record has the last one that came.
    come_ND = np.concatenate([last_D[None], value_ND[kept_N]])
    there_ND = np.concatenate([np.ones_like(seen_ND[:1]), seen_ND])
    from_ND = np.maximum.accumulate(np.where(there_ND, np.arange(len(come_ND))[:, None], 0))
    filled_ND = np.take_along_axis(come_ND, from_ND, 0)[1:]
    first_B, start = [], 0
    for n, broken in enumerate(broken_N.tolist()):
        if broken:
            start = n
        if n + 1 == start + T:
            first_B.append(start)
            start = n + 1
    index_BT = np.array(first_B, dtype=np.int64)[:, None] + np.arange(T)
    return filled_ND[index_BT], seen_ND[index_BT], time_NC[index_BT]


def _hidden(known_BT: Raw, new_BSC: Floats | Float32s, fixed_SD: Floats | None = None) -> Raw:
    """Windows with S records more, of which only the time is known, and the values that are fixed."""
    value_BTD, seen_BTD, time_BTC = known_BT
    S = new_BSC.shape[1]
    value_BSD = np.repeat(value_BTD[:, -1:], S, axis=1)
    seen_BSD = np.zeros((len(value_BTD), S, value_BTD.shape[2]), dtype=np.bool_)
    if not value_BTD.shape[1]:
        value_BSD = np.full(seen_BSD.shape, np.nan)
    if fixed_SD is not None:
        # Where a value is missing the record has the last one that came.
        last_SD = np.maximum.accumulate(np.where(np.isnan(fixed_SD), -1, np.arange(S)[:, None]), axis=0)
        held_SD = np.take_along_axis(fixed_SD, np.maximum(last_SD, 0), 0)
        value_BSD = np.where(last_SD < 0, value_BSD, held_SD)
        seen_BSD = seen_BSD | ~np.isnan(fixed_SD)
    return (
        np.concatenate([value_BTD, value_BSD], axis=1),
        np.concatenate([seen_BTD, seen_BSD], axis=1),
        np.concatenate([time_BTC, new_BSC], axis=1, dtype=np.float32),
    )
