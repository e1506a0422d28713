"""docs/cli.md is kept by hand; this keeps it true."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from streamgen.cli import app
from streamgen.models import names

PAGE = (Path(__file__).parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")


def flat(commands: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Every command by what one types, those of a group too."""
    found: dict[str, Any] = {}
    for name, command in commands.items():
        inside = getattr(command, "commands", None)
        found |= flat(inside, f"{before}{name} ") if inside else {f"{before}{name}": command}
    return found


COMMANDS = flat(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def documented() -> dict[str, dict[str, str]]:
    """Command → option → what the page says of it."""
    sections = re.split(r"^## `streamgen ([a-z ]+)`$", PAGE, flags=re.MULTILINE)[1:]
    return {
        command: dict(re.findall(r"^\| `(.+?)` \| (.+) \|$", text, flags=re.MULTILINE))
        for command, text in zip(sections[::2], sections[1::2], strict=True)
    }


def offered(command: str) -> Iterator[tuple[str, str]]:
    """Every argument and option with its line of help."""
    for parameter in COMMANDS[command].params:
        name = parameter.metavar or parameter.name.upper()
        yield (parameter.opts[0] if parameter.param_type_name == "option" else name), parameter.help or ""


def test_every_command_is_documented_and_no_other() -> None:
    assert sorted(documented()) == sorted(COMMANDS)


def test_every_option_is_documented_as_its_help_says() -> None:
    for command in COMMANDS:
        assert documented()[command] == dict(offered(command)), command


def test_every_option_has_a_line_of_help() -> None:
    for command in COMMANDS:
        for option, line in offered(command):
            assert line.endswith("."), f"{command} {option}"
        assert COMMANDS[command].help, command


def test_the_models_named_in_the_help_are_the_registered_ones() -> None:
    assert dict(offered("run"))["--model"] == f"Model to learn with: {' or '.join(names())}."
