"""`streamgen images`: image models in batch mode. One file for each verb."""

from __future__ import annotations

import typer

from streamgen.cli.images_evaluate import evaluate


def register(app: typer.Typer) -> None:
    """Add the group and its commands."""
    group = typer.Typer(
        name="images",
        help="Image models in batch mode.",
        no_args_is_help=True,
        rich_markup_mode=None,
    )
    group.command("evaluate")(evaluate)
    app.add_typer(group)
