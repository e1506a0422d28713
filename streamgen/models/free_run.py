"""A decoder that goes on by itself: each record that it gives is the one before the next.

Shapes: B sequences, T records, D features, Z latent dimensions, H hidden units, C time features, I inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from streamgen.models.axes import LARGEST, Axes
from streamgen.models.joint import Joint, Places
from streamgen.models.mixture_t import MixtureT
from streamgen.models.sequence_vae import SequenceVAE
from streamgen.models.span import Span
from streamgen.records import Floats


class Next(NamedTuple):
    """What a record may be: the mixture, and where the network has one, the density of whole records."""

    mixture: MixtureT
    joint: Joint | None


# A record in input units, from (its index, what it may be, origin and unit of the units of that), [B, D]
Choose = Callable[[int, Next, Floats, Floats], Floats]


class Before(NamedTuple):
    """The newest record of each sequence, the one before it (itself, where there is none), and the decoder's
    state before it."""

    input_BI: Tensor
    value_BD: Floats
    earlier_BD: Floats
    state_BH: Tensor


def warm(network: SequenceVAE, z_BZ: Tensor, input_BTI: Tensor, value_BTD: Floats) -> Before:
    """The decoder led through T ≥ 1 records (teacher forcing); `value_BTD` are they in input units."""
    state_BH = network.begin(z_BZ)
    if input_BTI.shape[1] > 1:
        time_BTC = input_BTI[:, 1:, 3 * network.shape.D :]
        state_BH = network.decode(z_BZ, input_BTI[:, :-1], time_BTC, state_BH)[:, -1]
    return Before(input_BTI[:, -1], value_BTD[:, -1], value_BTD[:, -2:][:, 0], state_BH)


def following(network: SequenceVAE, z_BZ: Tensor, before: Before, time_BC: Tensor) -> tuple[MixtureT, Tensor]:
    """The distribution of the next record's step, and the decoder's state before that record."""
    state_BTH = network.decode(z_BZ, before.input_BI.unsqueeze(1), time_BC.unsqueeze(1), before.state_BH)
    return network.next(z_BZ, before.input_BI, state_BTH[:, 0]), state_BTH[:, 0]


def free_run(
    network: SequenceVAE, axes: Axes, z_BZ: Tensor, before: Before | None, time_BTC: Floats, choose: Choose
) -> Floats:
    """[B, T, D] records in input units, after `before`, or a window from its first record on."""
    records = []
    for t in range(time_BTC.shape[1]):
        time_BC = torch.from_numpy(time_BTC[:, t].astype(np.float32)).to(z_BZ.device)
        if before is None:
            then, state_BH = Next(network.first(z_BZ, time_BC), None), network.begin(z_BZ)
            origin_BD, unit_D = np.broadcast_to(axes.mean_D, (len(z_BZ), network.shape.D)), axes.unit_D
        else:
            mixture, state_BH = following(network, z_BZ, before, time_BC)
            then = Next(mixture, _joint(network, axes, z_BZ, before, state_BH))
            # Of a feature that never had a value there is no last one.
            origin_BD = np.where(np.isnan(before.value_BD), axes.mean_D, before.value_BD)
            unit_D = axes.delta_D
        value_BD = choose(t, then, origin_BD, unit_D)
        last_BD = value_BD if before is None else origin_BD
        input_BI = axes.records(value_BD, last_BD, np.ones(value_BD.shape, dtype=np.bool_), time_BTC[:, t])
        before = Before(torch.from_numpy(input_BI).to(z_BZ.device), value_BD, last_BD, state_BH)
        records.append(value_BD)
    return np.stack(records, axis=1)


def _joint(network: SequenceVAE, axes: Axes, z_BZ: Tensor, before: Before, state_BH: Tensor) -> Joint | None:
    if not network.shape.joint:
        return None
    with np.errstate(over="ignore"):
        places = axes.places(before.value_BD, before.earlier_BD)
    at = Places(*(torch.from_numpy(part).to(z_BZ.device) for part in places))
    return network.joint(z_BZ, before.input_BI, state_BH, at)


def drawn(noise: np.random.Generator, span: Span, whole: bool = False) -> Choose:
    """Each record is drawn from the mixture, or (`whole`) from the density of whole records where there is
    one, and keeps to the span."""

    def choose(t: int, then: Next, origin_BD: Floats, unit_D: Floats) -> Floats:
        one = then.joint if whole and then.joint is not None else then.mixture
        return span.draw(one, noise, origin_BD, unit_D)

    return choose


class _Given(NamedTuple):
    """A mixture of which the seen part is given."""

    mixture: MixtureT
    y_BD: Tensor
    seen_BD: Tensor

    def draw(self, noise: np.random.Generator) -> Tensor:
        return self.mixture.draw_given(noise, self.y_BD, self.seen_BD)

    def some(self, rows_B: Tensor) -> _Given:
        return _Given(self.mixture.some(rows_B), self.y_BD[rows_B], self.seen_BD[rows_B])


def drawn_given(noise: np.random.Generator, span: Span, given_TD: Floats) -> Choose:
    """Each record is what is given [T, D], and the rest (NaN) is drawn given that, and keeps to the span."""

    def choose(t: int, then: Next, origin_BD: Floats, unit_D: Floats) -> Floats:
        one = _Given(then.mixture, *_given(given_TD[t], then.mixture, origin_BD, unit_D))
        return span.draw(one, noise, origin_BD, unit_D, ~np.isnan(given_TD[t]))

    return choose


def expected(given_TD: Floats) -> Choose:
    """Each record is what is given [T, D], and where nothing is (NaN), the mean given what is there."""

    def choose(t: int, then: Next, origin_BD: Floats, unit_D: Floats) -> Floats:
        y_BD, seen_BD = _given(given_TD[t], then.mixture, origin_BD, unit_D)
        filled_BD = torch.where(seen_BD, y_BD, then.mixture.judge(y_BD, seen_BD).expected_ND)
        return np.asarray(origin_BD + unit_D * filled_BD.cpu().numpy())

    return choose


def _given(given_D: Floats, mixture: MixtureT, origin_BD: Floats, unit_D: Floats) -> tuple[Tensor, Tensor]:
    """A record's given values in units of the mixture, zero where there are none, and which are given."""
    seen_BD = np.broadcast_to(~np.isnan(given_D), origin_BD.shape)
    with np.errstate(over="ignore"):
        unit_BD = np.clip((given_D - origin_BD) / unit_D, -LARGEST, LARGEST)
    y_BD = torch.from_numpy(np.where(seen_BD, unit_BD, 0.0))
    device = mixture.factor_DD.device
    return y_BD.to(device), torch.tensor(seen_BD, device=device)
