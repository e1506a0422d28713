"""`streamgen tune` over a file: its tables, its page, the file of the best, and a kill in the midst of it."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

from streamgen.detect import SOURCE
from streamgen.state.files import FileStore
from streamgen.tuning.study import Study

if TYPE_CHECKING:
    from tests.conftest import Said

VARY = ("--vary", "hidden=2,8", "--vary", "learning_rate=0.01,0.03", "--seeds", 2)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A noisy wave whose columns have a key, a time and a name that is no topic's."""
    path = tmp_path / "a series.csv"
    rng = np.random.default_rng(0)
    rows = (
        f"2024-01-01T{n // 60:02d}:{n % 60:02d}:00Z,k,{np.sin(n / 4) + 0.1 * rng.normal():.5f},{n % 3}\n"
        for n in range(300)
    )
    path.write_text("when,who,load,turn\n" + "".join(rows))
    return path


def without_cpu(out: str) -> list[list[str]]:
    """The lines of the table, less the time that each took."""
    return [re.split(r"\s{2,}", line)[:-1] for line in out.splitlines() if re.search(r"\d\.\d$", line)]


def test_the_best_is_a_configuration_that_fit_takes(
    cli: Callable[..., Said], series: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "study"
    options = ("--timestamp-column", "when", "--key-column", "who", "--value-columns", "load")
    code, out, err = cli("tune", series, "--study", folder, "--model", "stream_ae", *options, *VARY)
    assert code == 0, err
    table = without_cpu(out)
    assert [row[0] for row in table][:5] == ["as it is", *["hidden"] * 2, *["learning_rate"] * 2]
    assert "300 records of load.\nstream_ae, 2 seeds: nats per value in the data's own units" in out
    assert err.splitlines()[:2] == ["trying as it is", "trying hidden 2"]
    best = yaml.safe_load((folder / "best.yaml").read_text())
    (source,) = best["inputs"]
    assert source["topic"] == "a-series"
    assert (source["timestamp"], source["key"]) == ({"field": "when"}, {"field": "who"})
    assert source["features"] == ["load"]
    chosen = re.search(r"^Best: (.*)\.$", out.split(" Nothing was")[0], flags=re.MULTILINE)
    assert chosen is not None
    told = {key: value for key, value in source["model"].items() if key != "name"}
    assert ", ".join(f"{key} {value}" for key, value in told.items()) in (chosen[1], "")
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert all(row[1] in page for row in table)

    code, _, err = cli("fit", series, "--config", folder / "best.yaml", "--state", tmp_path / "state")
    assert (code, err) == (0, "300 rows: 0 anomalies\n")
    learned = FileStore(tmp_path / "state").peek(SOURCE)
    assert learned is not None
    assert learned.manifest.input["model"] == source["model"]
    code, out, _ = cli("run", folder / "best.yaml", "--print-config")
    assert code == 0
    assert yaml.safe_load(out)["inputs"][0]["model"] == source["model"]


def test_a_configuration_is_begun_with_and_kept(
    cli: Callable[..., Said], series: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(
        "application_id: mine\nkafka: {bootstrap_servers: 'there:9092', sasl_password: s3cret}\ninputs:\n"
        "- topic: loads\n  features: [load]\n  model: {name: rvae, hidden: 4, latent: 2}\n"
        "  window: {length: 8}\n- {topic: other}\n"
    )
    folder = tmp_path / "study"
    vary = ("--vary", "window.stride=4", "--vary", "kl_weight=0.5", "--seeds", 2)
    code, out, err = cli("tune", series, "--study", folder, "--config", config, *vary)
    assert code == 0, err
    table = without_cpu(out)
    assert [table[0][0], *(row[:2] for row in table[1:3])] == [
        "as it is", ["window.stride", "4"], ["kl_weight", "0.5"],
    ]  # fmt: skip
    text = (folder / "best.yaml").read_text()
    assert "s3cret" not in text
    assert text.startswith("# Secrets are left out")
    best = yaml.safe_load(text)
    assert (best["application_id"], best["inputs"][1]) == ("mine", {"topic": "other"})
    assert best["kafka"] == {"bootstrap_servers": "there:9092"}
    assert best["inputs"][0]["window"]["length"] == 8
    assert best["inputs"][0]["model"]["hidden"] == 4


def states(folder: Path) -> dict[str, int]:
    """How many trials of a study are in which state, as another process sees it."""
    with closing(sqlite3.connect(folder / "study.db")) as study:
        return dict(study.execute("select state, count(*) from trials group by state"))


def test_a_killed_study_goes_on_with_what_it_has(
    cli: Callable[..., Said], series: Path, tmp_path: Path
) -> None:
    _, whole, _ = cli("tune", series, "--study", tmp_path / "whole", *VARY)
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "streamgen", "tune", series, "--study", folder, *VARY]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as one:
        assert one.stderr is not None
        for _ in range(3):  # two are through and the third is under way
            first = one.stderr.readline().decode()
        deadline = time.monotonic() + 60
        while states(folder) != {"COMPLETE": 2, "RUNNING": 1}:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        one.send_signal(signal.SIGKILL)
    assert one.returncode == -signal.SIGKILL
    assert states(folder) == {"COMPLETE": 2, "RUNNING": 1}
    code, out, err = cli("tune", series, "--study", folder, *VARY)
    assert code == 0, err
    assert err.splitlines()[0] == first.rstrip()  # the one that was under way begins again
    assert "trying as it is" not in err
    assert without_cpu(out) == without_cpu(whole)
    assert (folder / "best.yaml").read_text() == (tmp_path / "whole" / "best.yaml").read_text()


def test_a_study_of_other_data_or_other_settings_is_refused(
    cli: Callable[..., Said], series: Path, tmp_path: Path
) -> None:
    command = ("tune", series, "--study", tmp_path / "study", "--vary", "hidden=2", "--seeds", 2)
    assert cli(*command)[0] == 0
    assert cli(*command[:-1], 3)[2].startswith(
        f"streamgen: {tmp_path / 'study'} has a study with other seeds:"
    )
    code, _, err = cli(*command, "--records", 280)
    assert code == 1
    assert "has a study with other records and records wanted" in err
    series.write_text(series.read_text() + "2024-01-02T00:00:00Z,k,0.5,1\n")
    assert "has a study with other records: go on with it as it was begun" in cli(*command)[2]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--search", "all"), "--search is 'all'; allowed: one, grid, halving."),
        (("--search", "grid"), "--search grid needs --vary"),
        (("--budget", "soon"), "--budget is 'soon'; allowed: a time such as 30m or 2h."),
        (("--model", "river", "--vary", "n_trees=3"), "The model river gives no likelihood to compare"),
        (("--records", "20", "--vary", "hidden=2"), "has 20 usable records: at least 270 are needed"),
        (("--from", "2024-01-01"), "--from and --to are of a topic"),
        (("--vary", "hidden=2", "--vary", "hidden=4"), "hidden is varied twice"),
    ],
)
def test_what_is_wrong_is_a_sentence(
    cli: Callable[..., Said], series: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    code, out, err = cli("tune", series, "--study", tmp_path / "study", *options)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("streamgen: ")
    assert said in err
    if (tmp_path / "study").exists():  # what was refused stands in nobody's way
        study = Study(tmp_path / "study", "one")
        assert study.facts is None
        study.close()


def test_a_file_that_is_not_there_is_no_topic(cli: Callable[..., Said], tmp_path: Path) -> None:
    code, _, err = cli("tune", tmp_path / "none.csv", "--study", tmp_path / "study")
    assert (code, err) == (1, f"streamgen: There is no file {tmp_path / 'none.csv'}.\n")
