"""Publishes drawn images as PNG: answers to requests exactly once, and others at a rate.

How it answers is in `streamgen.publishing.answering`. Whoever has partition 0 of the topic of requests also
publishes at a rate. The model is that of the newest whole checkpoint in a folder, which another process may
be writing to; a training that has diverged or collapsed stores none, and one of step 0 has learned nothing
and is passed over.

N images of H × W pixels, C colours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import structlog

from streamgen.config import Config
from streamgen.encode import iso
from streamgen.health import Health
from streamgen.images.checkpoint import Manifest, newest, newest_name
from streamgen.images.drawing import draw
from streamgen.images.pictures import png
from streamgen.images.requests import ImageRequest, parse
from streamgen.kafka.transport import Transport
from streamgen.metrics import PublisherMetrics
from streamgen.models.batch import build
from streamgen.models.batch_model import BatchModel
from streamgen.models.device import find_device
from streamgen.publishing.answering import Answering, seed_of
from streamgen.publishing.answers import dead_letter, failures_are_refusals
from streamgen.publishing.outbox import Pending
from streamgen.publishing.requests import Refusal, Refused, correlation_id
from streamgen.publishing.waiting import Asked
from streamgen.records import Headers, OutputBatch, TopicPartition
from streamgen.state.folder import Folder

log = structlog.get_logger()

TYPE = b"dev.streamgen.generated.image.v1"  # CloudEvents
KIND = "image"  # of the metrics
LOOK_S = 1.0  # between looks for a newer checkpoint


@dataclass(frozen=True, slots=True)
class Drawn:
    """Who asks for images and where they go: the request's key and time (ms), and what names the answer."""

    target: TopicPartition
    key: bytes | None
    time_ms: int
    name: str
    id: str | None


class ImagePublisher(Answering):
    """Draws from the model in `folder` for the one input of `config`, and changes nothing there."""

    def __init__(
        self,
        config: Config,
        transport: Transport,
        folder: Folder,
        metrics: PublisherMetrics,
        health: Health,
        device: str = "cpu",
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(transport, metrics, health, parse, clock, wall, sleep)
        self._application, (self._input,) = config.application_id, config.inputs
        self._folder, self._device = folder, device
        self._name: str | None = None  # of the checkpoint that was read
        self._model: tuple[BatchModel, Manifest] | None = None
        self._followed_at = -LOOK_S
        self._interval: int | None = None  # the last that was published at a rate
        metrics.generates(self._input.topic, [KIND], map(str, Refusal))

    @property
    def _ready(self) -> bool:
        return True  # without a model, requests are refused, which says why

    @property
    def _busy(self) -> bool:
        return False

    def _close(self) -> None:
        """Nothing is held."""

    def _follow(self) -> None:
        if self._clock() - self._followed_at < LOOK_S:
            return
        self._followed_at = self._clock()
        name = newest_name(self._folder)
        if name is None or name == self._name:
            return
        found = newest(self._folder)
        if found is None:
            return  # a trainer removed what was listed: the next look finds what it wrote
        manifest, state = found
        if manifest.step > 0 and (self._model is None or self._model[1].checksum != manifest.checksum):
            model = build(manifest.model, manifest.shape, find_device(self._device))
            model.load(state)
            self._model = model, manifest
            log.info("a model is taken up", model=model.name, step=manifest.step, folder=str(self._folder))
        self._name = name

    def _is_ready(self, asked: Asked) -> bool:
        return True

    def _wait(self) -> None:
        """There is nothing to wait for."""

    def _answered(self, asked: Asked) -> Pending:
        began, topic, raw, n = self._clock(), self._input.topic, asked.raw, asked.n
        offset, partition = int(raw.offset_N[n]), raw.source.partition
        try:
            if isinstance(asked.request, Refused):
                raise asked.request
            request: ImageRequest = asked.request
            # A request without a name is known by its place, and has a seed that no other one has.
            id = request.correlation_id or f"{raw.source}-{offset}"
            seed = seed_of(partition, offset) if request.seed is None else request.seed
            wanted = Drawn(
                TopicPartition(self._input.generated_topic, partition),
                raw.key[n],
                max(int(raw.timestamp_N[n]), 0),
                f"{raw.source}/{offset}/{request.digest}",
                id,
            )
            batch = self._made(request.count, seed, wanted)
        except Refused as refused:
            log.info("a request is refused", source=str(raw.source), offset=offset, reason=refused.detail,
                     correlation_id=correlation_id(raw.value[n]))  # fmt: skip
            self._metrics.refused(topic, refused.reason)
            target = TopicPartition(self._input.generate_dlq_topic, partition)
            pending = Pending(dead_letter(raw, n, target, refused), (raw.source, offset), topic, KIND, 0)
        else:
            pending = Pending(batch, (raw.source, offset), topic, KIND, len(batch))
        self._metrics.asked(topic, KIND, self._clock() - began)
        return pending

    def _drop(self, gone: Iterable[TopicPartition]) -> None:
        gone = set(gone)
        if TopicPartition(self._input.generate_topic, 0) in gone:
            self._interval = None  # what follows is published by another one, until it comes back
        super()._drop(gone)

    def _generate(self) -> None:
        every = self._input.generate.every
        if every is None or TopicPartition(self._input.generate_topic, 0) not in self._owned:
            return
        interval = int(self._wall() // every.total_seconds())
        if self._interval in (None, interval):
            self._interval = interval
            return
        self._interval = interval
        wanted = Drawn(
            TopicPartition(self._input.generated_topic, 0),
            None,
            int(interval * every.total_seconds() * 1000),
            f"rate/{interval}",
            None,
        )
        try:
            batch = self._made(self._input.generate.count, interval, wanted)
        except Refused as refused:
            log.warning("no image is published", reason=refused.detail)
            self._metrics.refused(self._input.topic, refused.reason)
        else:
            self._outbox.add(Pending(batch, None, self._input.topic, KIND, len(batch)))

    def _made(self, count: int, seed: int, wanted: Drawn) -> OutputBatch:
        """A function of the arguments and of the checkpoint. Raises `Refused`."""
        if self._model is None:
            raise Refused(Refusal.NO_STATE, f"there is no trained model in {self._folder} yet")
        model, manifest = self._model
        with failures_are_refusals(wanted.target):
            images_NHWC = self._drawn(lambda: draw(model, seed, count))
            value = [png(image_HWC) for image_HWC in images_NHWC]
        _, height, width, _ = images_NHWC.shape
        headers: Headers = [
            ("ce_specversion", b"1.0"),
            ("ce_source", f"/streamgen/{self._application}/{self._input.topic}".encode()),
            ("ce_type", TYPE),
            ("ce_time", iso(np.array([wanted.time_ms]))[0].encode()),
            ("content-type", b"image/png"),
            ("streamgen_generated", b"true"),
            ("streamgen_model", model.name.encode()),
            ("streamgen_step", b"%d" % manifest.step),
            ("streamgen_state", manifest.checksum.encode()),
            ("streamgen_count", b"%d" % count),
            ("streamgen_size", b"%dx%d" % (width, height)),
            ("streamgen_seed", b"%d" % seed),
        ]
        if wanted.id is not None:
            headers.append(("streamgen_correlation_id", wanted.id.encode("utf-8", "replace")))
        name = f"{self._application}/{wanted.name}/{manifest.checksum}/{seed}"
        own: list[Headers] = [
            [*headers, ("ce_id", f"{name}/{n}".encode()), ("streamgen_image", b"%d" % n)]
            for n in range(count)
        ]
        return OutputBatch(wanted.target, [wanted.time_ms] * count, [wanted.key] * count, [*value], own)
