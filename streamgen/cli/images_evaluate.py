"""`streamgen images evaluate`: generated images against real ones."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from streamgen.images.classifier import Images
    from streamgen.images.evaluation import Likelihood
    from streamgen.records import Ints


def evaluate(
    real: Annotated[
        str,
        typer.Argument(
            metavar="REAL", help="Real images that were held out: FILE.npz, FILE.npz:ARRAY, a folder or IDX."
        ),
    ],
    generated: Annotated[str, typer.Argument(metavar="GENERATED", help="Generated images, given likewise.")],
    train: Annotated[
        str | None,
        typer.Option(
            "--train",
            metavar="IMAGES",
            help="What the generator learned from, given likewise: finds copies, and teaches the classifier.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(
            "--state", metavar="DIR", help="A trained vae: how likely it finds REAL, beside --train."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=2, help="Classifiers, and random halves.")] = 3,
    page: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the figures and pictures there, as a page and as PNG files."),
    ] = None,
) -> None:
    """Judge generated images against real ones.

    Every figure stands beside its null, which is what real images give against real ones. A classifier of a
    minute's training for each seed looks at the images.
    """
    from streamgen.evaluation.report import lines
    from streamgen.images.classifier import learn
    from streamgen.images.evaluation import checked, held_out_elbo
    from streamgen.images.evaluation import evaluate as judged

    if page is not None:
        from streamgen.evaluation.page import check_page

        check_page(page)
    generated_images, _ = _read(generated, None)
    real_images, label_N = _read(real, generated_images)
    training = None
    if train is None:
        # No image may teach the classifier and be judged by it.
        taught, real_images, label_N = _halved(real_images, label_N)
    else:
        taught, label_N = _read(train, generated_images)
        training = taught
    checked(real_images, generated_images, training, seeds)
    bound = None if state is None else _likelihood(state, real_images, training is not None)
    classifiers = []
    for seed in range(seeds):
        one = learn(taught, label_N, seed)
        print(
            f"classifier {seed + 1} of {seeds} tells {one.task}: {one.accuracy:.1%} right "
            f"(a blind guess: {one.chance:.1%})",
            file=sys.stderr,
        )
        classifiers.append(one)
    found = judged(real_images, generated_images, classifiers, training)
    if bound is not None and training is not None:
        found.figures.append(held_out_elbo(bound, real_images, training, seeds))
    print(f"{len(real_images)} real and {len(generated_images)} generated images")
    print("\n".join(lines(found.figures)))
    print("The own Fréchet distance is that of these classifiers: never compare it with a published FID.")
    if page is not None:
        from streamgen.images.page import write_page

        title = f"{Path(generated).name} beside {Path(real).name}"
        print(write_page(page, real_images, generated_images, found, classifiers, title))


def _likelihood(state: Path, real: Images, trained_on: bool) -> Likelihood:
    """The model in a folder, that gives a bound. Raises `ConfigError` or `InputError`."""
    from streamgen.errors import ConfigError, InputError
    from streamgen.images.drawing import trained
    from streamgen.models.vae import VAE
    from streamgen.state.folder import open_folder

    if not trained_on:
        raise ConfigError("--state needs --train: held-out images are compared with what was learned.")
    model, manifest = trained(open_folder(state), "auto")
    if not isinstance(model, VAE):
        raise ConfigError(f"{state} holds a {model.name}, which gives no likelihood: leave out --state.")
    colours, height, width = manifest.shape
    if real.shape[1:] != (height, width, colours):
        raise InputError(
            f"The model in {state} is of {height} × {width} pixels in {colours} colours, and the images are "
            f"{real.shape[1]} × {real.shape[2]} in {real.shape[3]}: bring them to its size."
        )
    return model


def _halved(images: Images, label_N: Ints | None) -> tuple[Images, Images, Ints | None]:
    """A random half that teaches, the other one that is compared, and the labels of the first."""
    import numpy as np

    order = np.random.default_rng(0).permutation(len(images))
    taught, compared = np.split(order, [len(order) // 2])
    return images[taught], images[compared], None if label_N is None else label_N[taught]


def _read(source: str, like: Images | None) -> tuple[Images, Ints | None]:
    """The images [N, H, W, C] of `FILE.npz` or `FILE.npz:ARRAY`, with the labels that stand beside them as
    `ARRAY_label`; or those of a folder or an IDX file, brought to the form that others have. Raises
    `InputError`."""
    import zipfile

    import numpy as np

    from streamgen.errors import InputError

    if ".npz" not in source and Path(source).suffix != ".npy" and Path(source).exists():
        return _brought(source, like), None
    path, _, name = source.partition(".npz:")
    path = f"{path}.npz" if name else source
    try:
        held = np.load(path)  # without pickles
        if not isinstance(held, np.lib.npyio.NpzFile):
            raise ValueError("it holds one bare array")
        with held:
            if not name:
                names = [
                    one for one in held.files if held[one].dtype == np.uint8 and held[one].ndim in (3, 4)
                ]
                if len(names) != 1:
                    raise InputError(
                        f"{path} holds {len(names)} arrays of images ({', '.join(names)}): "
                        f"name one, as {path}:ARRAY."
                    )
                name = names[0]
            images = held[name]
            labels = np.asarray(held[f"{name}_label"]) if f"{name}_label" in held.files else None
    except KeyError:
        raise InputError(f"{path} holds no array {name}.") from None
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no file of images ({error}): give a .npz file.") from None
    return (images[..., None] if images.ndim == 3 else images), labels


def _brought(source: str, like: Images | None) -> Images:
    """The images of a folder or an IDX file, as training reads them, in the size and colours of others."""
    from streamgen.cli.images import tell_skipped
    from streamgen.images.source import Look, read_images

    if like is None:
        look = Look()  # type: ignore[call-arg]
    else:
        _, height, width, colours = like.shape
        size = height if height == width else None  # only squares are cut out of other sizes
        look = Look(size=size, colours="grey" if colours == 1 else "colour")
    found = read_images(Path(source), look)
    tell_skipped(found, "files")
    return found.images_NHWC
