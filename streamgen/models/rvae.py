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
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from streamgen.config import WindowConfig
from streamgen.models import axes, often, scale, stretch
from streamgen.models.activation import Activation
from streamgen.models.axes import Axes, Float32s, compressed
from streamgen.models.caution import CautiousSettings
from streamgen.models.free_run import following, warm
from streamgen.models.initial import initial
from streamgen.models.joint import Places
from streamgen.models.judged import judged
from streamgen.models.likelihood import Likelihood
from streamgen.models.noise import generator
from streamgen.models.often import Often
from streamgen.models.one_step import one_step
from streamgen.models.online import KINDS, Heed, Kind, Learner, Scores, check_kind
from streamgen.models.rvae_sequences import Sequences, hidden, network_of
from streamgen.models.scale import Scale
from streamgen.models.sequence_vae import SequenceVAE, Shape, Whole, Windows
from streamgen.models.slab import Field as StateField
from streamgen.models.slab import Slab
from streamgen.models.span import Span
from streamgen.models.units import Normalisation
from streamgen.models.windowed import Parts, Windowed
from streamgen.records import Bools, Floats, Ints
from streamgen.windows import TIME_FEATURES, Ticks


class Settings(CautiousSettings):
    """Settings of `rvae`."""

    presets = {  # noqa: RUF012 (pydantic's own, of the class)
        # Plain: widths of 128 and 64, leaky ReLU, one Gaussian, the whole KL term from the beginning. (A t of
        # the most degrees of freedom is a Gaussian to a 500th of a nat within two deviations.)
        "paper": {
            "hidden": 128, "dense": 64, "activation": "leaky_relu", "normalisation": "standard",
            "components": 1, "dof": 1000.0, "kl_annealing": 1, "free_bits": 0.0, "clip_norm": None,
            "ema": 0.0,
        },
        "full": {"hidden": 64},
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
    reservoir: int = Field(4096, ge=0, description="full: past windows kept; 0: none.")
    recent: float = Field(
        0.5, ge=0, le=1, description="full: share of past windows in a minibatch that are drawn by recency."
    )
    updates: int = Field(2, ge=1, le=100, description="full: updates a window.")
    batch: int = Field(32, ge=1, le=4096, description="full: windows of a minibatch, the newest among them.")

    joint: int = Field(
        128,
        ge=0,
        le=1024,
        description="full: units of the density of whole records that sequences from the prior are drawn "
        "from; 0: they come from the mixture.",
    )
    joint_share: float = Field(
        0.333, gt=0, le=1, description="full: share of a minibatch's records that it learns from."
    )

    def idle(self) -> dict[str, str]:
        idle = super().idle()
        if self.preset != "full":
            idle |= dict.fromkeys(
                ("reservoir", "recent", "updates", "batch", "joint", "joint_share"), f"preset: {self.preset}"
            )
        elif not self.reservoir:
            idle |= dict.fromkeys(("batch", "recent"), "reservoir: 0")
        return idle | ({} if self.kl_weight else dict.fromkeys(("kl_annealing", "free_bits"), "kl_weight: 0"))


class RVAE:
    """The online learner: scores a record, moves the window, learns at the window's end."""

    name = "rvae"
    kinds: tuple[Kind, ...] = KINDS
    surprises = 3  # after the records before; for the stream at all; of the recent level

    def __init__(self, settings: Settings, features: int, window: WindowConfig, device: str) -> None:
        self.settings, self.cautious = settings, settings.cautious
        self.shape = Shape(
            features, settings.hidden, settings.latent, settings.components, TIME_FEATURES, settings.layers,
            settings.dense, settings.activation, settings.joint if settings.preset == "full" else 0,
        )  # fmt: skip
        self.T = window.length
        self.device = torch.device(device)
        full = settings.preset == "full"
        window_fields = {
            "window_value_TD": StateField((self.T, features)),
            "window_seen_TD": StateField((self.T, features), dtype="bool"),
            "window_time_TC": StateField((self.T, TIME_FEATURES), dtype="float32"),
        }
        self.windowed = Windowed(
            self.name, settings, window_fields, window.stride or window.length,
            reservoir=settings.reservoir if full else 0, recent=settings.recent,
            updates=settings.updates if full else 1, batch=settings.batch, ema=settings.ema,
        )  # fmt: skip

    def fields(self) -> Mapping[str, StateField]:
        """Weights, moments, averaged weights; scales and axes; the last T records, raw, missing values filled
        with the last one (NaN before the first); and R windows of such records."""
        D, P = self.shape.D, self.shape.size
        return {
            **self.windowed.fields(P),
            **scale.fields(D),
            **axes.fields(D, self.settings.normalisation),
            **(often.fields(D) if self.shape.joint else {}),
            **stretch.fields(D),
        }

    def start(self, slab: Slab, row: int, learner: Learner) -> None:
        """Weights drawn from the learner's name, or those that the task has."""
        if slab.host("updates")[row]:
            return
        drawn_by = self.settings.drawn_by(learner)
        noise = generator(drawn_by.seed, drawn_by.topic, drawn_by.key, self.name, 0)
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
        heed: Heed | None = None,
    ) -> Scores:
        """See `OnlineModel.run`. One record at a time with fixed shapes: no result depends on its batch."""
        scores = Scores.empty(len(value_ND), self.shape.D, self.surprises)
        time_NC = ticks.time_NC.astype(np.float32)
        for n, row in enumerate(row_N.tolist()):
            self.windowed.begin(slab, row)
            if ticks.broken_N[n]:
                self.windowed.begin_anew(slab, row)
            # Units of a scale may underflow a quotient of huge values: it is bounded right after.
            with torch.inference_mode(), np.errstate(over="ignore"):
                gradient_D = self._score(slab, row, value_ND[n], time_NC[n], scores, n)
                anomalous = heed is not None and heed(scores, n)
                if ticks.late_N[n]:
                    continue
                value_D = value_ND[n]
                if anomalous:
                    value_D = self.settings.taught(scores, n, value_D, Span.of(slab, row))
                if learn and not anomalous:
                    stretch.observe(slab, row, gradient_D)
                complete = self._advance(slab, row, value_D, time_NC[n])
            if complete and learn:
                self.windowed.learn(slab, row, learners[row], scores, self.loss_and_gradient)
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
        sequences = self.sequences(slab, row, learner)
        nothing_TD = np.full((length, self.shape.D), np.nan)
        if kind == "prior":
            return sequences.sample(length, count, seed, ahead=True)
        if kind == "impute":
            return sequences.impute(nothing_TD if given_TD is None else given_TD)[None]
        fixed_TD = given_TD if given_TD is not None and kind == "what-if" else nothing_TD
        return sequences.go_on(fixed_TD, count, seed)

    def likelihood(
        self, slab: Slab, row: int, learner: Learner, value_ND: Floats, ticks: Ticks, draws: int, seed: int
    ) -> Likelihood:
        """See `OnlineModel.likelihood`. The bounds are of what sequences come from: averaged weights, scales
        and axes as they are."""
        bounds = self.sequences(slab, row, learner).bounds(value_ND, ticks, draws, seed)
        return replace(one_step(self, slab, row, learner, value_ND, ticks), bounds=bounds)

    def sequences(self, slab: Slab, row: int, learner: Learner) -> Sequences:
        """What the learner gives, as it stands."""
        settings = self.settings
        return Sequences(self.shape, settings.dof, settings.normalisation, self.windowed, slab, row, learner)

    def _score(
        self, slab: Slab, row: int, value_D: Floats, time_C: Float32s, scores: Scores, n: int
    ) -> Floats:
        """Score record n against the state before it, and write the result into `scores`. Returns what the
        stretch learns from it, nothing where the record was judged by its level."""
        before, now = Scale.of(slab, row), Axes.of(slab, row, self.settings.normalisation, compressed)
        network = self._network(slab.tensor("weights_P")[row], now, slab.host("stretch_D")[row])
        fill = self.windowed.fill(slab, row)
        value_1TD, seen_1TD, time_1TC = self.windowed.records(
            slab, row, slice(max(fill - self.T + 1, 0), fill)
        )
        input_1TI = self._tensor(now.window(*hidden((value_1TD, seen_1TD, time_1TC), time_C[None, None])))
        if fill:
            z_1Z, _ = network.encode(input_1TI)
            last = warm(network, z_1Z, input_1TI[:, :-1], value_1TD)
            mixture, _ = following(network, z_1Z, last, input_1TI[:, -1, 3 * self.shape.D :])
            origin_D, unit_D = before.last_D, now.delta_D
        else:  # behind a gap: the first record of a window
            mixture = network.first(network.encode(input_1TI[:, :0])[0], self._tensor(time_C[None]))
            origin_D, unit_D = now.mean_D, now.unit_D
        scores.step_N[n] = slab.host("updates")[row]
        gradient_D = judged(scores, n, value_D, mixture, origin_D, unit_D, before)
        return gradient_D if fill else np.zeros_like(gradient_D)

    def _advance(self, slab: Slab, row: int, value_D: Floats, time_C: Float32s) -> bool:
        """Move scales, axes and window over a record; True when it is time to learn."""
        there_D = ~np.isnan(value_D)
        axes.observe(slab, row, self.settings.normalisation, value_D, there_D)
        if self.shape.joint:
            Often.of(slab, row).observe(value_D)
        # After the scales have seen it, the newest value of each feature is this record's, where it has one.
        return self.windowed.push(slab, row, (Scale.of(slab, row).last_D, there_D, time_C))

    def loss_and_gradient(
        self, slab: Slab, row: int, windows_B: Parts, noise: np.random.Generator
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
            whole = None
            if self.shape.joint:
                whole = self._whole(slab, row, now, value_BTD, target_BTD, known_BTD, noise)
            windows = Windows(
                self._tensor(now.window(value_BTD, seen_BTD, time_BTC)),
                self._tensor(now.window(stopped_BTD, seen_BTD & visible_BT1, time_BTC)),
                self._tensor(target_BTD),
                self._tensor(known_BTD),
                whole,
            )
        eps_BZ = self._tensor(noise.standard_normal((B, self.shape.Z)).astype(np.float32))
        annealed = min(1.0, int(slab.host("updates")[row]) / settings.kl_annealing)
        weights_P = slab.tensor("weights_P")[row].detach().clone().requires_grad_()
        network = self._network(weights_P, now)
        loss = network.loss(windows, eps_BZ, settings.kl_weight * annealed, settings.free_bits)
        (gradient_P,) = torch.autograd.grad(loss, weights_P)
        return float(loss.detach()), gradient_P

    def _whole(
        self,
        slab: Slab,
        row: int,
        now: Axes,
        value_BTD: Floats,
        target_BTD: Floats,
        known_BTD: Bools,
        noise: np.random.Generator,
    ) -> Whole:
        """Some of the steps, drawn anew for each update: the density of whole records has 14 components for
        each feature, and costs as much as all the rest."""
        whole_N = known_BTD[:, 1:].all(2).ravel()
        drawn_M = noise.permutation(len(whole_N))[: math.ceil(len(whole_N) * self.settings.joint_share)]
        index_M = drawn_M[whole_N[drawn_M]]
        b_M, t_M = np.divmod(index_M, self.T - 1)
        y_MD = target_BTD[b_M, t_M + 1]
        y_MD = y_MD + Span.of(slab, row).jitter() / now.delta_D * noise.standard_normal(y_MD.shape)
        places = now.places(value_BTD[b_M, t_M], value_BTD[b_M, np.maximum(t_M - 1, 0)])
        at = Places(*map(self._tensor, places))
        return Whole(self._tensor(index_M), at, self._tensor(y_MD), len(drawn_M) / len(whole_N))

    def _network(self, weights_P: Tensor, now: Axes, stretch_D: Floats | None = None) -> SequenceVAE:
        return network_of(self.shape, self.settings.dof, weights_P, now, stretch_D)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)
