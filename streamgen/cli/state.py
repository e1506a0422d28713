"""`streamgen state`: look at what was learned, check it, and take a copy away.

All that is in this file only reads: a running worker is not disturbed. `state_changes` has the others.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamgen.cli import state_changes
from streamgen.cli.options import (
    Application,
    Bootstrap,
    Inputs,
    LastConfig,
    Model,
    state_configuration,
    with_model,
)

if TYPE_CHECKING:
    from streamgen.state.checkpoint import Checkpoint, Fields, Manifest

NAMED = 10  # keys that are listed


def register(app: typer.Typer) -> None:
    """Add the group and its commands."""
    group = typer.Typer(
        name="state",
        help="Look at what was learned, move it, rebuild it, forget it.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    for name, command in (("list", list_), ("show", show), ("verify", verify), ("export", export)):
        group.command(name)(command)
    state_changes.register(group)
    app.add_typer(group)


def list_(config: LastConfig = None, bootstrap: Bootstrap = None, application_id: Application = None) -> None:
    """List the tasks that have a checkpoint.

    Topic, partition, offset, learners, size, age, and where this machine differs from the one that wrote it.
    """
    from streamgen.state.places import open_store

    store = open_store(state_configuration(config, bootstrap, None, application_id, stand_in=True))
    rows: list[tuple[str, ...]] = []
    rows += [("topic", "partition", "offset", "learners", "bytes", "age", "made with, unlike here")]
    for source in store.sources():
        checkpoint = store.peek(source)
        if checkpoint is None:
            continue  # forgotten meanwhile
        manifest = checkpoint.manifest
        size = sum(array.nbytes for fields in checkpoint.learners.values() for array in fields.values())
        cells = (source.topic, source.partition, manifest.offset, manifest.learners, size, _age(manifest))
        rows.append((*map(str, cells), _unlike(manifest)))
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        left, *numbers, last = (
            (cell.ljust if n in (0, 6) else cell.rjust)(widths[n]) for n, cell in enumerate(row)
        )
        print("  ".join((left, *numbers, last)).rstrip())


def show(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="Input topic of the task.")],
    partition: Annotated[int, typer.Argument(metavar="PARTITION", min=0, help="Partition of the task.")],
    config: LastConfig = None,
    key: Annotated[
        str | None,
        typer.Option("--key", help="Whose learner to show; not needed where there is one learner."),
    ] = None,
    bootstrap: Bootstrap = None,
    application_id: Application = None,
) -> None:
    """Show a task's newest checkpoint and, of one key, the fields of its learner."""
    from streamgen.errors import StateError
    from streamgen.records import TopicPartition
    from streamgen.state.places import open_store, place

    chosen = state_configuration(config, bootstrap, None, application_id, stand_in=True)
    source = TopicPartition(topic, partition)
    store = open_store(chosen)
    checkpoint = store.peek(source)
    if checkpoint is None:
        there = ", ".join(map(str, store.sources())) or "none"
        raise StateError(f"There is no checkpoint of {source} in {place(chosen)}; there are: {there}.")
    if key is None and len(checkpoint.learners) != 1:
        _tell(checkpoint)
        return
    fields = _learner(checkpoint, key)
    _tell(checkpoint)
    _tell_fields(fields)


def verify(
    config: LastConfig = None,
    topic: Inputs = None,
    bootstrap: Bootstrap = None,
    application_id: Application = None,
    model: Model = None,
) -> None:
    """Read all state and say whether a worker could go on from it.

    Checksums, versions, and whether it was learned with this configuration. The exit code is 1 when
    something is wrong.
    """
    from streamgen.verifying import verify as verified

    chosen = with_model(state_configuration(config, bootstrap, topic, application_id), model)
    bad = seen = 0
    for source, manifest, problems in verified(chosen):
        seen += 1
        for problem in problems:
            print(f"FAILED {problem}")
        if not problems and manifest is not None:
            print(f"ok     {source}: {manifest.learners} learners at offset {manifest.offset}")
        bad += bool(problems)
    if not seen:
        print("there is no checkpoint yet")
    if bad:
        raise typer.Exit(1)


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write the checkpoints.")],
    config: LastConfig = None,
    bootstrap: Bootstrap = None,
    application_id: Application = None,
) -> None:
    """Write every task's newest checkpoint into a folder.

    For `streamgen state import`, `run --from-state`, `sample` and `generate`. A running worker is not
    disturbed.
    """
    from streamgen.moving import export_state

    chosen = state_configuration(config, bootstrap, None, application_id, stand_in=True)
    for manifest in export_state(chosen, directory):
        size = f"{manifest.learners} learners, {manifest.checksum}"
        print(f"{manifest.source} at offset {manifest.offset}: {size}")


def _tell(checkpoint: Checkpoint) -> None:
    manifest = checkpoint.manifest
    rows: dict[str, Any] = {
        "source": manifest.source,
        "offset": manifest.offset,
        "learners": manifest.learners,
        "features": ", ".join(manifest.features),
        "model": ", ".join(f"{name} {value}" for name, value in manifest.input.get("model", {}).items()),
        "seed": manifest.seed,
        "fingerprint": manifest.fingerprint,
        "checksum": manifest.checksum,
        "topic id": manifest.topic_id or "(not known)",
        "age": _age(manifest),
        "made with": ", ".join(f"{name} {value}" for name, value in sorted(manifest.made_with.items())),
        "unlike here": _unlike(manifest) or "nothing",
        "format version": manifest.version,
        "stream time": manifest.facts.get("stream_time"),
        "keys without a learner yet": len(manifest.facts.get("candidates", ())),
    }
    names = [name for name in checkpoint.learners if name is not None]
    if names:
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        rows["keys"] = ", ".join(sorted(names)[:NAMED]) + more
    for name, value in rows.items():
        print(f"{name}: {value}")


def _learner(checkpoint: Checkpoint, key: str | None) -> Fields:
    from difflib import get_close_matches

    from streamgen.errors import InputError

    if key is None:
        return next(iter(checkpoint.learners.values()))
    if key not in checkpoint.learners:
        near = get_close_matches(key, [name for name in checkpoint.learners if name is not None], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise InputError(f"There is no learner of the key {key!r} in {checkpoint.manifest.source}{hint}")
    return checkpoint.learners[key]


def _tell_fields(fields: Fields) -> None:
    import numpy as np

    print()
    width = max(map(len, fields))
    for name in sorted(fields):
        array = np.asarray(fields[name])
        numbers = array.reshape(-1).astype(np.float64)
        good = numbers[np.isfinite(numbers)]
        said = f"{len(numbers) - len(good)} not finite; " if len(good) < len(numbers) else ""
        if len(good) > 4:
            said += f"min {good.min():.6g}, mean {good.mean():.6g}, max {good.max():.6g}"
        else:
            said += ", ".join(f"{number:.6g}" for number in good)
        shape = "x".join(map(str, array.shape)) or "one"
        print(f"{name.ljust(width)}  {array.dtype!s:8} {shape:>10}  {said}".rstrip())


def _age(manifest: Manifest) -> str:
    seconds = max(0, int(time.time() - manifest.written))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _unlike(manifest: Manifest) -> str:
    """Where bitwise equal results are not to be expected of this machine."""
    from streamgen.state.checkpoint import made_with

    here = made_with()
    return ", ".join(
        f"{name} {manifest.made_with.get(name, '(unknown)')} (here {value})"
        for name, value in here.items()
        if manifest.made_with.get(name) != value
    )
