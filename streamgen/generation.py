"""New sequences from a learner that was stored: they go on from where it stopped.

S sequences of L steps, D columns.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from streamgen.config import InputConfig
from streamgen.errors import InputError, StateError
from streamgen.learners.task import Task
from streamgen.models.device import use_device
from streamgen.models.online import Kind
from streamgen.output import STANDARD_OUTPUT, as_text, whole_file
from streamgen.records import Floats, TopicPartition
from streamgen.state.checkpoint import Checkpoint
from streamgen.state.files import FileStore

SUFFIXES = (".npz", ".csv", ".jsonl")
OUTERMOST = 1e-5  # share of a quantile, from 0 or 1


def generate(
    directory: Path | str,
    length: int,
    count: int,
    seed: int,
    key: str | None = None,
    device: str = "cpu",
    kind: Kind = "continue",
) -> tuple[Floats, tuple[str, ...]]:
    """`[count, length, D]` sequences in input units, and the names of the D columns.

    They come from the newest state under `directory` (a path, or a URL of fsspec), of the learner of `key`
    (None: that of records without a key, or the only one there is). They go on from its newest record, or
    (kind "prior") are of the times after it, whatever came before. The same state and seed give the same
    sequences.

    Raises `StateError` when there is no state that can be read, and `InputError` for a key that has no
    learner or a model that does not generate.
    """
    source, checkpoint = _find(directory, key)
    chosen = _choose_key(list(checkpoint.learners), key, f"the state under {directory}")
    task = restored(source, checkpoint, (chosen,), device)
    return task.generate(chosen, length, count, seed, kind), task.features


def quantiles(x_SLD: Floats, share_Q: Sequence[float]) -> Floats:
    """`[Q, L, D]` at each step the value that a share q of the sequences does not exceed, of each column
    alone, and between two of them in proportion: between those of 0.1 and 0.9 lie 80 % of a forecast, however
    few sequences tell them (Weibull 1939; number 6 of Hyndman & Fan 1996). Raises `InputError`
    (`check_shares`)."""
    check_shares(share_Q, len(x_SLD))
    return np.asarray(np.quantile(x_SLD, share_Q, axis=0, method="weibull"))


def check_shares(share_Q: Sequence[float], count: int) -> None:
    """Raises `InputError` where one is not between 0 and 1, and for so few sequences that none is expected
    beyond the outermost quantile."""
    if not share_Q or not all(OUTERMOST <= share <= 1 - OUTERMOST for share in share_Q):
        raise InputError(
            f"Quantiles are of shares between 0 and 1, {OUTERMOST:f} to {1 - OUTERMOST:f}: 0.1,0.5,0.9, say."
        )
    outer = min(min(share, 1 - share) for share in share_Q)
    least = math.ceil(1 / outer - 1e-6)  # 1 − 0.9 is a bit less than 0.1
    if count < least:
        raise InputError(
            f"{count} sequences do not tell these quantiles: ask for {least} at least (--count), better for "
            "ten times as many."
        )


def write_sequences(
    out: Path, x_SLD: Floats, columns: Sequence[str], share_S: Sequence[float] | None = None
) -> None:
    """Write sequences by the suffix of `out`: .npz (`x` [S, L, D], `columns` [D]), .csv or .jsonl (a line
    for each step: sequence, step, and the columns); `-` is JSON lines to standard output. With `share_S` they
    are `quantiles`: .npz has their shares as `quantiles` [S], a line its share as `quantile`.

    Raises `InputError` for another suffix, a file that cannot be written, and in a line a column whose name
    is that of something else.
    """
    check_suffix(out)
    first, name_S = ("sequence", range(len(x_SLD))) if share_S is None else ("quantile", share_S)
    taken = [name for name in (first, "step") if name in columns and out.suffix != ".npz"]
    if taken:
        raise InputError(f"A line of {out} has its own {taken[0]!r} beside the column: use .npz.")
    with whole_file(out) as file:
        if out.suffix == ".npz":
            if share_S is None:
                np.savez(file, x=x_SLD, columns=np.array(columns))
            else:
                np.savez(file, x=x_SLD, columns=np.array(columns), quantiles=np.array(share_S))
            return
        rows = (
            [name, step, *values]
            for name, x_LD in zip(name_S, x_SLD.tolist(), strict=True)
            for step, values in enumerate(x_LD)
        )
        header = [first, "step", *columns]
        if out.suffix == ".csv":
            with as_text(file) as text:
                writer = csv.writer(text, lineterminator="\n")
                writer.writerow(header)
                writer.writerows(rows)
        else:
            encode = msgspec.json.encode
            file.writelines(encode(dict(zip(header, row, strict=True))) + b"\n" for row in rows)


def check_suffix(out: Path) -> None:
    """Raises `InputError` when `write_sequences` has no form for the name."""
    if out != STANDARD_OUTPUT and out.suffix not in SUFFIXES:
        raise InputError(f"The form of {out} is not known: end its name in {', '.join(SUFFIXES)}, or use -.")


def stored(directory: Path | str) -> list[tuple[TopicPartition, Checkpoint]]:
    """The newest state of each task under `directory`. Raises `StateError` when there is none."""
    store = FileStore(directory)
    found = [(source, one) for source in store.sources() if (one := store.peek(source)) is not None]
    if not found:
        raise StateError(f"There is no state under {directory}: learn one first (streamgen fit --state DIR).")
    return found


def restored(source: TopicPartition, checkpoint: Checkpoint, keys: Iterable[str | None], device: str) -> Task:
    """A task with some of a state's learners: none needs another's."""
    manifest = checkpoint.manifest
    config = InputConfig.model_validate(manifest.input)
    task = Task(source, config, manifest.features, manifest.seed, use_device(device))
    task.restore(manifest.facts, {key: checkpoint.learners[key] for key in keys})
    return task


def _find(directory: Path | str, key: str | None) -> tuple[TopicPartition, Checkpoint]:
    found = stored(directory)
    if len(found) == 1:
        return found[0]
    holding = [(source, one) for source, one in found if key in one.learners]
    if len(holding) == 1:
        return holding[0]
    topics = ", ".join(str(source) for source, _ in found)
    raise InputError(
        f"There are {len(found)} states under {directory} ({topics}) and the key does not tell which: name a "
        "--key that only one of them has."
    )


def _choose_key(keys: Sequence[str | None], asked: str | None, where: str) -> str | None:
    if asked in keys:
        return asked
    if asked is None and len(keys) == 1:
        return keys[0]
    names = sorted(key for key in keys if key is not None)
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    if asked is None:
        raise InputError(f"There are {len(names)} keys in {where}: name one with --key ({listed}).")
    near = difflib.get_close_matches(asked, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    known = f"Its keys: {listed}." if names else "It was learned without keys: leave --key out."
    raise InputError(f"There is no key {asked!r} in {where}.{hint} {known}")
