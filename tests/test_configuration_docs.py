"""docs/configuration.md is kept by hand; this keeps it true."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from streamgen.config import Config
from streamgen.configfile import load_config
from streamgen.times import short_duration

PAGE = (Path(__file__).parent.parent / "docs" / "configuration.md").read_text(encoding="utf-8")


def keys(model: type[BaseModel], at: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that is not a section, with its default."""
    for name, field in model.model_fields.items():
        inner = [one for one in (field.annotation, *get_args(field.annotation)) if isinstance(one, type)]
        section = next((one for one in inner if issubclass(one, BaseModel)), None)
        if section is None:
            yield at + name, field.default
        else:
            yield from keys(section, f"{at}{name}{'' if section is field.annotation else '[]'}.")


def written(default: Any) -> str:
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, timedelta):
        return f"`{short_duration(default)}`"
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def documented() -> dict[str, list[str]]:
    rows = re.findall(r"^\| `([a-z_.\[\]]+)` \| (.*) \|$", PAGE, flags=re.MULTILINE)
    return {key: re.split(r" \| ", cells) for key, cells in rows}


def test_every_key_and_no_other_is_documented() -> None:
    assert sorted(documented()) == sorted(key for key, _ in keys(Config))


def test_every_row_gives_type_default_and_meaning() -> None:
    for key, default in keys(Config):
        kind, shown, meaning = documented()[key]
        assert kind, key
        assert shown == written(default), key
        assert meaning.endswith("."), key


def test_every_example_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMGEN_KAFKA__SASL_PASSWORD", "from the environment, as the example says")
    examples = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        path = tmp_path / "config.yaml"
        path.write_text(example, encoding="utf-8")
        config = load_config(path, {})
    complete = config.model_dump()
    assert complete["inputs"][0]["outputs"] == {
        "scores": "orders.scored",
        "anomalies": "orders.alerts",
        "dlq": "orders.unreadable",
        "generated": "orders.synthetic",
        "generate": "orders.wanted",
        "generate_dlq": "orders.wanted.unanswered",
    }
    # Complete: each key stands there, but those of mutual TLS.
    absent = [key for key, _ in keys(Config) if f"{key.split('.')[-1]}:" not in examples[1]]
    assert absent == ["kafka.ssl_certfile", "kafka.ssl_keyfile", "kafka.ssl_password"]
