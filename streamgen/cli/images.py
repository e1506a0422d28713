"""`streamgen images`: image models that learn in batches, from files or from a topic."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamgen.cli.images_evaluate import evaluate
from streamgen.cli.images_publish import publish
from streamgen.cli.images_run import run
from streamgen.cli.options import Bootstrap, Device, From, Seed, To, configuration
from streamgen.errors import ConfigError

if TYPE_CHECKING:
    from streamgen.images.checkpoint import Cut
    from streamgen.images.source import Look, Source
    from streamgen.images.training import Progress
    from streamgen.state.folder import Folder

NAMED = 10  # skipped files or records that are listed

Images = Annotated[
    Path | None,
    typer.Argument(
        metavar="IMAGES",
        help="Folder of image files, .npz with an array, or IDX file.",
        show_default=False,
    ),
]
Array = Annotated[
    str | None, typer.Option("--array", metavar="NAME", help="Which array of an .npz that has several.")
]
State = Annotated[Path, typer.Option("--state", metavar="DIR", help="Folder of the training.")]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the picture goes, as PNG.")]


def register(app: typer.Typer) -> None:
    """Add the group and its commands."""
    group = typer.Typer(
        name="images",
        help="Learn images in batches, and draw new ones.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for command in (fit, run, sample, interpolate, publish, evaluate):
        group.command()(command)
    app.add_typer(group)


def fit(
    state: State,
    images: Images = None,
    topic: Annotated[
        str | None,
        typer.Option("--topic", metavar="TOPIC", help="Topic whose values are images as PNG or JPEG."),
    ] = None,
    first: From = "earliest",
    end: To = "latest",
    bootstrap: Bootstrap = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="Model to learn with: vae or gan.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", metavar="NAME", help="Preset of the model: default or paper.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=1, help="Steps of the whole training.")] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", min=16, max=128, help="Pixels of a side, to scale images to."),
    ] = None,
    colours: Annotated[
        str | None, typer.Option("--colours", metavar="KIND", help="Learn in auto, grey or colour.")
    ] = None,
    array: Array = None,
    every: Annotated[int, typer.Option("--every", min=1, help="Steps from checkpoint to checkpoint.")] = 500,
    seed: Seed = 0,
    device: Device = "auto",
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="YAML file with model: and images: settings."),
    ] = None,
) -> None:
    """Train an image model; started again, it goes on from the last checkpoint.

    While it trains, the folder gets a grid of samples and a plot of the losses beside each checkpoint.
    """
    from streamgen.images.source import read_images
    from streamgen.images.training import Training
    from streamgen.state.folder import open_folder

    chosen, look = image_settings(
        config, {"name": model, "preset": preset, "steps": steps}, {"size": size, "colours": colours}
    )
    folder = open_folder(state)
    if topic is not None:
        if images is not None or array is not None:
            raise ConfigError("The images come from a topic or from files, not from both: leave one out.")
        source, cut = _of_topic(topic, first, end, bootstrap, look, folder)
    elif images is None:
        raise ConfigError("Say where the images are: a folder or file, or --topic.")
    else:
        if (first, end) != ("earliest", "latest"):
            raise ConfigError("--from and --to are of a topic: leave them out.")
        source, cut = read_images(images, look, array), None
    tell_skipped(source, "files" if cut is None else "records")
    training = Training(source.images_NHWC, chosen, look, seed, device, folder, cut)
    if cut is not None:
        _say(f"the images are those of {cut}")
    count, height, width, _ = source.images_NHWC.shape
    going = f", going on from step {training.step}" if training.step else ""
    _say(f"{training.model.name}: {count} images of {width} × {height} on {training.model.device}{going}")
    with _bar(training.step, training.model.settings.steps, every) as tell:
        outcome = training.run(every, tell)
    if outcome.skipped:
        _say(f"{outcome.skipped} updates were skipped, since their loss was not finite")
    if outcome.failure is not None:
        _say(f"{outcome.failure} Went back to the checkpoint of step {outcome.step} in {state}, and ended.")
        _say("Try a smaller model.learning_rate, or another --seed, with another --state.")
        raise typer.Exit(1)
    _say(f"done: step {outcome.step}, in {state}")


def sample(
    state: State,
    out: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help=".npz with an array, .png with a grid, or a folder."),
    ],
    count: Annotated[int, typer.Option("--count", min=1, help="Images.")] = 64,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Draw new images.

    Image number n of a seed is the same whatever the count. A folder gets a PNG file of each.
    """
    import numpy as np

    from streamgen.images.drawing import draw, trained
    from streamgen.images.pictures import grid, png
    from streamgen.output import whole_file
    from streamgen.state.folder import open_folder

    if out.suffix not in (".npz", ".png", ""):
        raise ConfigError(f"--out {out} is neither .npz, nor .png, nor a folder.")
    found, _ = trained(open_folder(state), device)
    images_NHWC = draw(found, seed, count)
    if out.suffix == ".npz":
        with whole_file(out) as file:
            np.savez_compressed(file, images=images_NHWC)
    elif out.suffix == ".png":
        with whole_file(out) as file:
            file.write(grid(images_NHWC, math.isqrt(count)))
    else:
        folder = open_folder(out)
        for number, image_HWC in enumerate(images_NHWC):
            folder.write(f"{number:06d}.png", [png(image_HWC)])
    _say(f"{count} images in {out}")


def interpolate(
    state: State,
    out: Out,
    rows: Annotated[int, typer.Option("--rows", min=1, help="Ways from an image to another.")] = 8,
    across: Annotated[int, typer.Option("--across", min=2, help="Images of each way.")] = 10,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Draw the way from one image to another, in rows."""
    from streamgen.images.drawing import between, trained
    from streamgen.images.pictures import grid
    from streamgen.output import whole_file
    from streamgen.state.folder import open_folder

    found, _ = trained(open_folder(state), device)
    with whole_file(out) as file:
        file.write(grid(between(found, seed, rows, across), across))


def image_settings(
    config: Path | None, model: dict[str, Any], look: dict[str, Any]
) -> tuple[dict[str, Any], Look]:
    """What the options say, above what the file says. Raises `ConfigError`."""
    from pydantic import ValidationError

    from streamgen.images.source import Look
    from streamgen.yamlfile import read_yaml

    given = read_yaml(config) if config is not None else {}
    if unknown := sorted(set(given) - {"model", "images"}):
        raise ConfigError(f"{config}: unknown key {unknown[0]!r}; an image training has model: and images:.")
    parts = {}
    for name, options in (("model", model), ("images", look)):
        section = given.get(name) or {}
        if not isinstance(section, dict):
            raise ConfigError(f"{config}: {name} should be a mapping of settings.")
        parts[name] = section | {key: value for key, value in options.items() if value is not None}
    try:
        return parts["model"], Look.model_validate(parts["images"])
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(f"images.{key}: {problem['msg']}.") from None


def _of_topic(
    topic: str, first: str, end: str, bootstrap: str | None, look: Look, folder: Folder
) -> tuple[Source, Cut]:
    """The images of a part of a topic: of the one that the training was begun with, if it was."""
    from streamgen.between import bounds
    from streamgen.images.checkpoint import Cut
    from streamgen.images.topic import begun_with, read_cut
    from streamgen.kafka.reach import reach
    from streamgen.kafka.tail import KafkaTail

    config = configuration(None, bootstrap, (topic,))
    reach(config.kafka)
    asked = (first, end) != ("earliest", "latest")
    known = None if asked else begun_with(folder, topic)
    between = {} if known else bounds(config, config.inputs[0], first, end)
    tail = KafkaTail(config.kafka)
    try:
        cut = known or Cut(topic, tail.topic_id(topic), between)
        return read_cut(tail, cut, look).source(cut), cut
    finally:
        tail.close()


def tell_skipped(source: Source, what: str) -> None:
    """What was skipped is counted, and the first of it named."""
    if source.skipped:
        _say(f"{len(source.skipped)} {what} were skipped:")
        for name, reason in list(source.skipped.items())[:NAMED]:
            _say(f"  {name}: {reason}")
        if len(source.skipped) > NAMED:
            _say(f"  and {len(source.skipped) - NAMED} more")


@contextmanager
def _bar(done: int, steps: int, every: int) -> Iterator[Callable[[Progress], None]]:
    """Losses and the time left: a bar on a terminal, elsewhere a line from checkpoint to checkpoint."""
    if not sys.stderr.isatty():

        def line(progress: Progress) -> None:
            if progress.step % every == 0 or progress.step == steps:
                _say(f"step {progress.step} of {steps}: {_losses(progress)}")

        yield line
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=steps, completed=done)
        yield lambda progress: bar.update(task, completed=progress.step, description=_losses(progress))


def _losses(progress: Progress) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())


def _say(line: str) -> None:
    print(line, file=sys.stderr)
