"""Learns a topic of images batch after batch: what `streamgen images run` does.

A round
1. collects images, from where the round before ended, until there are `batch` of them in all partitions;
2. stores its plan, from which offset to which: broken off, it is gone on with, and has the same images;
3. trains the model from before (in the first round a new one) on nine of ten of them;
4. judges by the tenth: the Fréchet distance of images that the new model draws, and of those that the one
   before draws, in the eyes of a classifier that is taught on the others;
5. stores the better model, in one file with the offsets where the round ended: from then on it has happened
   (a first model that learned nothing is stored too, with step 0, and is not published);
6. commits these offsets as the group's, in one transaction with dead letters of what was no image.

The folder decides where the next round begins, and the group's offsets which dead letters are out. A round is
a function of the configuration, the model before and the images between its offsets; whatever ends a process,
the next one has the same bits, on the same device, library versions and number of threads.

Of several processes one works: that to which the group gives partition 0. A process that lost it and does not
know yet writes what its successor writes, under the same name.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

import structlog

from streamgen.backoff import wait_s
from streamgen.config import Config
from streamgen.errors import (
    ConfigError,
    LogGap,
    OutcomeUnknown,
    PublishAborted,
    Rebalanced,
    ReopenError,
    RetryError,
    StateError,
)
from streamgen.health import Health
from streamgen.images.checkpoint import Manifest, Round, newest, write
from streamgen.images.collecting import PLAN, Collecting, Plan, dead_letters
from streamgen.images.judging import distances
from streamgen.images.source import Images, Look
from streamgen.images.topic import Decoded, read_cut
from streamgen.images.training import Progress, Training, check_model
from streamgen.kafka.tail import Tail
from streamgen.kafka.transport import Transport
from streamgen.metrics import ImageMetrics
from streamgen.models.batch import settings
from streamgen.positions import is_of
from streamgen.records import TopicPartition
from streamgen.state.folder import Folder

HELD_OUT = 10  # one image of so many is not learned from
IDLE_S = 1.0  # between looks for new images
BEAT_S = 1.0  # between polls of the group while a model is trained
ROUND = "round"  # the folder of the one that is under way

State = Mapping[str, Any]  # of a model, as a checkpoint has it
log = structlog.get_logger()


class _Halted(Exception):
    """The process is to end, or the partition is another's: the training goes on elsewhere, or later."""


class Rounds:
    """Learns `config.images` into `folder`, one round after the other."""

    def __init__(
        self,
        config: Config,
        transport: Transport,
        tail: Tail,
        folder: Folder,
        metrics: ImageMetrics,
        health: Health,
        device: str = "cpu",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises `ConfigError` for a configuration without a topic of images, or a schedule that ends."""
        if config.images.topic is None:
            raise ConfigError("There is no topic of images: name it, or set images.topic.")
        self._config, self.topic, self._seed = config.images, config.images.topic, config.seed
        self._look = Look(size=config.images.size, colours=config.images.colours)
        if settings(config.images.model).schedule == "cosine":
            raise ConfigError(
                "images.model.schedule is cosine, whose step size is zero after the first batch: choose "
                "another."
            )
        self._transport, self._tail, self._folder, self._device = transport, tail, folder, device
        self._metrics, self._health, self._clock, self._sleep = metrics, health, clock, sleep
        self._assigned: set[TopicPartition] = set()
        self._collecting: Collecting | None = None  # None: what was done before is not known
        self._failures = 0
        self._halt = threading.Event()
        metrics.learns(self.topic)
        self._stopping: Callable[[], bool] = lambda: False

    def run(self, stopping: Callable[[], bool]) -> None:
        """Turn until `stopping()`; a round that is under way goes on when the next process starts."""
        self._stopping = stopping
        try:
            while not stopping():
                self.turn()
        finally:
            self._transport.close()
            self._tail.close()

    def turn(self) -> None:
        """Look for images; when there are enough, a whole round. Raises a `StopError` for what a person must
        mend."""
        self._halt.clear()  # no work is under way between turns
        try:
            self._poll(0.0 if self._collecting else IDLE_S)
            if TopicPartition(self.topic, 0) not in self._assigned:
                self._collecting = None
                return
            if self._collecting is None:
                self._collecting = self._opened()
            elif not self._beside(self._collecting.look_on):
                self._poll(IDLE_S)
            self._heed()
            self._tell(self._collecting)
            if (plan := self._collecting.plan()) is not None:
                # Whatever ends the round: what was done of it is looked up, and not done on top of itself.
                collecting, self._collecting = self._collecting, None
                self._round(plan, collecting)
            self._failures = 0
            self._health.broker(True)
        except _Halted:
            log.info("what is under way is left as it is")
            self._collecting = None
        except LogGap:
            if self._config.on_log_gap == "fail":
                raise
            # Retention was faster: begin the round again, with what there is.
            self._clear()
            self._collecting = None
        except (ReopenError, OutcomeUnknown) as error:
            # What was committed is looked up before anything else is done.
            log.warning("looking again where the group is", reason=str(error))
            self._collecting = None
            if isinstance(error, ReopenError):
                self._assigned = set()
                self._transport.forget()
        except RetryError as error:
            self._back_off(error)

    # --- what there is

    def _opened(self) -> Collecting:
        """From where the newest model stands, which is first committed if it is not yet."""
        found = newest(self._folder)
        topic_id = self._tail.topic_id(self.topic)
        bounds = self._transport.bounds(self._transport.partitions(self.topic))
        self._health.broker(True)
        first = {one.partition: begin for one, (begin, _) in bounds.items()}
        if found is None:
            return Collecting(self._tail, self._config, self._look, topic_id, first, self._stored_plan(1), 1)
        manifest, _ = found
        if manifest.round is None or manifest.cut is None or manifest.cut.topic != self.topic:
            what = "one training" if manifest.cut is None else f"a training on {manifest.cut.topic}"
            raise StateError(
                f"{self._folder} holds {what}, not one of {self.topic} in batches: choose another "
                "images.store."
            )
        check_model(settings(self._config.model).model_dump(mode="json"), manifest.model, self._folder)
        colours, height, width = manifest.shape
        look = self._look.model_copy(update={"colours": "grey" if colours == 1 else "colour"})
        self._check_look(manifest, look)
        begin = {number: end for number, (_, end) in manifest.cut.between.items()}
        if manifest.cut.topic_id not in ("", topic_id):
            self._gap(f"The topic {self.topic} was deleted and made again since the last batch", None)
            begin = {}
        else:
            self._commit(manifest, manifest.round)
        for number, least in first.items():
            if begin.get(number, least) < least:
                self._gap(f"{self.topic}-{number} has no records before offset {least} any more, and those "
                          f"from {begin[number]} on come next", least - begin[number])  # fmt: skip
            begin[number] = max(begin.get(number, least), least)
        number = manifest.round.number + 1
        return Collecting(
            self._tail,
            self._config,
            look,
            topic_id,
            begin,
            self._stored_plan(number),
            number,
            (height, width),
        )

    def _check_look(self, manifest: Manifest, look: Look) -> None:
        """Images that are made into others than the model's would all be skipped."""
        for name, wanted, has in (
            ("size", self._look.size, manifest.look["size"]),
            ("colours", self._look.colours, look.colours),
        ):
            if wanted not in (has, "auto"):
                raise StateError(
                    f"images.{name} is {wanted}, and what is in {self._folder} was learned with {has}: set "
                    "it to that, or choose another images.store."
                )

    def _gap(self, what: str, records: int | None) -> None:
        if self._config.on_log_gap == "fail":
            raise LogGap(f"{what}: set images.on_log_gap to continue to go on with what there is.")
        log.warning("images were lost", what=what)
        if records:
            self._metrics.lost(self.topic, records)

    def _stored_plan(self, number: int) -> Plan | None:
        """The plan of the round with that number, if it was broken off. What another one left is removed."""
        plan = Plan.read(self._folder.inside(ROUND))
        if plan is not None and plan.number == number:
            return plan
        self._clear()
        return None

    def _clear(self) -> None:
        folder = self._folder.inside(ROUND)
        # First what the rest belongs to.
        for name in sorted(folder.names(), key=lambda name: name != PLAN):
            folder.remove(name)

    # --- a round

    def _round(self, plan: Plan, collecting: Collecting) -> None:
        folder, found = self._folder.inside(ROUND), newest(self._folder)
        before = None if found is None else found[1]
        plan.write(folder)
        began = self._clock()

        def made() -> tuple[Decoded, Training, float, float | None]:
            decoded = collecting.decoded or read_cut(
                self._tail, plan.cut, collecting.look, plan.size, self._heed
            )
            images_NHWC = decoded.source(plan.cut).images_NHWC
            held_out = slice(HELD_OUT - 1, None, HELD_OUT)
            learned_N = [n for n in range(len(images_NHWC)) if n % HELD_OUT != HELD_OUT - 1]
            log.info("a round begins", round=plan.number, images=len(images_NHWC), of=str(plan.cut))
            training = self._trained(images_NHWC[learned_N], plan, collecting.look, folder, before)
            new, old = distances(training, before, images_NHWC[learned_N], images_NHWC[held_out])
            return decoded, training, new, old

        decoded, training, new, old = self._beside(made)
        # A model that has learned nothing is noise: it is never taken, and any other is taken in its place.
        known = found is not None and found[0].step > 0
        taken = training.step > 0 and (not known or old is None or new <= old)
        skipped = {f"{number}@{offset}": why for (number, offset), why in decoded.skipped.items()}
        one = Round(plan.number, taken, new, old, skipped)
        if found is None or taken:
            step = training.step + (0 if found is None else found[0].step)
            manifest, state = replace(training.manifest, step=step), training.model.state()
        else:
            manifest, state = found
        manifest = replace(manifest, cut=plan.cut, round=one)
        write(self._folder, manifest, state)
        if taken:
            self._folder.write("samples.png", [training.samples()])
        seconds = self._clock() - began
        log.info("a round ended", round=plan.number, taken=taken, distance=round(new, 4),
                 before=None if old is None else round(old, 4), seconds=round(seconds, 1))  # fmt: skip
        self._metrics.round_ended(self.topic, taken, new, old, seconds)
        self._commit(manifest, one)

    def _trained(
        self, images_NHWC: Images, plan: Plan, look: Look, folder: Folder, before: State | None
    ) -> Training:
        """Raises `_Halted` when it is to be left."""

        def tell(progress: Progress) -> None:
            self._metrics.trained(self.topic, progress.step, progress.losses)
            self._heed()

        # Noise and order of a round are its own.
        digest = hashlib.blake2b(f"{self._seed}/{plan.number}".encode(), digest_size=8).digest()
        seed = int.from_bytes(digest, "big") >> 1
        training = Training(
            images_NHWC, self._config.model, look, seed, self._device, folder, plan.cut, before
        )
        outcome = training.run(self._config.checkpoint_steps, tell)
        if outcome.failure is not None:
            log.warning("a training failed; its last good checkpoint is judged", reason=outcome.failure)
            self._metrics.training_failed(self.topic)
        return training

    def _beside(self, made: Callable[[], Any]) -> Any:
        """What `made` gives, in another thread: who does not poll for minutes is put out of the group."""
        with ThreadPoolExecutor(1, "training") as pool:
            made_one: Future[Any] = pool.submit(made)
            try:
                while not wait([made_one], BEAT_S).done:
                    self._beat()
            except BaseException:
                self._halt.set()
                raise
        return made_one.result()

    def _heed(self) -> None:
        if self._halt.is_set():
            raise _Halted

    def _beat(self) -> None:
        try:
            self._poll(0.0)
        except RetryError as error:
            log.info("the group was not polled", reason=str(error))
        if self._stopping() or TopicPartition(self.topic, 0) not in self._assigned:
            self._halt.set()

    def _commit(self, manifest: Manifest, one: Round) -> None:
        """What is no image as dead letters, and the offsets, unless that was done already."""
        assert manifest.cut is not None
        cut = manifest.cut
        ends = {TopicPartition(self.topic, number): end for number, (_, end) in cut.between.items()}
        known = self._transport.committed(ends)
        if all(
            (place := known[source]) is not None and is_of(place, cut.topic_id) and place.offset >= end
            for source, end in ends.items()
        ):
            return
        done = {
            source.partition: place.offset
            for source, place in known.items()
            if place is not None and is_of(place, cut.topic_id)
        }
        pieces = dead_letters(self._tail, self._config, cut, one, done)
        while (piece := self._beside(lambda: next(pieces, None))) is not None:
            ends = {TopicPartition(self.topic, number): end for number, end in piece.ends.items()}
            began = self._clock()
            self._transport.publish(piece.batches, ends, {self.topic: cut.topic_id})
            self._metrics.transaction(self._clock() - began)
            for reason in piece.reasons:
                self._metrics.dead_lettered(self.topic, reason)

    # --- the group

    def _poll(self, timeout_s: float) -> None:
        self._health.turn()
        polled = self._transport.poll(timeout_s, 1)
        for source in polled.revoked | polled.lost:
            self._metrics.revoked(source)
        for source in polled.assigned:
            self._metrics.assigned(source)
        if polled.assigned or polled.revoked or polled.lost:
            self._metrics.rebalanced()
        self._assigned = (self._assigned | polled.assigned) - polled.revoked - polled.lost
        if polled.joined:
            self._health.assigned(len(self._assigned))

    def _tell(self, collecting: Collecting) -> None:
        self._metrics.collected(self.topic, len(collecting))
        for number, left in collecting.left.items():
            self._metrics.lag(TopicPartition(self.topic, number), left)

    def _back_off(self, error: RetryError) -> None:
        if isinstance(error, PublishAborted):
            self._metrics.aborted()
        if isinstance(error, Rebalanced):
            return
        self._failures += 1
        self._health.broker(self._failures < 3)
        seconds = wait_s(self._failures)
        log.warning("trying again", reason=str(error), again_in_s=round(seconds, 2))
        self._sleep(seconds)
