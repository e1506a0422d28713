"""A worker's name is the same when it comes back, and another for each that lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumers.identity import worker_name
from streamgen.errors import ConfigError, StateError


def test_a_worker_that_comes_back_has_its_name_again(tmp_path: Path) -> None:
    with worker_name(tmp_path, None) as first:
        pass
    with worker_name(tmp_path, None) as again, worker_name(tmp_path, None) as second:
        assert again == first
        assert second != first
    with worker_name(tmp_path / "other", None) as elsewhere:
        assert elsewhere not in (first, second)


def test_a_name_that_is_held_is_refused(tmp_path: Path) -> None:
    with worker_name(tmp_path, "blue"):
        with (
            pytest.raises(ConfigError, match="A worker named blue is running"),
            worker_name(tmp_path, "blue"),
        ):
            pass
        with worker_name(tmp_path / "other", "blue") as name:
            assert name == "blue"


def test_what_cannot_be_a_name_or_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="letters, digits"), worker_name(tmp_path, "a b"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(StateError, match="cannot be written"), worker_name(tmp_path / "file", None):
        pass
