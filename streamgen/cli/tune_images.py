"""What `streamgen tune` compares over images: a folder, an `.npz` or an IDX file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from streamgen.cli.tuned import Matter

if TYPE_CHECKING:
    from streamgen.tuning.batch import Batch
    from streamgen.tuning.study import Study

STEPS = 1000  # of each training
MODELS = ("vae", "gan")


def are_images(source: str, model: str | None, config: Path | None) -> bool:
    """Whether an image model is to be tuned: as the model says, else the configuration, else the source.

    Raises `ConfigError` where the source is of images and nothing says with which model.
    """
    from streamgen.errors import ConfigError
    from streamgen.yamlfile import read_yaml

    if model is not None:
        return model in MODELS
    if config is not None:
        given = read_yaml(config)
        # Beside inputs, `images` is what `streamgen images run` learns.
        return "model" in given or ("images" in given and "inputs" not in given)
    if Path(source).is_dir() or source.endswith((".npz", "-ubyte", "-ubyte.gz")):
        raise ConfigError(f"{source} holds images: say --model vae or gan.")
    return False


class Pictures:
    """What is tuned, and over which images: those are read when a study is there."""

    def __init__(
        self,
        source: str,
        model: str | None,
        config: Path | None,
        array: str | None,
        steps: int | None,
        device: str,
    ) -> None:
        """Raises `ConfigError` for what cannot be."""
        from streamgen.cli.images import image_settings
        from streamgen.models.batch import settings
        from streamgen.tuning.batch import Batch

        self._source, self._array, self._device = source, array, device
        chosen, self._look = image_settings(config, {"name": model}, {})
        name = settings(chosen).model_dump()["name"]
        self.subject: Batch = Batch({"name": name, **chosen}, steps or STEPS)

    def over(self, known: Study) -> Matter:
        """Read the images: a study is of the same every time, and refuses others."""
        from streamgen.cli.images import tell_skipped
        from streamgen.images.source import read_images
        from streamgen.models.device import use_device
        from streamgen.tuning.held_out import EVERY, HeldOut

        found = read_images(Path(self._source), self._look, self._array)
        tell_skipped(found, "files")
        trial = HeldOut(self.subject, found.images_NHWC, use_device(self._device))
        count, height, width, colours = found.images_NHWC.shape
        held_out = len(trial.held_out_NHWC)
        of_gan = "; the classifiers are this study's own: never compare it with a published FID"
        return Matter(
            trial=trial,
            facts={
                "images": trial.fingerprint(),
                "configuration": self.subject.identity(),
                "steps": self.subject.steps,
            },
            data=[
                f"{count} images of {width} × {height} pixels, {'grey' if colours == 1 else 'colour'}, "
                f"every {EVERY}th held out, of which {held_out} are judged on.",
                f"{self.subject.steps} steps each.",
            ],
            judged=f"{trial.unit} on held-out images{of_gan if trial.name == 'gan' else ''}",
            name=trial.name,
            best=self._best,
            takers="streamgen images fit --config",
        )

    def _best(self, changed: Mapping[str, Any]) -> str:
        from streamgen.yamlfile import dump_yaml

        content: dict[str, Any] = {"model": dict(self.subject.applied(changed, reduce=True).model)}
        if look := self._look.model_dump(exclude_defaults=True):
            content["images"] = look
        return dump_yaml(content)
