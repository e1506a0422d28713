"""stream_ae: a streaming autoencoder whose recurrent state is carried across the whole stream.

One record a step. From the carried state the model gives the distribution of the next record, scores the
record against it, encodes the record, and moves the state on.

The network is in `recurrent_t`: a Student-t whose latent has a prior conditioned on the state, with
likelihood, encoder and marginals in closed form. Training: truncated back-propagation through each full
window, one Adam step (Kingma & Ba 2015) a window.

Shapes: B steps whose distributions are computed in one call, T steps of a window, D features, H hidden units
of a layer, S of all recurrent layers, K latent dimensions, C time features, F = H + 2D + C.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from streamgen.config import WindowConfig
from streamgen.models import fan, scale, units
from streamgen.models.activation import Activation
from streamgen.models.caution import CautiousSettings
from streamgen.models.contributions import shares
from streamgen.models.factor_t import given_scale, half_width, likelihood
from streamgen.models.likelihood import Likelihood
from streamgen.models.noise import generator
from streamgen.models.one_step import one_step
from streamgen.models.online import Heed, Kind, Learner, Scores, check_kind
from streamgen.models.optimiser import Optimiser
from streamgen.models.recurrent_t import Shape, carry, predict, window_loss
from streamgen.models.scale import Scale
from streamgen.models.slab import Field as StateField
from streamgen.models.slab import Slab
from streamgen.models.span import Span
from streamgen.models.units import Normalisation
from streamgen.records import Bools, Floats, Ints
from streamgen.windows import TIME_FEATURES, Ticks, steady_times

Float32s = NDArray[np.float32]
PAUSE = 3  # windows, the longest pause between forecasts that correct the fan: each costs a few updates


@dataclass(frozen=True, slots=True)
class _Record:
    """One record on its way into the state; `unit_D` is that of its step. Values are filled where they are
    missing, once it is known what was expected in their place."""

    there_D: Bools
    value_D: Floats
    unit_D: Floats
    time_C: Float32s
    time_1C: Tensor
    target_1D: Tensor
    seen_1D: Tensor

    def filled(self, expected_D: Floats) -> _Record:
        """What the state sees of a missing value is what was expected in its place, if anything was."""
        instead_D = np.where(np.isnan(expected_D), 0.0, expected_D)
        return replace(self, value_D=np.where(self.there_D, self.value_D, instead_D))


class Settings(CautiousSettings):
    """Settings of `stream_ae`."""

    presets = {  # noqa: RUF012 (pydantic's own, of the class)
        "full": {"normalisation": "whitening"},
        # Plain: widths of 128 and 64, leaky ReLU, a Gaussian. (A t of the most degrees of freedom is one to a
        # 500th of a nat within two deviations.)
        "paper": {
            "hidden": 128, "dense": 64, "activation": "leaky_relu", "normalisation": "standard",
            "dof": 1000.0, "clip_norm": None,
        },
    }  # fmt: skip

    name: Literal["stream_ae"] = "stream_ae"
    preset: Literal["light", "full", "paper"] = Field(
        "light",
        description="light: one update a window; full: several, on a reservoir of past windows; paper: the "
        "plain network, one update a window.",
    )
    hidden: int = Field(32, ge=1, le=1024, description="Units of a recurrent layer.")
    layers: int = Field(1, ge=1, le=8, description="Recurrent layers, one on the other.")
    dense: int | None = Field(None, ge=1, le=1024, description="Units of the dense layer; null: as hidden.")
    activation: Activation = Field("tanh", description="What the dense layer applies.")
    latent: int = Field(
        2, ge=1, le=64, description="Dimensions of the latent, at most the features; not full."
    )
    learning_rate: float = Field(0.002, gt=0, le=1, description="The optimiser's step size.")
    dof: float = Field(4.0, gt=2, le=1000, description="Degrees of freedom of the Student-t likelihood.")
    normalisation: Normalisation = Field(
        "robust", description="Units of what the network sees and is judged in; full: whitening."
    )
    components: int = Field(5, ge=1, le=64, description="full: components of the mixture.")
    burn_in: int = Field(16, ge=1, le=1024, description="full: records before a window that renew its state.")
    ema: float = Field(0.995, ge=0, lt=1, description="full: decay of the averaged weights.")
    reservoir: int = Field(1024, ge=0, description="full: past windows kept; 0: none.")
    recent: float = Field(
        0.5, ge=0, le=1, description="full: share of past windows in a minibatch that are drawn by recency."
    )
    updates: int = Field(2, ge=1, le=100, description="full: updates a window.")
    batch: int = Field(8, ge=1, le=4096, description="full: windows of a minibatch, the newest among them.")

    @model_validator(mode="after")
    def _whitening_is_of_full(self) -> Self:
        if self.normalisation == "whitening" and self.preset != "full":
            raise ValueError(
                f"normalisation: whitening needs preset: full; with {self.preset} it is the latent that "
                "takes up what moves together"
            )
        return self

    def idle(self) -> dict[str, str]:
        idle = super().idle()
        if self.preset == "full":
            idle["latent"] = "preset: full"
            return idle | ({} if self.reservoir else dict.fromkeys(("batch", "recent"), "reservoir: 0"))
        of_full = ("components", "burn_in", "ema", "reservoir", "recent", "updates", "batch")
        return idle | dict.fromkeys(of_full, f"preset: {self.preset}")


class StreamAE:
    """The online learner: scores a record, encodes it, moves the state, learns at the window's end."""

    name = "stream_ae"
    kinds: tuple[Kind, ...] = ("continue", "prior")
    surprises = 3  # after the record before; for the stream at all; of the recent level

    def __init__(self, settings: Settings, features: int, window: WindowConfig, device: str) -> None:
        self.settings, self.cautious = settings, settings.cautious
        latent = min(settings.latent, features)
        self.shape = Shape(features, settings.hidden, latent, TIME_FEATURES, settings.layers, settings.dense)
        self.T, self.stride = window.length, window.stride or window.length
        self.device = torch.device(device)
        self._views: dict[int, dict[str, Tensor]] = {}
        self._views_of: tuple[Slab | None, int] = (None, -1)
        self._optimiser = Optimiser(settings)
        self._t90 = half_width(settings.dof, 0.9)

    def fields(self) -> Mapping[str, StateField]:
        """Weights, moments, carried state, scales, and the open window of T records."""
        D, S, C = self.shape.D, self.shape.S, self.shape.C

        def tensor(*shape: int) -> StateField:
            return StateField(shape, dtype="float32", on_device=True)

        return {
            **self._optimiser.fields(self.shape.size),
            "hidden_1S": tensor(1, S),
            "skip_12D": tensor(1, 2 * D),
            **scale.fields(D),
            **units.fields(D, self.settings.normalisation),
            **fan.fields(self.T, D),
            "window_fill": StateField(dtype="int64"),
            "window_hidden_TS": tensor(self.T, S),
            "window_skip_T2D": tensor(self.T, 2 * D),
            "window_input_TI": tensor(self.T, 3 * D + C),
            "window_target_TD": tensor(self.T, D),
            "window_seen_TD": tensor(self.T, D),
        }

    def start(self, slab: Slab, row: int, learner: Learner) -> None:
        """Uniform ±1/√H weights (as torch's GRU); zero output, skip and biases: the first prediction is the
        last value with the running step as its scale. Or the weights that the task has."""
        if slab.host("updates")[row]:
            return
        drawn_by = self.settings.drawn_by(learner)
        noise = generator(drawn_by.seed, drawn_by.topic, drawn_by.key, self.name, 0)
        drawn_P = torch.from_numpy(noise.uniform(-1.0, 1.0, self.shape.size).astype(np.float32))
        w = self.shape.views(drawn_P)
        for name, view in w.items():
            if name.endswith(("_IG", "_HG", "_FH", "_KD")):
                view.mul_(1.0 / math.sqrt(self.shape.H if name.startswith("gru") else view.shape[0]))
            else:
                view.zero_()
        w["loading_KD"].mul_(0.1)
        slab.tensor("weights_P")[row] = drawn_P.to(self.device)

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
            self._optimiser.begin(slab, row)
            if ticks.broken_N[n]:
                slab.host("window_fill")[row] = 0
                fan.drop(slab, row)
            # Units of a scale may underflow a quotient of huge values: it is bounded right after.
            with torch.inference_mode(), np.errstate(over="ignore"):
                value_D = value_ND[n]
                record = self._score(slab, row, value_D, time_NC[n], scores, n)
                anomalous = heed is not None and heed(scores, n)
                if ticks.late_N[n]:
                    continue
                if anomalous:
                    value_D = self.settings.taught(scores, n, value_D, Span.of(slab, row))
                    record = self._record(slab, row, value_D, time_NC[n]).filled(scores.expected_ND[n])
                if learn:
                    fan.observe(slab, row, value_D, ~np.isnan(value_D), PAUSE)
                complete = self._advance(slab, row, value_D, record)
            if complete and not learn:
                self._slide(slab, row)
            elif complete:
                began = perf_counter()
                loss = self._learn(slab, row)
                if loss is None:
                    scores.skipped.append(row)
                else:
                    scores.loss.append(loss)
                    scores.seconds.append(perf_counter() - began)
            if learn and fan.due(slab, row):
                with np.errstate(over="ignore", invalid="ignore"):
                    fan.forecast(
                        slab, row, self.name, learners[row], int(ticks.time_N[n]), float(ticks.gap_N[n]),
                        partial(self._ahead, slab, row), PAUSE,
                    )  # fmt: skip
        return scores

    def collect(self, slab: Slab, row: int) -> None:
        """All state is in the row."""

    def adopt(self, slab: Slab, row: int, learner: Learner) -> None:
        """All state is in the row."""

    def release(self, slab: Slab, row: int) -> None:
        """The kept views are of the row's memory, whosever learner is in it."""

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
        """[count, length, D] samples that go on from the carried state or, of the kind prior, from the state
        before any record, at the mean, in input units.

        Each step draws z, ε and the shared χ² of the Student-t from a generator keyed by the learner, its
        updates and `seed`, and keeps to the `span`: continued, to its grid and order. Time goes on at the
        key's usual step.
        """
        check_kind(self, kind)
        updates = int(slab.host("updates")[row])
        what = "generate" if kind == "continue" else kind
        noise = generator(learner.seed, learner.topic, learner.key, f"{self.name}.{what}.{seed}", updates)
        newest, gap = int(slab.host("clock_newest")[row]), float(slab.host("clock_gap")[row])
        time_TC = steady_times(newest, np.arange(1, length + 1), gap)
        seen = Span.of(slab, row)
        # The fan widens each step for what the sum of several lacks: kept to steps that were, this were lost.
        span = seen if kind == "prior" else seen.anywhere().jumping()
        return self._ahead(slab, row, noise, time_TC, count, kind == "prior", span)

    def _ahead(
        self,
        slab: Slab,
        row: int,
        noise: np.random.Generator,
        time_TC: Floats,
        count: int,
        prior: bool = False,
        span: Span | None = None,
    ) -> Floats:
        """[count, T, D] records of the given times that follow the newest, or (`prior`) none, and keep to the
        span. The fan's forecasts do without: it takes several times as long, and cuts tails off, where the
        fan looks at the central four fifths."""
        D, dof = self.shape.D, self.settings.dof
        now, w = Scale.of(slab, row), self.weights(slab, row)
        origin_D, level_D, unit_D = units.units(slab, row, self.settings.normalisation)
        last_BD = np.tile(np.where(now.count_D > 0, now.last_D, now.mean_D), (count, 1))
        hidden_BS = slab.tensor("hidden_1S")[row].repeat(count, 1)
        skip_B2D = slab.tensor("skip_12D")[row].repeat(count, 1)
        if prior:
            last_BD = np.tile(now.mean_D, (count, 1))
            hidden_BS, skip_B2D = torch.zeros_like(hidden_BS), torch.zeros_like(skip_B2D)
        out_BTD = np.empty((count, len(time_TC), D))
        with torch.inference_mode():
            for t in range(len(time_TC)):
                wider = 0.0 if prior else fan.widening(slab, row, t + 1)
                time_BC = torch.from_numpy(np.tile(time_TC[t].astype(np.float32), (count, 1))).to(self.device)
                p = predict(w, hidden_BS, skip_B2D, time_BC, dof, self.settings.activation)
                p, before_BD = p.wider(wider), last_BD
                if span is None:
                    last_BD = before_BD + unit_D * p.draw(noise).cpu().numpy().astype(np.float64)
                else:
                    last_BD = span.draw(p, noise, before_BD, unit_D)
                step_BD, out_BTD[:, t] = last_BD - before_BD, last_BD
                input_BI = np.concatenate(
                    [
                        4.0 * np.tanh((last_BD - origin_D) / level_D / 4.0),
                        4.0 * np.tanh(step_BD / unit_D / 4.0),
                        np.ones((count, D)),
                        np.tile(time_TC[t], (count, 1)),
                    ],
                    axis=1,
                )
                input_BI_ = torch.from_numpy(input_BI.astype(np.float32)).to(self.device)
                hidden_BS = carry(w, hidden_BS, input_BI_)
                skip_B2D = input_BI_[:, : 2 * D]
        return out_BTD

    def likelihood(
        self, slab: Slab, row: int, learner: Learner, value_ND: Floats, ticks: Ticks, draws: int, seed: int
    ) -> Likelihood:
        """See `OnlineModel.likelihood`. The encoder is exact, so a bound would be the likelihood."""
        return one_step(self, slab, row, learner, value_ND, ticks)

    def weights(self, slab: Slab, row: int) -> dict[str, Tensor]:
        """Views of a row's parameters, kept while the slab is not reallocated."""
        if self._views_of[0] is not slab or self._views_of[1] != slab.generation:
            self._views, self._views_of = {}, (slab, slab.generation)
        if row not in self._views:
            self._views[row] = self.shape.views(slab.tensor("weights_P")[row])
        return self._views[row]

    def _score(
        self, slab: Slab, row: int, value_D: Floats, time_C: Float32s, scores: Scores, n: int
    ) -> _Record:
        """Score record n against the state before it, and write the result into `scores`."""
        D = self.shape.D
        now, record = Scale.of(slab, row), self._record(slab, row, value_D, time_C)
        unit_D, first_D = record.unit_D, now.count_D == 0
        seen_D = record.there_D & ~first_D
        w = self.weights(slab, row)
        hidden_1S, skip_12D = slab.tensor("hidden_1S")[row], slab.tensor("skip_12D")[row]
        p = predict(w, hidden_1S, skip_12D, record.time_1C, self.settings.dof, self.settings.activation)
        scored = likelihood(p, record.target_1D, record.seen_1D)
        host_out = torch.cat(
            [scored.nll_B, scored.tail_B, scored.quadratic_BD[0], scored.expected_BD[0], p.scale_BD()[0]]
        )
        out = host_out.cpu().numpy().astype(np.float64)
        nll, tail = float(out[0]), float(out[1])
        quadratic_D, expected_D, scale_D = out[2 : 2 + D], out[2 + D : 2 + 2 * D], out[2 + 2 * D :]
        scores.step_N[n] = slab.host("updates")[row]
        if seen_D.any():
            # In nats of δ, whatever the units.
            delta_D = now.delta()[seen_D]
            nll += float(np.log(unit_D[seen_D] / delta_D).sum())
            scores.nll_N[n], scores.log_step_N[n] = nll, np.log(delta_D).sum()
            dof = self.settings.dof
            strangeness, drift = (ask(value_D, seen_D, dof) for ask in (now.strangeness, now.drift))
            scores.surprise_NS[n] = nll, strangeness, drift
            scores.contribution_ND[n] = shares(nll, tail, quadratic_D, seen_D)
        centre_D = np.where(first_D, np.nan, now.last_D + unit_D * expected_D)
        scores.expected_ND[n] = centre_D
        half_D = self._t90 * scale_D
        if seen_D.any() and not (seen_D | first_D).all():
            # Missing ones are expected beside those that are there: so is their interval.
            beside_BD = given_scale(p, record.seen_1D, scored.quadratic_BD.sum(1).clamp_min(0.0))
            t90 = half_width(self.settings.dof + int(seen_D.sum()), 0.9)
            half_D = np.where(seen_D, half_D, t90 * beside_BD[0].cpu().numpy().astype(np.float64))
        scores.low_ND[n], scores.high_ND[n] = centre_D - unit_D * half_D, centre_D + unit_D * half_D
        return record.filled(centre_D)

    def _record(self, slab: Slab, row: int, value_D: Floats, time_C: Float32s) -> _Record:
        """A record as the state before it sees it."""
        D, C, now = self.shape.D, self.shape.C, Scale.of(slab, row)
        _, _, unit_D = units.units(slab, row, self.settings.normalisation)
        there_D = ~np.isnan(value_D)
        seen_D = there_D & (now.count_D > 0)
        # One small buffer crosses to the device: time features, then target and mask.
        host = np.empty(C + 2 * D, dtype=np.float32)
        host[:C] = time_C
        y_D = np.minimum(np.maximum((value_D - now.last_D) / unit_D, -1e6), 1e6)
        host[C : C + D] = np.where(seen_D, y_D, 0.0)
        host[C + D :] = seen_D
        device_1 = torch.from_numpy(host).to(self.device)[None]
        time_1C, target_1D, seen_1D = device_1[:, :C], device_1[:, C : C + D], device_1[:, C + D :]
        return _Record(there_D, value_D, unit_D, time_C, time_1C, target_1D, seen_1D)

    def _advance(self, slab: Slab, row: int, value_D: Floats, record: _Record) -> bool:
        """Move scales, window and carried state over a record; True when the window is complete."""
        D, C = self.shape.D, self.shape.C
        now, kind = Scale.of(slab, row), self.settings.normalisation
        step_D = value_D - now.last_D  # NaN where one is missing
        last_D = np.where(np.isnan(now.last_D), record.value_D, now.last_D)
        now.observe(value_D, record.there_D)
        units.observe(slab, row, kind, value_D, step_D)
        origin_D, level_D, _ = units.units(slab, row, kind)
        host = np.empty(3 * D + C, dtype=np.float32)
        host[:D] = 4.0 * np.tanh((record.value_D - origin_D) / level_D / 4.0)
        host[D : 2 * D] = 4.0 * np.tanh((record.value_D - last_D) / record.unit_D / 4.0)
        host[2 * D : 3 * D] = record.there_D
        host[3 * D :] = record.time_C
        input_1I = torch.from_numpy(host).to(self.device)[None]
        hidden_1S, skip_12D = slab.tensor("hidden_1S")[row], slab.tensor("skip_12D")[row]
        fill = int(slab.host("window_fill")[row])
        for name, part in (
            ("window_hidden_TS", hidden_1S), ("window_skip_T2D", skip_12D), ("window_input_TI", input_1I),
            ("window_target_TD", record.target_1D), ("window_seen_TD", record.seen_1D),
        ):  # fmt: skip
            slab.tensor(name)[row, fill] = part[0]
        slab.host("window_fill")[row] = fill + 1
        hidden_1S.copy_(carry(self.weights(slab, row), hidden_1S, input_1I))
        skip_12D.copy_(input_1I[:, : 2 * D])
        return fill + 1 == self.T

    def _learn(self, slab: Slab, row: int) -> float | None:
        """One update on the complete window; None when it was skipped as not finite."""
        loss, gradient_P = self.loss_and_gradient(slab, row)
        done = math.isfinite(loss) and self._optimiser.step(slab, row, gradient_P)
        self._slide(slab, row)
        return loss if done else None

    def _slide(self, slab: Slab, row: int) -> None:
        """The complete window goes on by its stride."""
        keep = self.T - self.stride
        for name in self._WINDOW:
            window = slab.tensor(name)[row]
            window[:keep] = window[self.stride :].clone()
        slab.host("window_fill")[row] = keep

    _WINDOW = ("window_hidden_TS", "window_skip_T2D", "window_input_TI", "window_target_TD", "window_seen_TD")

    def loss_and_gradient(self, slab: Slab, row: int) -> tuple[float, Tensor]:
        """Mean nll per seen value over the window (nats), and its gradient [P] by back-propagation through
        the T steps, from the carried state with which the window began."""
        weights_P = slab.tensor("weights_P")[row].detach().clone().requires_grad_()
        w = self.shape.views(weights_P)
        hidden_TS, skip_T2D, input_TI, target_TD, seen_TD = (slab.tensor(name)[row] for name in self._WINDOW)
        loss = window_loss(
            w,
            hidden_TS[:1],
            skip_T2D,
            input_TI,
            target_TD,
            seen_TD,
            self.settings.dof,
            self.settings.activation,
        )
        (gradient_P,) = torch.autograd.grad(loss, weights_P)
        return float(loss.detach()), gradient_P
