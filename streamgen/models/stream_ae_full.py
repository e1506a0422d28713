"""stream_ae with `preset: full`: the carried state of a stream at full quality, learned online.

The network is in `carried`, the units in `axes`. Each record is scored from the carried state h_{t−1} in O(1)
and moves it on. Every `stride` records brings `updates` steps of the optimiser, each on the newest window and
others from a reservoir of all that ever were (`reservoir`). A window is `burn_in` records and the T that are
learned from, with the carried state as it was before them: since then the weights have moved, so the state
is led through the first records again, without a gradient, before it is used (stored state and burn-in:
Kapturowski et al. 2019, "Recurrent experience replay"). After the updates the newest window's states, the
carried one with them, are what the new weights say of it.

Newest weights score and carry the state. Sequences come from averaged ones (`averaging`), which are first led
through the newest window. Spreads are corrected by honest predictions (`stretch`), those of sequences also by
honest forecasts (`fan`).

Shapes: B windows of S = burn_in + T records, D features, H units of the carried state (of all layers), C time
features, I inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamgen.config import WindowConfig
from streamgen.models import axes, fan, scale, stretch
from streamgen.models.axes import Axes, Float32s, bounded
from streamgen.models.carried import Carried, Shape
from streamgen.models.initial import initial
from streamgen.models.judged import judged
from streamgen.models.likelihood import Likelihood
from streamgen.models.noise import generator
from streamgen.models.one_step import one_step
from streamgen.models.online import Heed, Kind, Learner, Scores, check_kind
from streamgen.models.scale import RECENT, Scale
from streamgen.models.slab import Field as StateField
from streamgen.models.slab import Slab
from streamgen.models.span import Span
from streamgen.models.stream_ae import Settings
from streamgen.models.windowed import Parts, Windowed
from streamgen.records import Floats, Ints
from streamgen.windows import TIME_FEATURES, Ticks, likeness, steady_times


class StreamAEFull:
    """The online learner: scores a record, moves the state, learns every stride."""

    name = "stream_ae"
    kinds: tuple[Kind, ...] = ("continue", "prior")
    surprises = 3  # after the record before; for the stream at all; of the recent level

    def __init__(self, settings: Settings, features: int, window: WindowConfig, device: str) -> None:
        self.settings, self.cautious = settings, settings.cautious
        self.shape = Shape(
            features, settings.hidden, settings.components, TIME_FEATURES, settings.layers, settings.dense,
            settings.activation,
        )  # fmt: skip
        self.T = window.length
        self.S = settings.burn_in + self.T
        self.device = torch.device(device)
        window_fields = {
            "window_value_SD": StateField((self.S, features)),
            "window_seen_SD": StateField((self.S, features), dtype="bool"),
            "window_time_SC": StateField((self.S, TIME_FEATURES), dtype="float32"),
            "window_swing_SD": StateField((self.S, features)),  # with this record
            "window_state_SH": StateField((self.S, self.shape.S), dtype="float32"),  # before this record
        }
        self.windowed = Windowed(
            self.name, settings, window_fields, window.stride or window.length, reservoir=settings.reservoir,
            recent=settings.recent, updates=settings.updates, batch=settings.batch, ema=settings.ema,
        )  # fmt: skip

    def fields(self) -> Mapping[str, StateField]:
        """Weights, moments, averaged weights; scales and axes; the carried state and the newest record as the
        network saw it; the last S records, raw, missing values filled with the last one (NaN before the
        first); and a reservoir of such windows."""
        D, P = self.shape.D, self.shape.size
        return {
            **self.windowed.fields(P),
            **scale.fields(D),
            **axes.fields(D, self.settings.normalisation),
            **stretch.fields(D),
            **fan.fields(self.T, D),
            "state_1H": StateField((1, self.shape.S), dtype="float32", on_device=True),
            "input_1I": StateField((1, 4 * D + self.shape.C), dtype="float32", on_device=True),
        }

    def start(self, slab: Slab, row: int, learner: Learner) -> None:
        """Weights drawn from the learner's name, or those that the task has."""
        if slab.host("updates")[row]:
            return
        drawn_by = self.settings.drawn_by(learner)
        noise = generator(drawn_by.seed, drawn_by.topic, drawn_by.key, self.name, 0)
        drawn_P = torch.from_numpy(noise.uniform(-1.0, 1.0, self.shape.size).astype(np.float32))
        weights_P = initial(self.shape.parameters, self.shape.H, self.shape.K, drawn_P)
        slab.tensor("weights_P")[row] = slab.tensor("average_P")[row] = weights_P

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
                fan.drop(slab, row)
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
                if learn:
                    fan.observe(slab, row, value_D, ~np.isnan(value_D))
                complete = self._advance(slab, row, value_D, time_NC[n])
            if complete:
                if learn:
                    self.windowed.learn(slab, row, learners[row], scores, self.loss_and_gradient)
                self._carry_anew(slab, row)
            if learn and fan.due(slab, row):
                with np.errstate(over="ignore"):
                    fan.forecast(
                        slab, row, self.name, learners[row], int(ticks.time_N[n]), float(ticks.gap_N[n]),
                        partial(self._ahead, slab, row),
                    )  # fmt: skip
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
        """[count, length, D] samples in input units that go on from the carried state or, of the kind prior,
        from that of a kept window whose hour and weekday are near those of now: each step draws a component
        and its Student-t, keeps to the `span`, and is the record before the next. Time goes on at the key's
        usual step."""
        check_kind(self, kind)
        updates = int(slab.host("updates")[row])
        what = "generate" if kind == "continue" else kind
        noise = generator(learner.seed, learner.topic, learner.key, f"{self.name}.{what}.{seed}", updates)
        newest, gap = int(slab.host("clock_newest")[row]), float(slab.host("clock_gap")[row])
        time_TC = steady_times(newest, np.arange(1, length + 1), gap)
        return self._ahead(slab, row, noise, time_TC, count, prior=kind == "prior")

    def likelihood(
        self, slab: Slab, row: int, learner: Learner, value_ND: Floats, ticks: Ticks, draws: int, seed: int
    ) -> Likelihood:
        """See `OnlineModel.likelihood`. The latent is summed over, so this is no bound."""
        return one_step(self, slab, row, learner, value_ND, ticks)

    def _ahead(
        self,
        slab: Slab,
        row: int,
        noise: np.random.Generator,
        time_TC: Floats,
        count: int,
        prior: bool = False,
    ) -> Floats:
        """[count, T, D] records of the given times that follow the newest, or (`prior`) kept ones."""
        now = Axes.of(slab, row, self.settings.normalisation, bounded)
        averaged_P = slab.tensor("average_P")[row]
        # What was too narrow are predictions of records to come.
        stretch_D = np.zeros_like(now.mean_D) if prior else slab.host("stretch_D")[row]
        span = Span.of(slab, row) if prior else Span.of(slab, row).anywhere()
        length = len(time_TC)
        out_BTD = np.empty((count, length, self.shape.D))
        with torch.inference_mode():
            network = self._network(averaged_P, now)
            value_BD, swing_BD, input_BI, state_BH = (
                self._kept(slab, row, network, now, noise, time_TC[0], count) if prior else None
            ) or self._open(slab, row, network, now, count)
            seen_BD = np.ones(value_BD.shape, dtype=np.bool_)
            for t in range(length):
                wider = 0.0 if prior else fan.widening(slab, row, t + 1)
                network = self._network(averaged_P, now, stretch_D + wider)
                time_BC = np.tile(time_TC[t].astype(np.float32), (count, 1))
                mixture = network.next(state_BH, input_BI, self._tensor(time_BC))
                before_BD = value_BD
                out_BTD[:, t] = value_BD = span.draw(mixture, noise, before_BD, now.delta_D)
                swing_BD = swing_BD + (np.abs(value_BD - before_BD) - swing_BD) / RECENT
                input_BI = self._tensor(_inputs(now, value_BD, before_BD, seen_BD, time_BC, swing_BD))
                state_BH = network.carry(input_BI[:, None], state_BH)[:, 0]
        return out_BTD

    def _open(self, slab: Slab, row: int, network: Carried, now: Axes, count: int) -> _Start:
        """After the newest record."""
        last_D = Scale.of(slab, row).last_D
        one = np.where(np.isnan(last_D), now.mean_D, last_D), slab.host("swing_D")[row]
        value_BD, swing_BD = (np.tile(one_D, (count, 1)) for one_D in one)
        input_BI = slab.tensor("input_1I")[row].repeat(count, 1)
        return _Start(
            value_BD, swing_BD, input_BI, self._states(slab, row, network, now)[-1:].repeat(count, 1)
        )

    def _kept(
        self, slab: Slab, row: int, network: Carried, now: Axes, noise: np.random.Generator, time_C: Floats,
        count: int,
    ) -> _Start | None:  # fmt: skip
        """After the first `burn_in` records of kept windows, where training has its windows begin; None when
        there are none."""
        kept = self.windowed.reservoir.kept(slab, row)
        if not kept:
            return None
        begin = self.settings.burn_in
        slot_B = noise.choice(len(kept[0]), count, p=likeness(kept[2][:, begin - 1], time_C))
        value_BSD, seen_BSD, time_BSC, swing_BSD = (field[slot_B, :begin] for field in kept[:4])
        with np.errstate(over="ignore"):
            input_BSI = self._tensor(_window_inputs(now, value_BSD, seen_BSD, time_BSC, swing_BSD))
        state_BSH = network.carry(input_BSI, self._tensor(kept[4][slot_B, 0]))
        value_BD = np.where(np.isnan(value_BSD[:, -1]), now.mean_D, value_BSD[:, -1])
        return _Start(value_BD, swing_BSD[:, -1], input_BSI[:, -1], state_BSH[:, -1])

    def _score(
        self, slab: Slab, row: int, value_D: Floats, time_C: Float32s, scores: Scores, n: int
    ) -> Floats:
        """Score record n against the state before it, and write the result into `scores`; see `judged`."""
        network, now = self._newest(slab, row)
        state_1H, input_1I = slab.tensor("state_1H")[row], slab.tensor("input_1I")[row]
        mixture = network.next(state_1H, input_1I, self._tensor(time_C[None]))
        before = Scale.of(slab, row)
        scores.step_N[n] = slab.host("updates")[row]
        return judged(scores, n, value_D, mixture, before.last_D, now.delta_D, before)

    def _advance(self, slab: Slab, row: int, value_D: Floats, time_C: Float32s) -> bool:
        """Move scales, axes, window and state over a record; True when it is time to learn."""
        there_D = ~np.isnan(value_D)
        before_D = Scale.of(slab, row).last_D.copy()
        axes.observe(slab, row, self.settings.normalisation, value_D, there_D)
        # After the scales have seen it, the newest value of each feature is this record's, where it has one.
        last_D, swing_D = Scale.of(slab, row).last_D, slab.host("swing_D")[row]
        state_1H, input_1I = slab.tensor("state_1H")[row], slab.tensor("input_1I")[row]
        record = (last_D, there_D, time_C, swing_D, state_1H[0].cpu().numpy())
        complete = self.windowed.push(slab, row, record)
        network, now = self._newest(slab, row)
        record_I = _inputs(now, last_D, before_D, there_D, time_C, swing_D)
        input_1I.copy_(self._tensor(record_I[None]))
        state_1H.copy_(network.carry(input_1I[:, None], state_1H)[:, 0])
        return complete

    def loss_and_gradient(
        self, slab: Slab, row: int, windows_B: Parts, noise: np.random.Generator | None = None
    ) -> tuple[float, Tensor]:
        """Mean nll per seen value over the last T records of each window (nats), and its gradient [P] by
        back-propagation through them, from the state that `burn_in` records lead to."""
        value_BSD, seen_BSD, time_BSC, swing_BSD, state_BSH = windows_B
        burn_in = self.settings.burn_in
        with np.errstate(over="ignore"):
            now = Axes.of(slab, row, self.settings.normalisation, bounded)
            input_BSI = self._tensor(_window_inputs(now, value_BSD, seen_BSD, time_BSC, swing_BSD))
            target_BSD, known_BSD = now.targets(value_BSD, seen_BSD)
        weights_P = slab.tensor("weights_P")[row].detach().clone().requires_grad_()
        network = self._network(weights_P, now)
        with torch.no_grad():
            state_BH = network.carry(input_BSI[:, :burn_in], self._tensor(state_BSH[:, 0]))[:, -1]
        # From the last of these records on, which is the one before the first that is learned from.
        learned = slice(burn_in - 1, None)
        loss = network.loss(
            state_BH,
            input_BSI[:, learned],
            self._tensor(target_BSD[:, learned]),
            self._tensor(known_BSD[:, learned]),
        )
        (gradient_P,) = torch.autograd.grad(loss, weights_P)
        return float(loss.detach()), gradient_P

    def _carry_anew(self, slab: Slab, row: int) -> None:
        """The states of the open window as the new weights have them."""
        with torch.inference_mode(), np.errstate(over="ignore"):
            state_SH = self._states(slab, row, *self._newest(slab, row))
        slab.host("window_state_SH")[row, 1:] = state_SH[:-1].cpu().numpy()
        slab.tensor("state_1H")[row] = state_SH[-1:]

    def _states(self, slab: Slab, row: int, network: Carried, now: Axes) -> Tensor:
        """The states after each of the open window's records, from the one with which it began, [≤ S, H]; the
        carried one when there are none."""
        if not self.windowed.fill(slab, row):
            return slab.tensor("state_1H")[row]
        *raw, state_1SH = self.windowed.records(slab, row)
        return network.carry(self._tensor(_window_inputs(now, *raw)), self._tensor(state_1SH[:, 0]))[0]

    def _newest(self, slab: Slab, row: int) -> tuple[Carried, Axes]:
        """What scores and carries the state."""
        now = Axes.of(slab, row, self.settings.normalisation, bounded)
        return self._network(slab.tensor("weights_P")[row], now, slab.host("stretch_D")[row]), now

    def _network(self, weights_P: Tensor, now: Axes, stretch_D: Floats | None = None) -> Carried:
        added_D = None if stretch_D is None else self._tensor(stretch_D.astype(np.float32))
        return Carried(self.shape, weights_P, self._tensor(now.step_DD), self.settings.dof, added_D)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)


class _Start(NamedTuple):
    """What B sequences go on from: the newest records, in input units; their recent steps; the records as the
    network sees them; the state after them."""

    value_BD: Floats
    swing_BD: Floats
    input_BI: Tensor
    state_BH: Tensor


def _inputs(
    now: Axes, value_D: Floats, before_D: Floats, seen_D: NDArray[np.bool_], time_C: Float32s, swing_D: Floats
) -> Float32s:
    """[..., I] records as the network sees them: u, d, mask, swing, time."""
    record_I, D = now.records(value_D, before_D, seen_D, time_C), value_D.shape[-1]
    parts = (record_I[..., : 3 * D], now.swing(swing_D), record_I[..., 3 * D :])
    return np.concatenate(parts, axis=-1, dtype=np.float32)


def _window_inputs(
    now: Axes, value_SD: Floats, seen_SD: NDArray[np.bool_], time_SC: Float32s, swing_SD: Floats
) -> Float32s:
    """[..., S, I] of windows. The first record has none before it that the window knows."""
    before_SD = np.concatenate([value_SD[..., :1, :], value_SD[..., :-1, :]], axis=-2)
    return _inputs(now, value_SD, before_SD, seen_SD, time_SC, swing_SD)
