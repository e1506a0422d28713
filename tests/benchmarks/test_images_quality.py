"""The comparison of image models: its verdicts on given figures, and a run of each model on a few images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.image_baselines import DCGAN, PlainVAE
from benchmarks.images_quality import COVERAGE, FRECHET, PAIRS, Run, many_seeds, page, train, verdict, wanted

MODELS = sorted({model for pair in PAIRS.values() for model in pair})


def runs(*figures: tuple[float, float], failure: str | None = None) -> list[dict[str, Any]]:
    return [
        {
            "images": 640,
            "failure": failure,
            "figures": {
                name: {"value": value, "null": 0.25}
                for name, value in zip(
                    (FRECHET, COVERAGE, "precision", "recall"), (*one, 0.5, 0.5), strict=True
                )
            },
        }
        for one in figures
    ]


def test_less_distance_and_more_coverage_is_better() -> None:
    assert verdict(runs((1.0, 0.8), (2.0, 0.6)), runs((3.0, 0.2), (6.0, 0.5))) == (
        "own Fréchet distance better in every seed (3.00 ×); coverage better in every seed (2.00 ×)"
    )


def test_worse_is_said() -> None:
    assert verdict(runs((3.0, 0.2), (6.0, 0.5)), runs((1.0, 0.8), (2.0, 0.6))) == (
        "own Fréchet distance worse in every seed (0.33 ×); coverage worse in every seed (0.50 ×)"
    )


def test_ranges_that_meet_are_no_victory() -> None:
    assert verdict(runs((1.0, 0.3), (4.0, 0.6)), runs((3.0, 0.5), (7.0, 0.7))) == (
        "own Fréchet distance better on average, but the seeds' ranges meet (2.00 ×); "
        "coverage worse on average, but the seeds' ranges meet (0.75 ×)"
    )


def test_a_model_that_covers_nothing_has_no_ratio() -> None:
    assert verdict(runs((1.0, 0.4)), runs((2.0, 0.0))).endswith("coverage better in every seed")


def test_the_least_coverage_stands_beside_the_best_and_failures_are_told() -> None:
    results = {
        Run("mnist", "gan", 60.0, seed).name: one for seed, one in enumerate(runs((1.0, 0.8), (3.0, 0.2)))
    }
    results[Run("mnist", "gan", 60.0, 2).name] = runs((2.0, 0.5), failure="collapsed")[0]
    results[Run("mnist", "gan", 600.0, 0).name] = runs((0.1, 0.9))[0]  # another length of training
    *_, row, failure = many_seeds(results, 60.0)
    assert row == "| 3 | 1 | 0.200, 0.500, 0.800 | 0.25 | 1.000, 2.000, 3.000 |"
    assert failure == "\n- collapsed"


def test_a_page_has_what_was_run_and_no_more() -> None:
    results = {Run(data, "vae", 60.0, 0).name: runs((1.0, 0.8))[0] for data in ("mnist", "cifar10")} | {
        Run("mnist", "plain vae", 60.0, 0).name: runs((2.0, 0.4))[0]
    }
    text = page(results, 0.0)
    assert "## vae, 60 s" in text
    assert "mnist, vae beside plain vae: own Fréchet distance better" in text
    assert "cifar10" not in text
    assert "## gan" not in text


def test_runs_of_two_parts_are_made_once_and_seeds_in_turn() -> None:
    found = wanted([("gan", 60.0), ("gan-paper", 60.0), ("many", 60.0)], ["mnist"], 2, 4)
    assert [(run.model, run.seed) for run in found] == [
        ("gan", 0), ("dcgan", 0), ("gan", 1), ("dcgan", 1),
        ("gan, paper", 0), ("gan, paper", 1), ("gan", 2), ("gan", 3),
    ]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("size", "colours"), [(28, 1), (32, 3)])
def test_each_model_learns_and_draws(model: str, size: int, colours: int, tmp_path: Path) -> None:
    shape = (200, size, size) if colours == 1 else (200, size, size, colours)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    label = np.arange(200) % 10
    (tmp_path / "images").mkdir()
    np.savez(
        tmp_path / "images" / "noise.npz", train=images, train_label=label, test=images, test_label=label
    )
    facts, drawn_MHWC = train(tmp_path, Run("noise", model, 0.01, 0))
    assert facts["steps"] >= 1
    assert facts["seconds"] >= 0.01
    assert facts["failure"] is None
    assert drawn_MHWC.shape == (100, size, size, colours)
    assert drawn_MHWC.dtype == np.uint8
    assert len(np.unique(drawn_MHWC.reshape(100, -1), axis=0)) == 100


@pytest.mark.parametrize("kind", [PlainVAE, DCGAN])
def test_a_plain_model_learns_that_an_image_is_half_dark_and_half_bright(
    kind: type[PlainVAE] | type[DCGAN],
) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    model = kind((1, 32, 32))
    for _ in range(150):
        images = rng.normal(40, 20, (16, 32, 32, 1))
        images[:, :16] += 175
        model.learn(images.clip(0, 255).astype(np.uint8))
    drawn = model.draw(64).astype(float)
    assert drawn[:, :16].mean() - drawn[:, 16:].mean() > 50
