"""How long to wait before what failed is tried again."""

from __future__ import annotations

import random

FIRST_S, LONGEST_S = 0.05, 5.0


def wait_s(failures: int) -> float:
    """The wait after so many failures in a row, s: it doubles up to a cap.

    Jitter keeps a fleet from coming back all at once; it decides when, never what.
    """
    # Bounded: an outage of an hour fails a thousand times, and 2¹⁰²⁴ is no float.
    longest = min(FIRST_S * 2 ** min(failures, 16), LONGEST_S)
    return random.uniform(longest / 2, longest)
