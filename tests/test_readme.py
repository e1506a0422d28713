"""What the README says works: its commands exist, its files load, its example over a file is run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from producers.data import shipped_series
from streamgen.cli import app
from streamgen.configfile import load_config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    streamgen ")]
runner = CliRunner()


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found, f"the README has no {language} block"
    return found.group(1)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_and_option_exists(line: str) -> None:
    _, name, *rest = shlex.split(line)
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    if hasattr(command, "commands"):
        name, *rest = rest
        command = command.commands[name]
    options = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("--")} <= options


def test_there_are_commands_for_topics_and_for_files() -> None:
    assert {shlex.split(line)[1] for line in COMMANDS} == {
        "doctor", "run", "watch", "detect", "fit", "generate", "publish", "images", "state",
    }  # fmt: skip


def test_the_example_configuration_loads(tmp_path: Path) -> None:
    file = tmp_path / "orders.yaml"
    file.write_text(block("yaml"))
    config = load_config(file, {})
    assert config.inputs[0].scores_topic == "orders.scores"


def test_the_example_score_has_the_fields_of_a_score() -> None:
    from tests.test_loop import SCORE_FIELDS

    score = json.loads(block("json"))
    assert list(score) == SCORE_FIELDS
    assert sum(score["contributions"].values()) == pytest.approx(score["nll"])
    rarity = -np.log10(score["p_value"])
    assert score["score"] == pytest.approx(rarity / (rarity + 3), abs=0.01)


def test_the_commands_over_a_file_run_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = shipped_series()[0].path.read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "machine.csv").write_text("".join(source[:400]))
    monkeypatch.chdir(tmp_path)
    lines = [line for line in COMMANDS if shlex.split(line)[1] in ("detect", "fit", "generate")]
    for line in lines:
        result = runner.invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
    assert len((tmp_path / "scores.csv").read_text().splitlines()) == 400
    assert len((tmp_path / "new.csv").read_text().splitlines()) == 1 + 5 * 100
