"""The shipped series are whole, and every incident lies inside its series."""

from __future__ import annotations

import numpy as np

from producers.data import shipped_series
from streamgen.csvfile import CsvRows


def test_every_series_can_be_read_and_holds_its_incidents() -> None:
    series = shipped_series()
    assert {one.name: len(one.incidents) for one in series} == {
        "nyc_taxi": 5,
        "ambient_temperature_system_failure": 2,
        "ec2_request_latency_system_failure": 3,
    }
    for one in series:
        batches = list(CsvRows(one.path))
        time_ms_N = np.concatenate([batch.time_ms_N for batch in batches])
        assert len(time_ms_N) >= 4000
        assert not any(batch.bad for batch in batches)
        assert (np.diff(time_ms_N) >= 0).all()
        for incident in one.incidents:
            assert time_ms_N[0] <= incident.start_ms < incident.end_ms <= time_ms_N[-1]
