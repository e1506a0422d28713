"""Which of two models draws images that are more like those that neither learned from.

Both draw from the same noise. Their distance from the images held out is Fréchet's, per feature, in the
features of one classifier, which is taught on images that the newer model learned from (`classifier`). It is
a comparison of the two, on these images, and no figure to compare with others.

N images of H × W pixels, C colours; E features.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from streamgen.evaluation import frechet_distance
from streamgen.images.classifier import learn
from streamgen.images.drawing import draw
from streamgen.images.source import Images
from streamgen.images.training import Training
from streamgen.models.batch import build

ITERATIONS = 200  # of the classifier: a quarter of what figures for people have
DRAWN = 1000


def distances(
    training: Training,
    before: Mapping[str, Tensor] | None,
    learned_NHWC: Images,
    held_out_NHWC: Images,
) -> tuple[float, float | None]:
    """The distance of the trained model, and of the one `before`, if there was one."""
    manifest = training.manifest
    classifier = learn(learned_NHWC, None, manifest.seed, ITERATIONS)
    real_NE = classifier.features(held_out_NHWC)
    models = [training.model]
    if before is not None:
        models.append(build(manifest.model, manifest.shape, training.model.device.type))
        models[1].load(before)
    found = [
        frechet_distance(real_NE, classifier.features(draw(model, manifest.seed, DRAWN))) / real_NE.shape[1]
        for model in models
    ]
    return found[0], found[1] if before is not None else None
