"""The command line. One file for each group of commands; what is slow to import is imported inside them."""

from __future__ import annotations

import importlib
import os
import sys

import typer

from streamgen.errors import StreamgenError

app = typer.Typer(
    name="streamgen",
    help="Learn a generative model of every stream in Kafka while the stream flows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Each has a function `register(app)`; the order is that of --help.
GROUPS = (
    "demo", "worker", "publish", "files", "images", "evaluate", "tune", "produce", "broker", "watch", "state",
    "doctor", "version",
)  # fmt: skip

for group in GROUPS:
    importlib.import_module(f"streamgen.cli.{group}").register(app)


def main() -> None:
    """Run the command of `sys.argv`. Our errors are a sentence on standard error, exit code 1."""
    try:
        app()
    except StreamgenError as error:
        print(f"streamgen: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:
        # Who read our output has had enough (`| head`); the interpreter must not flush into it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
