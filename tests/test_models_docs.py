"""docs/models.md is kept by hand; this keeps its tables of settings true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from streamgen import models
from streamgen.config import WindowConfig
from streamgen.models import batch

PAGE = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", models.names())
def test_a_models_settings_are_those_of_its_table(name: str) -> None:
    section = re.split(r"^## ", PAGE.split(f"\n## {name}\n")[1], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| .+ \|$", section, flags=re.MULTILINE)
    expected = []
    for key, field in type(models.settings({"name": name})).model_fields.items():
        shown = f"`{field.default}`" if isinstance(field.default, str) else str(field.default)
        expected.append((field.alias or key, "null" if field.default is None else shown))
    assert rows == [row for row in expected if row[0] != "name"]


def test_what_the_preset_paper_sets_is_in_its_table() -> None:
    section = PAGE.split("\n## Presets and settings\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (\S+) \|$", section, flags=re.MULTILINE)
    shown = {name: {row[0]: row[1 + n] for row in rows} for n, name in enumerate(("stream_ae", "rvae"))}
    for name, told in shown.items():
        sets = type(models.settings({"name": name})).presets["paper"]
        written = {
            key: "null" if value is None else f"`{value}`" if isinstance(value, str) else str(value)
            for key, value in sets.items()
        }
        assert {key: value for key, value in told.items() if value != "–"} == written


@pytest.mark.parametrize("name", batch.names())
def test_a_batch_models_settings_are_those_of_its_table(name: str) -> None:
    section = re.split(r"^## ", PAGE.split(f"\n## {name}\n")[1], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (.+) \|$", section, flags=re.MULTILINE)
    kind = type(batch.settings({"name": name}))
    expected = []
    for key, field in kind.model_fields.items():
        if key != "name":
            paper = f" (`paper`: {kind.PAPER[key]})" if key in kind.PAPER else ""
            shown = f"`{field.default}`" if isinstance(field.default, str) else str(field.default)
            expected.append((key, shown, f"{(field.description or '').rstrip('.')}{paper}"))
    assert rows == expected


def test_every_model_is_in_the_first_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .+ \| yes \|", PAGE, flags=re.MULTILINE)
    assert set(models.names()) <= set(rows)


@pytest.mark.parametrize("name", models.names())
def test_the_kinds_of_sequences_of_a_model_are_those_of_the_first_table(name: str) -> None:
    (row,) = re.findall(rf"^\| `{name}` \| .+ \| yes \| .+ \| (.+) \|$", PAGE, flags=re.MULTILINE)
    kinds = models.build({"name": name}, 1, WindowConfig(), "cpu").kinds
    assert row == (", ".join(kinds) or "no")
