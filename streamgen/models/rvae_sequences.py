"""Sequences of an `rvae` learner, and how likely it finds others: from averaged weights, as they stand.

Shapes: B sequences, T records of a window, D features, Z latent dimensions, R kept windows, C time features,
I inputs, S records to come.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from streamgen.models.axes import Axes, Float32s, compressed, held
from streamgen.models.free_run import drawn, drawn_given, expected, free_run, warm
from streamgen.models.likelihood import Bounds
from streamgen.models.noise import generator
from streamgen.models.online import Learner
from streamgen.models.scale import Scale
from streamgen.models.sequence_vae import SequenceVAE, Shape, Windows
from streamgen.models.slab import Slab
from streamgen.models.span import Span
from streamgen.models.units import Normalisation
from streamgen.models.windowed import Windowed
from streamgen.records import Bools, Floats, Ints
from streamgen.windows import Ticks, likeness, steady_times

Raw = tuple[Floats, Bools, Float32s]  # records as they came: value filled, there or not, time
_WEEK_MS = 7 * 86_400_000.0
_TRIED = 32  # draws of z, of which one is chosen


def network_of(
    shape: Shape, dof: float, weights_P: Tensor, now: Axes, stretch_D: Floats | None = None
) -> SequenceVAE:
    """The network with these weights, on their device."""
    added_D = None if stretch_D is None else stretch_D.astype(np.float32)
    level_DD, step_DD = (torch.from_numpy(one).to(weights_P.device) for one in (now.level_DD, now.step_DD))
    stretch = None if added_D is None else torch.from_numpy(added_D).to(weights_P.device)
    return SequenceVAE(shape, weights_P, level_DD, step_DD, dof, stretch)


class Sequences:
    """What one learner gives. Its row is read and not written."""

    def __init__(
        self, shape: Shape, dof: float, normalisation: Normalisation, windowed: Windowed, slab: Slab,
        row: int, learner: Learner,
    ) -> None:  # fmt: skip
        self.shape, self.T = shape, windowed.length
        self._dof, self._windowed, self._slab, self._row, self._learner = dof, windowed, slab, row, learner
        self._weights_P = slab.tensor("average_P")[row]
        self.now = Axes.of(slab, row, normalisation, compressed)

    def network(self, stretched: bool = True) -> SequenceVAE:
        """The stretch is of records to come, and not of those that were."""
        stretch_D = self._slab.host("stretch_D")[self._row] if stretched else None
        return network_of(self.shape, self._dof, self._weights_P, self.now, stretch_D)

    def go_on(self, fixed_TD: Floats, count: int, seed: int) -> Floats:
        """[count, T, D] samples that go on from the learner's last records, in input units.

        A quarter of a window at a time: z is drawn given the records before and what is fixed of those to
        come, with the same noise for all of a sequence, the decoder is led through them, and goes on by
        itself. So it never runs for longer than it was trained to. Each record is drawn given what is fixed
        of it. Time goes on at the key's usual step.
        """
        length = len(fixed_TD)
        noise = self._noise(f"generate.{seed}")
        network, now = self.network(), self.now
        span = Span.of(self._slab, self._row).anywhere()
        eps_BZ = noise.standard_normal((count, self.shape.Z)).astype(np.float32)
        ahead = max(self.T // 4, 1)
        value_BTD, seen_BTD, time_BTC = (
            np.tile(part, (count, 1, 1)) for part in self._windowed.records(self._slab, self._row)
        )
        fill = value_BTD.shape[1]
        future_TC = self._times(np.arange(1, length + 1))
        with torch.inference_mode():
            for t in range(0, length, ahead):
                new_BTC = np.tile(future_TC[t : t + ahead], (count, 1, 1))
                past = slice(-(self.T - new_BTC.shape[1]), None)
                parts = value_BTD[:, past], seen_BTD[:, past], time_BTC[:, past]
                fixed_SD = fixed_TD[t : t + ahead]
                input_BTI = self._tensor(now.window(*hidden(parts, new_BTC, fixed_SD)))
                mean_BZ, log_scale_BZ = network.encode(input_BTI)
                z_BZ = mean_BZ + torch.exp(log_scale_BZ) * self._tensor(eps_BZ)
                before = warm(network, z_BZ, input_BTI[:, : parts[0].shape[1]], parts[0])
                choose = (
                    drawn(noise, span) if np.isnan(fixed_SD).all() else drawn_given(noise, span, fixed_SD)
                )
                new_BTD = free_run(network, now, z_BZ, before, new_BTC, choose)
                value_BTD = np.concatenate([value_BTD, new_BTD], axis=1)
                seen_BTD = np.concatenate([seen_BTD, np.ones(new_BTD.shape, dtype=np.bool_)], axis=1)
                time_BTC = np.concatenate([time_BTC, new_BTC.astype(np.float32)], axis=1)
        drawn_BTD = value_BTD[:, fill:]
        # Out of the units of steps and back a fixed value has lost its last bits.
        return np.where(np.isnan(fixed_TD), drawn_BTD, fixed_TD)

    def sample(self, length: int, count: int, seed: int, ahead: bool = False) -> Floats:
        """[count, length, D] windows as the stream has them, in input units: none leaves the `span`.

        With a reservoir each goes on from two records that were kept one after the other, a level and a step,
        drawn uniformly, or (`ahead`) such that their hour and weekday are near those of the learner's newest;
        z is drawn given the first. (After one alone the network would have to guess whether the stream is at
        rest.) Without, z ~ N(0, I), the first record is drawn given z, and its time is uniform in the last
        week, or in the stream where that is shorter, or (`ahead`) the next record's.
        """
        noise = self._noise(f"sample.{seed}")
        network, now = self.network(stretched=False), self.now
        span = Span.of(self._slab, self._row)
        kept = self._windowed.reservoir.kept(self._slab, self._row)
        with torch.inference_mode(), np.errstate(over="ignore"):
            if not kept:
                return self._from_nowhere(network, span, noise, length, count, ahead)
            share_R = likeness(kept[2][:, 1], self._times(np.zeros(1))[0]) if ahead else None
            slot_B = noise.choice(len(kept[2]), count, p=share_R)
            value_B2D, seen_B2D, time_B2C = (field[slot_B, :2] for field in kept)
            z_BZ = self._given_first(network, value_B2D[:, 0], seen_B2D[:, 0], time_B2C[:, 0], noise)
            before = warm(network, z_BZ, self._tensor(now.window(value_B2D, seen_B2D, time_B2C)), value_B2D)
            # The time within a week can be read off the phase.
            time_BC = time_B2C[:, 1]
            begin_B = np.arctan2(time_BC[:, -2], time_BC[:, -1]).astype(np.float64) / (2 * np.pi) * _WEEK_MS
            if ahead:
                begin_B = np.full(count, float(self._slab.host("clock_newest")[self._row]))
            gap = float(self._slab.host("clock_gap")[self._row])
            time_BTC = steady_times(begin_B[:, None], np.arange(1, length + 1), gap)
            return free_run(network, now, z_BZ, before, time_BTC, drawn(noise, span, whole=True))

    def _from_nowhere(
        self, network: SequenceVAE, span: Span, noise: np.random.Generator,
        length: int, count: int, ahead: bool,
    ) -> Floats:  # fmt: skip
        """`sample` without a record to go on from."""
        now = self.now
        gap, gaps = (
            float(self._slab.host("clock_gap")[self._row]),
            int(self._slab.host("clock_gaps")[self._row]),
        )
        back_B1 = noise.random((count, 1)) * min(gaps, _WEEK_MS / max(gap, 1.0))
        first_B1 = np.ones_like(back_B1) if ahead else -np.floor(back_B1)
        time_BTC = self._times(np.arange(length) + first_B1)
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
        self, network: SequenceVAE, value_BD: Floats, seen_BD: Bools, time_BC: Float32s,
        noise: np.random.Generator,
    ) -> Tensor:  # fmt: skip
        """[B, Z] z from p(z | x_1) ∝ N(z; 0, I) p(x_1 | z): drawn from the prior, and one chosen of as many
        by what each makes of the record (sampling-importance-resampling: Rubin 1988)."""
        target_B1D, known_B1D = self.now.targets(
            value_BD[:, None], seen_BD[:, None] & ~np.isnan(value_BD[:, None])
        )
        target_BD, known_BD = self._tensor(target_B1D[:, 0]), self._tensor(known_B1D[:, 0])
        time = self._tensor(time_BC)
        z_PBZ = self._tensor(noise.standard_normal((_TRIED, len(value_BD), self.shape.Z)).astype(np.float32))
        nll_PB = torch.stack([network.first(z_BZ, time).nll(target_BD, known_BD) for z_BZ in z_PBZ])
        below_PB = torch.softmax(-nll_PB, 0).cumsum(0)
        uniform_B = self._tensor(noise.random(len(value_BD)))
        chosen_B = (uniform_B > below_PB).sum(0).clamp_max(_TRIED - 1)
        return z_PBZ[chosen_B, torch.arange(len(value_BD), device=self._weights_P.device)]

    def reconstruct(self, window_TD: Floats) -> Floats:
        """[T, D] what the latent keeps of a window, NaN where missing: the decoder's own expectations from
        the mean of q(z | window). The window counts as one that ends at the learner's newest record."""
        reconstructed_1TD = self.interpolate(window_TD, window_TD, 1)
        return np.asarray(reconstructed_1TD[0])

    def interpolate(self, from_TD: Floats, to_TD: Floats, steps: int) -> Floats:
        """[steps, T, D] reconstructions from evenly spaced z, the first window's to the second's."""
        network, now = self.network(), self.now
        with torch.inference_mode():
            z_2Z = torch.cat([self._latent(network, one_TD) for one_TD in (from_TD, to_TD)])
            share_B1 = torch.linspace(0.0, 1.0, steps, device=self._weights_P.device)[:, None]
            z_BZ = torch.lerp(z_2Z[:1].expand(steps, -1), z_2Z[1:].expand(steps, -1), share_B1)
            time_BTC = np.tile(self._ending_now(len(from_TD)), (steps, 1, 1))
            return free_run(network, now, z_BZ, None, time_BTC, expected(np.full_like(from_TD, np.nan)))

    def impute(self, window_TD: Floats) -> Floats:
        """[T, D] the window with its missing values (NaN) filled: z from the values that are there, then
        record by record the mean given z, the records before, and the record's own other values."""
        network, now = self.network(), self.now
        with torch.inference_mode():
            z_1Z = self._latent(network, window_TD)
            time_1TC = self._ending_now(len(window_TD))[None]
            filled_TD = free_run(network, now, z_1Z, None, time_1TC, expected(window_TD))[0]
        on_grid_TD = Span.of(self._slab, self._row).on_grid(filled_TD)
        return np.where(np.isnan(window_TD), on_grid_TD, window_TD)

    def _latent(self, network: SequenceVAE, window_TD: Floats) -> Tensor:
        """Mean of q(z | window), [1, Z]."""
        filled_TD = held(window_TD, np.full(self.shape.D, np.nan))
        time_TC = self._ending_now(len(window_TD))
        return network.encode(self._tensor(self.now.window(filled_TD, ~np.isnan(window_TD), time_TC)[None]))[
            0
        ]

    def bounds(self, value_ND: Floats, ticks: Ticks, draws: int, seed: int) -> Bounds:
        """Of whole windows of records that follow. Where a window's first value is missing it has the last
        one before it."""
        parts = _windows_of(self.T, value_ND, ticks, Scale.of(self._slab, self._row).last_D)
        noise = self._noise(f"likelihood.{seed}")
        network, now = self.network(), self.now
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
        return Bounds.of(log_weight_KB, log_unit_B, known_BTD.sum((1, 2)))

    def _noise(self, what: str) -> np.random.Generator:
        me, updates = self._learner, int(self._slab.host("updates")[self._row])
        return generator(me.seed, me.topic, me.key, f"rvae.{what}", updates)

    def _times(self, ahead_T: Floats | Ints) -> Floats:
        """Time features of records so many usual steps after the newest, [..., C]."""
        newest, gap = (float(self._slab.host(name)[self._row]) for name in ("clock_newest", "clock_gap"))
        return steady_times(newest, ahead_T, gap)

    def _ending_now(self, length: int) -> Floats:
        return self._times(np.arange(1 - length, 1))

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self._weights_P.device)


def _windows_of(T: int, value_ND: Floats, ticks: Ticks, last_D: Floats) -> Raw:
    """Windows of T records, one after the other, of records that follow one with the values `last_D`: none
    that is late, and no window over a gap."""
    kept_N = ~ticks.late_N
    broken_N, time_NC = ticks.broken_N[kept_N], ticks.time_NC[kept_N].astype(np.float32)
    filled_ND, seen_ND = held(value_ND[kept_N], last_D), ~np.isnan(value_ND[kept_N])
    first_B, start = [], 0
    for n, broken in enumerate(broken_N.tolist()):
        if broken:
            start = n
        if n + 1 == start + T:
            first_B.append(start)
            start = n + 1
    index_BT = np.array(first_B, dtype=np.int64)[:, None] + np.arange(T)
    return filled_ND[index_BT], seen_ND[index_BT], time_NC[index_BT]


def hidden(known_BT: Raw, new_BSC: Floats | Float32s, fixed_SD: Floats | None = None) -> Raw:
    """Windows with S records more, of which only the time is known, and the values that are fixed."""
    value_BTD, seen_BTD, time_BTC = known_BT
    B, T, D = value_BTD.shape
    new_SD = np.full((new_BSC.shape[1], D), np.nan) if fixed_SD is None else fixed_SD
    last_BD = value_BTD[:, -1] if T else np.full((B, D), np.nan)
    new_BSD = np.broadcast_to(new_SD, (B, *new_SD.shape))
    return (
        np.concatenate([value_BTD, held(new_BSD, last_BD)], axis=1),
        np.concatenate([seen_BTD, ~np.isnan(new_BSD)], axis=1),
        np.concatenate([time_BTC, new_BSC], axis=1, dtype=np.float32),
    )
