"""What a run of the demo left, which is printed and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consumers.demo.forecasts import Forecast
from consumers.demo.judgement import Delivery, Judgement
from consumers.demo.tail import Seen
from producers.data import Series
from streamgen.config import InputConfig


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run left in the topics, and where it ran."""

    series: Sequence[Series]
    seen: Seen  # of the replayed topic
    judgements: Mapping[str, Judgement]  # by series
    forecasts: Mapping[str, Forecast]  # by series
    refusals: Mapping[str, str]  # why there is none
    delivery: Delivery
    host: Seen
    source: InputConfig
    bootstrap: str
    metrics: Sequence[str]
