"""How good the images are that a model draws after so many seconds of one core, beside plain models.

    OMP_NUM_THREADS=1 python -m benchmarks.images_quality DATA vae:240 gan:480 many:90

DATA holds images/mnist.npz and images/cifar10.npz (a part of CIFAR-10: 12,000 images), each with the arrays
train [N, H, W] or [N, H, W, C], train_label, test, test_label. A part is given with the process time (user
and system, one thread of torch) for which each of its models learns, whatever it makes of it.

- *vae*: its defaults beside a plain VAE; *gan*: beside DCGAN (`image_baselines.py`).
- *vae-paper*, *gan-paper*: the defaults beside `preset: paper`.
- *many*: `gan` on MNIST from 20 seeds: does one of them diverge or collapse?

Judged by `streamgen.images.evaluation`: two classifiers, which learned the labels of the training images
and are the same for all models, compare half of the test images with as many drawn ones; the null is the
other half of the test images. A figure is the mean over the classifiers; table and deviation are over the
seeds of the model. All drawn images are the means of the decoder, or the generator's, with no other choice.

A run that is finished is kept in images_quality.json and not made again. What a run learns in a time depends
on the machine, so another gives other figures.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

from benchmarks.image_baselines import DCGAN, PlainVAE
from benchmarks.kept import Kept
from benchmarks.machine import load, processor
from streamgen.images import classifier, pictures
from streamgen.images.drawing import TOPIC, draw
from streamgen.images.evaluation import evaluate
from streamgen.images.source import Images
from streamgen.images.watch import Watch
from streamgen.models.batch import build
from streamgen.models.noise import generator
from streamgen.records import Floats, Ints

DATA_SETS = ("mnist", "cifar10")
PRESETS: dict[str, dict[str, Any]] = {
    "vae": {"name": "vae"},
    "gan": {"name": "gan"},
    "vae, paper": {"name": "vae", "preset": "paper"},
    "gan, paper": {"name": "gan", "preset": "paper"},
}
# Ours, and what it has to be better than.
PAIRS = {
    "vae": ("vae", "plain vae"),
    "gan": ("gan", "dcgan"),
    "vae-paper": ("vae", "vae, paper"),
    "gan-paper": ("gan", "gan, paper"),
}
MANY, FEW = 20, 3  # seeds
CLASSIFIERS = 2
LOOK_EVERY = 50  # steps
FRECHET, COVERAGE = "own Fréchet distance", "coverage"
SHOWN, ACROSS = 64, 8


@dataclass(frozen=True, slots=True, order=True)
class Run:
    """One training."""

    data: str
    model: str
    seconds: float
    seed: int

    @property
    def name(self) -> str:
        return f"{self.data}/{self.model}/{self.seconds:g} s/{self.seed}"


@functools.cache
def read(folder: Path, data: str, part: str) -> tuple[Images, Ints]:
    """Images [N, H, W, C] and labels [N]."""
    with np.load(folder / "images" / f"{data}.npz") as file:
        images, label_N = file[part], file[f"{part}_label"]
    return images if images.ndim == 4 else images[..., None], label_N


def train(folder: Path, run: Run) -> tuple[dict[str, Any], Images]:
    """What the training was, and half as many images as the test has."""
    images_NHWC, _ = read(folder, run.data, "train")
    count = len(read(folder, run.data, "test")[0]) // 2
    learn, drawn, look, batch = contestant(run, images_NHWC)
    rng = np.random.default_rng(run.seed)
    spent, step, failure = 0.0, 0, None
    while spent < run.seconds:
        chosen_B = rng.integers(0, len(images_NHWC), batch)
        began = process_time()
        step += 1
        learn(images_NHWC[chosen_B], step)
        spent += process_time() - began
        if step % LOOK_EVERY == 0:
            failure = failure or look()
    facts = {"steps": step, "images": step * batch, "seconds": spent, "failure": failure or look()}
    return facts, drawn(count)


def contestant(
    run: Run, images_NHWC: Images
) -> tuple[Callable[[Images, int], object], Callable[[int], Images], Callable[[], str | None], int]:
    """How a model learns, draws, and is looked at, and the size of its batch."""
    torch.set_num_threads(1)
    torch.manual_seed(run.seed)
    shape = (images_NHWC.shape[3], *images_NHWC.shape[1:3])
    if run.model not in PRESETS:
        plain = DCGAN(shape) if run.model == "dcgan" else PlainVAE(shape)
        return lambda images, _: plain.learn(images), plain.draw, lambda: None, plain.batch
    model = build(PRESETS[run.model], shape, "cpu")
    model.start(images_NHWC, generator(run.seed, TOPIC, None, model.name, 0))
    watch = Watch(images_NHWC)
    return (
        lambda images, step: model.learn(images, generator(run.seed, TOPIC, None, model.name, step)),
        lambda count: draw(model, run.seed, count),
        lambda: watch.look(model),
        model.settings.batch,
    )


@functools.cache
def judges(folder: Path, data: str) -> list[classifier.Classifier]:
    """The same for every model."""
    images_NHWC, label_N = read(folder, data, "train")
    return [classifier.learn(images_NHWC, label_N, seed) for seed in range(CLASSIFIERS)]


def judge(folder: Path, data: str, drawn_MHWC: Images) -> dict[str, dict[str, float]]:
    """Each figure with its null."""
    figures = evaluate(read(folder, data, "test")[0], drawn_MHWC, judges(folder, data)).figures
    return {one.name: {"value": one.value, "null": one.null} for one in figures}


def wanted(parts: list[tuple[str, float]], data: list[str], seeds: int, many: int) -> list[Run]:
    """Each run once, in a part the first seed of all before the second of any."""
    found: list[Run] = []
    for part, seconds in parts:
        if part == "many":
            found += [Run("mnist", "gan", seconds, n) for n in range(many)]
        else:
            found += [Run(of, one, seconds, n) for n in range(seeds) for of in data for one in PAIRS[part]]
    return list(dict.fromkeys(found))


def group(results: dict[str, Any], data: str, model: str, seconds: float) -> list[dict[str, Any]]:
    """The finished runs of all seeds."""
    prefix = Run(data, model, seconds, 0).name.rpartition("/")[0] + "/"
    return [one for name, one in sorted(results.items()) if name.startswith(prefix)]


def column(runs: list[dict[str, Any]], figure: str) -> Floats:
    """[seeds] of a figure."""
    return np.array([one["figures"][figure]["value"] for one in runs])


def compared(results: dict[str, Any], pair: tuple[str, str], seconds: float) -> list[str]:
    """A table of both models, and in words which is better."""
    lines = [
        "| images | model | seeds | images learned | own Fréchet distance | coverage | precision | recall |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    words = [""]
    for data in DATA_SETS:
        both = [group(results, data, model, seconds) for model in pair]
        if all(both):
            for model, runs in zip(pair, both, strict=True):
                cells = [told(column(runs, figure)) for figure in (FRECHET, COVERAGE, "precision", "recall")]
                learned = np.mean([one["images"] for one in runs])
                lines.append(f"| {data} | {model} | {len(runs)} | {learned:,.0f} | {' | '.join(cells)} |")
            null = both[0][0]["figures"]
            words += [
                f"- {data}, {pair[0]} beside {pair[1]}: {verdict(*both)}. Real images against real ones have "
                f"{null[FRECHET]['null']:.3f} and {null[COVERAGE]['null']:.3f}."
            ]
    return [*lines, *words]


def verdict(mine: list[dict[str, Any]], other: list[dict[str, Any]]) -> str:
    """Of each figure, the ratio of the means and whether the seeds' ranges meet."""
    found = []
    for figure, sign in ((FRECHET, -1.0), (COVERAGE, 1.0)):
        one, two = column(mine, figure), column(other, figure)
        of_mine, of_other = sign * one, sign * two
        word = "better" if of_mine.mean() > of_other.mean() else "worse"
        apart = of_mine.min() > of_other.max() or of_mine.max() < of_other.min()
        clause = "in every seed" if apart else "on average, but the seeds' ranges meet"
        ratio = f" ({(one.mean() / two.mean()) ** sign:.2f} ×)" if one.mean() and two.mean() else ""
        found.append(f"{figure} {word} {clause}{ratio}")
    return "; ".join(found)


def told(values: Floats) -> str:
    return f"{values.mean():.3f}" + (f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else "")


def many_seeds(results: dict[str, Any], seconds: float) -> list[str]:
    """What the best, the middle and the worst seed have."""
    runs = group(results, "mnist", "gan", seconds)
    coverage = column(runs, COVERAGE)
    low_to_high = [
        ", ".join(f"{x:.3f}" for x in np.quantile(column(runs, figure), (0.0, 0.5, 1.0)))
        for figure in (COVERAGE, FRECHET)
    ]
    failures = [one["failure"] for one in runs if one["failure"]]
    return [
        "| seeds | failures seen by the watch | coverage: least, median, best | least / best "
        "| own Fréchet distance: best, median, worst |",
        "|---:|---:|---|---:|---|",
        f"| {len(runs)} | {len(failures)} | {low_to_high[0]} | {coverage.min() / coverage.max():.2f} "
        f"| {low_to_high[1]} |",
        *(f"\n- {failure}" for failure in failures),
    ]


def page(results: dict[str, Any], before: float) -> str:
    """All tables that there are runs for."""
    text = [
        "# Images: quality after equal time",
        "",
        "Made by `python -m benchmarks.images_quality`; its docstring says what is measured. The Fréchet",
        "distance is in the features of a small classifier that learned these images, per feature, in its",
        "deviations: **never compare it with published FIDs**. Less of it is better, and more of the",
        "others; mean ± deviation over the seeds.",
        "",
        f"{processor()}, one thread of torch, niceness {os.nice(0)}; load average {before:.1f} before "
        f"and {load():.1f} after.",
    ]
    for seconds in sorted({float(name.split("/")[2].removesuffix(" s")) for name in results}):
        for title, pair in PAIRS.items():
            if any(all(group(results, data, model, seconds) for model in pair) for data in DATA_SETS):
                text += ["", f"## {title}, {seconds:g} s", "", *compared(results, pair, seconds)]
        if len(group(results, "mnist", "gan", seconds)) > FEW:
            text += ["", f"## many, {seconds:g} s", "", *many_seeds(results, seconds)]
    return "\n".join(text) + "\n"


def part_of(text: str) -> tuple[str, float]:
    """`gan:480` as a part and its seconds."""
    part, _, seconds = text.partition(":")
    if part not in (*PAIRS, "many"):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(PAIRS)} and many, with seconds")
    return part, float(seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DATA")
    parser.add_argument("parts", nargs="+", type=part_of, metavar="PART:SECONDS")
    parser.add_argument("--data", nargs="+", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--seeds", type=int, default=FEW)
    parser.add_argument("--many", type=int, default=MANY, help="seeds of the part of that name")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--pictures", type=Path, help="a folder for grids of the defaults' first seed")
    given = parser.parse_args()
    results = Kept(given.results / "images_quality.json")
    before = load()
    runs = wanted(given.parts, given.data, given.seeds, given.many)
    torch.set_num_threads(1)
    with ProcessPoolExecutor(given.jobs, get_context("spawn")) as pool:
        waiting: dict[Future[tuple[dict[str, Any], Images]], Run] = {
            pool.submit(train, given.folder, run): run for run in runs if run.name not in results
        }
        for done in as_completed(waiting):
            run, (facts, drawn_MHWC) = waiting[done], done.result()
            results.keep(run.name, facts | {"figures": judge(given.folder, run.data, drawn_MHWC)})
            (given.results / "images_quality.md").write_text(page(results, before))
            if given.pictures and run.seed == 0 and run.model in ("vae", "gan"):
                given.pictures.mkdir(parents=True, exist_ok=True)
                shown = pictures.grid(drawn_MHWC[:SHOWN], ACROSS)
                name = f"{run.data}-{run.model}-{run.seconds:g}s.png"
                (given.pictures / name).write_bytes(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
