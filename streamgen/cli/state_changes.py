"""`streamgen state import | rebuild | reset`: what changes an application's state. No worker may be live."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamgen.cli.options import (
    Application,
    Bootstrap,
    Inputs,
    LastConfig,
    Model,
    state_configuration,
    with_model,
)


def register(group: typer.Typer) -> None:
    """Add the commands to the group `state`."""
    group.command("import")(import_)
    group.command()(rebuild)
    group.command()(reset)


def import_(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder that `state export` has written.")],
    config: LastConfig = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also where the application has a checkpoint already.")
    ] = False,
    topic: Inputs = None,
    bootstrap: Bootstrap = None,
    application_id: Application = None,
    model: Model = None,
) -> None:
    """Take over state that was exported, for the next worker to go on from.

    Learning goes on exactly at the offset of each checkpoint, and the first result is of that record.
    """
    from streamgen.moving import import_state

    chosen = with_model(state_configuration(config, bootstrap, topic, application_id), model)
    for manifest in import_state(chosen, directory, replace):
        print(f"{manifest.source} goes on at offset {manifest.offset}: {manifest.learners} learners")


def rebuild(
    config: LastConfig = None,
    topic: Inputs = None,
    bootstrap: Bootstrap = None,
    application_id: Application = None,
) -> None:
    """Learn again from the retained input, with the configuration as it is now.

    Forgets the learners; the next `run` learns silently up to the committed offset and goes on from there.
    No result changes.
    """
    from streamgen.forgetting import rebuild as rebuilt
    from streamgen.forgetting import to_learn_again

    chosen = state_configuration(config, bootstrap, topic, application_id)
    plan = to_learn_again(chosen)
    for again in plan:
        missing = f"; {again.missing} before them are no longer retained" if again.missing else ""
        print(f"{again.source}: {again.records} records from offset {again.start} on{missing}")
    gone = rebuilt(chosen, plan)
    if not plan and not gone:
        print("nothing was learned yet")
        return
    total = sum(again.records for again in plan)
    print(f"the next run learns {total} records again in silence, and goes on where the results end")


def reset(
    config: LastConfig = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without it, say what would be deleted.")] = False,
    topic: Inputs = None,
    bootstrap: Bootstrap = None,
    application_id: Application = None,
) -> None:
    """Forget everything of the application: what it learned, where it began, how far it is.

    The next `run` begins anew and publishes every result again. Its output topics are left as they are.
    """
    from streamgen.forgetting import reset as forgotten
    from streamgen.forgetting import to_reset

    chosen = state_configuration(config, bootstrap, topic, application_id)
    found = to_reset(chosen)
    for one in found:
        print(one)
    if not found:
        print("there is nothing to forget")
        return
    if not yes:
        print("nothing was deleted; add --yes to delete it")
        raise typer.Exit(1)
    forgotten(chosen)
    print("deleted; the output topics are left, and the next run publishes all results again")
