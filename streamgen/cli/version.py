"""`streamgen version`."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

import typer

import streamgen

PACKAGES = ("torch", "numpy", "kafka-python", "river")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(version)


def version() -> None:
    """Print the versions of streamgen and what it builds on."""
    print(f"streamgen {streamgen.__version__}")
    print(f"python {platform.python_version()}")
    for package in PACKAGES:
        try:
            print(f"{package} {installed(package)}")
        except PackageNotFoundError:
            print(f"{package} is not installed")
