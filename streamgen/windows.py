"""A key's clock: which records move it on, which are late, where a window is broken, how time is seen.

N records of one batch in offset order; `row_N` is each record's learner. Times are milliseconds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from streamgen.config import WindowConfig
from streamgen.models.slab import Field, Slab
from streamgen.records import Bools, Floats, Ints

TIME_FEATURES = 7
_DAY_MS = 86_400_000.0
_GAP_MEMORY = 256  # records over which the usual time between records is averaged
_GAP_KNOWN = 16  # steps that tell what is usual
_GAP_LONG = 8.0  # times the usual: a longer step is an outage, unless such steps are usual too
_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True, slots=True)
class Ticks:
    """What the clocks say of N records.

    `late_N`: older than its key's newest, to be scored without advancing state. `broken_N`: a window may
    not span the step to this record. `restarted_N`: the key's clock was set back to this record.
    `gap_N`: the key's usual time between records as known before the record, ms (0: not known).
    `time_NC`: the features of time that a model sees; `time_N`: the times themselves, ms.
    """

    late_N: Bools
    broken_N: Bools
    restarted_N: Bools
    gap_N: Floats
    time_NC: Floats
    time_N: Ints

    def of(self, part: slice) -> Ticks:
        """What they say of some of the records."""
        return Ticks(*(getattr(self, field.name)[part] for field in fields(self)))


class Clock:
    """Event time per key. Its state is five numbers of the key's row.

    The usual time between records is a mean without outages. A step that breaks the window is none of it, and
    one that is `_GAP_LONG` times as long counts as no longer than that. But where another such came among the
    last `_GAP_MEMORY` steps they are how the stream goes (records that come in bursts, or a new rhythm), and
    count in full: bounded, the usual time of bursts would shrink, and the bound with it, to nothing.
    """

    FIELDS: ClassVar = {
        "clock_newest": Field(dtype="int64", fill=_NEVER),
        "clock_late_run": Field(dtype="int64"),
        "clock_gap": Field(),
        "clock_gaps": Field(dtype="int64"),
        "clock_steady": Field(dtype="int64", fill=_GAP_MEMORY),  # steps since the last long one
    }

    def __init__(self, config: WindowConfig) -> None:
        self._max_gap = math.inf if config.max_gap is None else config.max_gap.total_seconds() * 1000
        self._restart_after = config.restart_after

    def advance(self, slab: Slab, row_N: Ints, time_N: Ints) -> Ticks:
        """Move the clocks over a batch and say what each record is."""
        newest, late_run = slab.host("clock_newest"), slab.host("clock_late_run")
        gap, gaps, steady = (slab.host(f"clock_{name}") for name in ("gap", "gaps", "steady"))
        N = len(row_N)
        late_N, broken_N, restarted_N = (np.zeros(N, dtype=np.bool_) for _ in range(3))
        step_N, gap_N = np.zeros(N), np.zeros(N)
        for n, (row, time) in enumerate(zip(row_N.tolist(), time_N.tolist(), strict=True)):
            gap_N[n] = gap[row]
            before = int(newest[row])
            if before == _NEVER:
                newest[row] = time
                continue
            if time < before:
                late_run[row] += 1
                if late_run[row] < self._restart_after:
                    late_N[n] = True
                    continue
                restarted_N[n] = broken_N[n] = True
            else:
                step = step_N[n] = time - before
                broken_N[n] = step > self._max_gap
                if not broken_N[n]:
                    most = _GAP_LONG * gap[row]
                    # Below a millisecond it tells nothing: the times of records are often equal.
                    if step > most and gaps[row] >= _GAP_KNOWN and gap[row] >= 1.0:
                        step = most if steady[row] >= _GAP_MEMORY else step
                        steady[row] = 0
                    else:
                        steady[row] = min(int(steady[row]) + 1, _GAP_MEMORY)
                    gaps[row] += 1
                    gap[row] += (step - gap[row]) / min(int(gaps[row]), _GAP_MEMORY)
                elif not gaps[row]:
                    gap[row] = step  # nothing better is known yet
            late_run[row] = 0
            newest[row] = time
        return Ticks(late_N, broken_N, restarted_N, gap_N, time_features(time_N, step_N, gap_N), time_N)


def time_features(time_N: Ints, step_N: Floats, gap_N: Floats) -> Floats:
    """[N, C]: time since the last record against the usual, two harmonics of the day, one of the week."""
    day_N = 2 * np.pi * ((time_N / _DAY_MS) % 1.0)
    week_N = 2 * np.pi * ((time_N / (7 * _DAY_MS)) % 1.0)
    since_N = np.tanh(np.log((step_N + 1.0) / (gap_N + 1.0)) * (gap_N > 0))
    return np.stack(
        [
            since_N,
            np.sin(day_N),
            np.cos(day_N),
            np.sin(2 * day_N),
            np.cos(2 * day_N),
            np.sin(week_N),
            np.cos(week_N),
        ],
        axis=1,
    )


def steady_times(from_ms: float | Floats, ahead: Floats | Ints, gap: float) -> Floats:
    """[..., C]: the features of records that come so many usual steps of `gap` ms after a time; [...] is what
    both broadcast to."""
    time_ms = np.asarray(from_ms + ahead * gap)
    gap_N = np.full(time_ms.size, gap)
    time_NC = time_features(time_ms.ravel().astype(np.int64), gap_N, gap_N)
    return time_NC.reshape(*time_ms.shape, TIME_FEATURES)


def likeness(time_RC: NDArray[np.float32], time_C: Floats) -> Floats:
    """[R] shares, which sum to one: how near times are to one in hour and weekday. (A product of von Mises
    kernels; a time that is an hour off has a quarter of the share.)"""
    near_R = time_RC[:, 1:].astype(np.float64) @ time_C[1:]
    share_R = np.exp(8.0 * (near_R - near_R.max()))
    return np.asarray(share_R / share_R.sum())
