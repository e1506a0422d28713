"""`streamgen tune` over images: what is judged, what is told of a failed choice, the file of the best."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from streamgen.cli.tune_images import are_images
from streamgen.errors import ConfigError, InputError
from streamgen.evaluation.context import frechet_distance
from streamgen.images.classifier import learn
from streamgen.images.drawing import draw
from streamgen.images.source import Images, Look
from streamgen.images.training import Training
from streamgen.images.watch import Watch
from streamgen.models.vae import VAE
from streamgen.state.folder import open_folder
from streamgen.tuning.batch import Batch
from streamgen.tuning.compare import compare
from streamgen.tuning.effects import tables
from streamgen.tuning.factors import Factor, one_at_a_time, parse, settings_of, usual
from streamgen.tuning.held_out import EVERY, HeldOut
from streamgen.tuning.study import Study
from streamgen.tuning.trial import Failed, Point

if TYPE_CHECKING:
    from tests.conftest import Said

SMALL = {"width": 4, "latent": 4, "batch": 8}
STEPS = 18
QUICK = 10  # iterations of a classifier


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested is that a classifier judges, and not how well."""
    monkeypatch.setattr("streamgen.tuning.held_out.learn", partial(learn, iterations=QUICK))


def bars(count: int = 250) -> Images:
    """Bars at several heights, of several brightnesses."""
    found = np.zeros((count, 16, 16, 1), np.uint8)
    for number, image in enumerate(found):
        image[number % 12 : number % 12 + 4] = 120 + number % 7 * 20
    return found


def batch(name: str, **settings: Any) -> Batch:
    return Batch({"name": name, **SMALL, **settings}, STEPS)


def curve(trial: HeldOut, changed: Mapping[str, Any], seed: int) -> list[Point]:
    return [one for one in trial(changed, seed) if one is not None]


@pytest.mark.parametrize("name", ["vae", "gan"])
def test_the_score_is_that_of_a_training_of_the_same_seed_on_images_it_does_not_see(
    tmp_path: Path, name: str
) -> None:
    images_NHWC = bars()
    trial = HeldOut(batch(name), images_NHWC, "cpu")
    found = curve(trial, {"learning_rate": 0.004}, 3)
    assert len(found) == trial.points
    assert all(one.seconds >= other.seconds for other, one in pairwise(found))

    out_N = np.arange(0, len(images_NHWC), EVERY)
    seen, unseen = np.delete(images_NHWC, out_N, axis=0), images_NHWC[out_N]
    settings = {"name": name, **SMALL, "learning_rate": 0.004, "steps": STEPS}
    training = Training(seen, settings, Look(), 3, "cpu", open_folder(tmp_path))
    training.run(STEPS, lambda _: None)
    model = training.model
    if isinstance(model, VAE):
        expected = -float(model.elbo(unseen).mean())
    else:
        classifier = learn(seen, None, 3, QUICK)
        features_NE = classifier.features(unseen)
        drawn_NE = classifier.features(draw(model, 3, len(unseen)))
        expected = frechet_distance(features_NE, drawn_NE) / features_NE.shape[1]
    assert found[-1].score == pytest.approx(expected, rel=1e-6)


def test_a_training_that_is_shorter_than_its_curve_has_points_all_the_same() -> None:
    subject = replace(batch("vae"), steps=4)
    found = curve(HeldOut(subject, bars(), "cpu"), {}, 0)
    assert len(found) == 9
    assert math.isnan(found[0].score)  # no step was made
    assert all(math.isfinite(one.score) for one in found[2:])


def test_too_few_images_are_refused() -> None:
    with pytest.raises(InputError, match="are too few to compare settings: every tenth is held out"):
        HeldOut(batch("vae"), bars(100), "cpu")


def test_what_the_watch_sees_is_a_failure_with_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([None, None, "collapsed: its images are all alike"])
    monkeypatch.setattr(Watch, "look", lambda self, model: next(looks))
    with pytest.raises(Failed, match="seed 2, at step 6, has collapsed"):
        curve(HeldOut(batch("vae"), bars(), "cpu"), {}, 2)


class Collapsing:
    """What fails with some settings, and is a little better with others."""

    unit, way, points = "points", "steps", 9

    def __init__(self, bad: str) -> None:
        self.bad = bad
        self.passes = 0

    def __call__(self, settings: Mapping[str, Any], seed: int, /) -> Iterator[Point | None]:
        self.passes += 1
        for part in range(self.points):
            if part == 4 and (self.bad in settings or (self.bad == "" and not settings)):
                raise Failed(f"seed {seed}, at step {part}, has collapsed")
            yield Point(1.0 - 0.1 * len(settings) + 0.01 * seed, float(part))


@pytest.mark.parametrize("bad", ["depth", ""])
def test_a_failed_choice_is_told_and_never_the_best(tmp_path: Path, bad: str) -> None:
    subject, trial = batch("vae"), Collapsing(bad)
    factors = [parse(subject, "depth=2"), parse(subject, "activation=relu")]
    passes = []
    for _ in range(2):
        study = Study(tmp_path, "one")
        try:
            choices = one_at_a_time(subject, factors)
            outcome = compare(study, trial, choices, subject, factors, "one", 2, 1e9, lambda _: None)
        finally:
            study.close()
        assert outcome.complete
        best = settings_of(factors, outcome.best.choice)
        assert best == ({"activation": "relu"} if bad else {"activation": "relu", "depth": 2})
        (table,) = tables("one", factors, outcome.tried, trial.unit)
        failed = [row for row in table.rows if row[5] == "failed"]
        assert [row[:5] for row in failed] == [
            ("depth", "2", "–", "–", "") if bad else ("as it is", "", "–", "–", "")
        ]
        passes.append(trial.passes)
    assert passes[0] == passes[1]  # what failed is known, and not tried again


@pytest.mark.parametrize("preset", ["default", "paper"])
@pytest.mark.parametrize("name", ["vae", "gan"])
def test_the_usual_can_all_be_tried_and_changes_something(name: str, preset: str) -> None:
    subject = batch(name, preset=preset)
    factors = usual(subject)
    named = [key for factor in factors for key in factor.name.split("+")]
    assert {"normalisation", "optimizer", "learning_rate", "latent", "schedule", "activation"} <= set(named)
    assert ("width" in named, "depth" in named) == ((preset == "default"),) * 2
    assert ("kl_weight" in named) == (name == "vae")
    assert len(one_at_a_time(subject, factors)) == 1 + sum(len(one.variants) - 1 for one in factors)


def varied(text: str, **settings: Any) -> Factor:
    return parse(batch("vae", **settings), text)


@pytest.mark.parametrize(
    ("text", "settings", "said"),
    [
        ("name=gan", {}, "The model itself cannot be varied"),
        ("steps=10,20", {}, "steps cannot be varied: every choice is trained for as many"),
        ("widht=8", {}, "width"),
        ("width=8", {"preset": "paper"}, "model.width changes nothing with preset: paper"),
        ("weight_decay=0.1", {}, "model.weight_decay changes nothing with optimizer: adam"),
    ],
)
def test_what_cannot_be_varied_is_named(text: str, settings: dict[str, Any], said: str) -> None:
    subject = batch("vae", **settings)
    with pytest.raises(ConfigError, match=said):
        one_at_a_time(subject, [varied(text, **settings)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "bars.npz"
    np.savez(path, train=bars(), other=bars(3))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(
        yaml.safe_dump({"model": {"name": "vae", **SMALL, "learning_rate": 0.001}, "images": {"size": 16}})
    )
    return path


def test_the_best_is_a_configuration_that_images_fit_takes(
    cli: Callable[..., Said], file: Path, small: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study"
    command = (
        "tune", file, "--array", "train", "--config", small, "--study", study, "--steps", 270,
        "--vary", "learning_rate=0.00001,0.01",
    )  # fmt: skip
    code, out, err = cli(*command)
    assert code == 0, err
    rows = [re.split(r"\s{2,}", line) for line in out.splitlines()]
    verdicts = {row[1]: row[5] for row in rows if row[0] == "learning_rate"}
    assert verdicts == {"1e-05": "worse", "0.01": "better"}, out
    assert "250 images of 16 × 16 pixels, grey, every 10th held out, of which 25 are judged on.\n" in out
    assert "270 steps each.\nvae, 3 seeds: nats per dimension on held-out images, lower is better.\n" in out
    assert out.endswith("best.yaml is for streamgen images fit --config.\n")
    best = yaml.safe_load((study / "best.yaml").read_text())
    assert best == {"model": {"name": "vae", **SMALL, "learning_rate": 0.01}, "images": {"size": 16}}
    page = (study / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1

    again, out_again, err = cli(*command)
    assert (again, err) == (0, "")  # nothing was tried
    assert out_again == out

    fit = ("images", "fit", file, "--array", "train", "--config", study / "best.yaml", "--steps", 2)
    code, _, err = cli(*fit, "--state", tmp_path / "state")
    assert code == 0, err


def test_a_gan_is_judged_by_its_images(
    cli: Callable[..., Said], file: Path, small: Path, tmp_path: Path
) -> None:
    small.write_text(small.read_text().replace("vae", "gan"))
    command = ("tune", file, "--array", "train", "--study", tmp_path / "study", "--steps", 9, "--seeds", 2)
    code, out, err = cli(*command, "--config", small, "--vary", "loss=standard")
    assert code == 0, err
    assert "own Fréchet distance" in out.splitlines()[0]
    assert "never compare it with a published FID" in out


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("bars.npz", (), "holds images: say --model vae or gan"),
        ("bars.npz", ("--model", "vae"), "--array"),
        ("bars.npz", ("--model", "vae", "--array", "other"), "3 images are too few"),
        ("bars.npz", ("--model", "vae", "--records", "20"), "--records is not of images: leave it out"),
        ("bars.npz", ("--model", "vae", "--bootstrap", "h:1"), "--bootstrap is not of images"),
        ("a.csv", ("--model", "stream_ae", "--steps", "5"), "--steps is of images alone: leave it out"),
        ("none", ("--model", "vae"), "none"),
    ],
)
def test_what_is_wrong_is_a_sentence(
    cli: Callable[..., Said], file: Path, tmp_path: Path, source: str, options: tuple[str, ...], said: str
) -> None:
    (tmp_path / "a.csv").write_text("a\n1\n2\n")
    code, out, err = cli("tune", tmp_path / source, "--study", tmp_path / "study", *options)
    assert (code, out, err.count("\n")) == (1, "", 1), err
    assert said in err


@pytest.mark.parametrize(
    ("text", "pictures"),
    [
        ("inputs: [{topic: a}]\nimages: {topic: b}", False),
        ("inputs: [{topic: a, model: {name: stream_ae}}]", False),
        ("images: {size: 16}", True),
        ("model: {name: vae}", True),
        ("model: {name: vae}\nimages: {size: 16}", True),
        ("kafka: {bootstrap_servers: h:1}", False),
    ],
)
def test_a_configuration_of_streams_may_have_images_beside_them(
    tmp_path: Path, text: str, pictures: bool
) -> None:
    (tmp_path / "app.yaml").write_text(text)
    assert are_images("a.csv", None, tmp_path / "app.yaml") is pictures


def test_a_model_of_batches_is_built_for_a_trial_alone() -> None:
    """Two trials side by side, as a study runs its seeds, are as one after the other."""
    trial = HeldOut(batch("vae"), bars(), "cpu")
    apart = [curve(trial, {}, seed)[-1].score for seed in (0, 1)]
    passes = [trial({}, seed) for seed in (0, 1)]
    last: list[Point | None] = [None, None]
    alive = [True, True]
    while any(alive):
        for n, one in enumerate(passes):
            point = next(one, "end")
            if point == "end":
                alive[n] = False
            elif isinstance(point, Point):
                last[n] = point
    assert [one.score for one in last if one is not None] == apart
