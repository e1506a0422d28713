"""The Python of docs/evaluation.md runs as it is written, on small data."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamgen.images import classifier
from tests.publishing.rig import Rig, config, turn

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def block(word: str) -> str:
    (found,) = [
        one for one in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE) if word in one
    ]
    return found


def printed(out: str) -> list[str]:
    """The names before a value, its null, and whether it is worse."""
    return [line.rsplit(" ", 3)[0] for line in out.splitlines()]


@pytest.mark.usefixtures("short_judges")
def test_windows_of_a_series(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    given = {"series": rng.normal(size=(24 * 60, 2)), "generated": rng.normal(size=(40, 24, 2))}
    exec(block("cut(series"), given)
    assert printed(capsys.readouterr().out) == [
        "marginal difference",
        "autocorrelation difference",
        "cross-correlation difference",
        "precision",
        "recall",
        "density",
        "coverage",
        "discriminative score",
        "discriminative score, 64 units",
        "predictive score",
        "Context-FID",
    ]


def test_every_figure_is_in_the_table() -> None:
    from streamgen.evaluation import QUICK

    rng = np.random.default_rng(0)
    windows = rng.normal(size=(30, 4, 2))
    rows = PAGE.split("## The figures", 1)[1].split("##", 1)[0]
    for measure in QUICK:
        for name in measure(windows, windows, 0):
            assert f"\n| {name} | " in rows


def test_images(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(classifier, "learn", partial(classifier.learn, iterations=5))
    images = np.random.default_rng(0).integers(256, size=(3, 60, 16, 16, 1), dtype=np.uint8)
    given = dict(zip(("training", "held_out", "generated"), images, strict=True)) | {"labels": None}
    exec(block("streamgen.images.evaluation"), given)
    assert "own Fréchet distance" in printed(capsys.readouterr().out)


def test_records_of_a_generated_topic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a publisher over a Kafka in memory: answers with the same id, and one of another length."""
    rig = Rig(config())
    rig.send(100)
    rig.send(80, key="b")
    rig.learn()
    for key, length in (("a", 24), ("b", 24), ("a", 5)):
        rig.ask(kind="continue", key=key, length=length, count=3, correlation_id="again", seed=1)
    turn(rig.publisher())
    records = rig.generated()
    assert len(records) == 2 * 3 * 24 + 3 * 5

    def consumer(topic: str, **_: Any) -> Any:
        assert topic == "orders.generated"
        return iter(records)

    monkeypatch.setattr("kafka.KafkaConsumer", consumer)
    monkeypatch.chdir(tmp_path)
    exec(block("KafkaConsumer").replace('["amount", "items"]', '["load", "up"]'), {})
    with np.load("made.npz") as made:
        assert made["x"].shape == (6, 24, 2)
        assert made["columns"].tolist() == ["load", "up"]
        assert len(np.unique(made["x"].reshape(6, -1), axis=0)) == 6
