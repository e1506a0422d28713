"""`streamgen evaluate` over files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

Said = tuple[int, str, str]


def test_evaluate(cli: Callable[..., Said], tmp_path: Path) -> None:
    """Sequences of the file's own kind, and the same at twice the height; windows do not span two keys."""
    rng = np.random.default_rng(0)
    walks = {key: np.cumsum(rng.normal(size=(600, 2)) - 0.1 * rng.normal(size=2), axis=0) % 5 for key in "ab"}
    rows = [f"{n},{key},{walks[key][n, 0]},{walks[key][n, 1]}\n" for n in range(600) for key in "ab"]
    rows[100] = "50,a,,1\n"
    (tmp_path / "real.csv").write_text("time,who,x,y\n" + "".join(rows))
    alike = np.concatenate([walks[key].reshape(-1, 10, 2) for key in "ab"])
    for name, windows in (("alike", alike), ("higher", 2 * alike), ("thin", alike[:, :, :1])):
        np.savez(tmp_path / name, x=windows, columns=np.array(["x", "y"]))

    def judged(name: str) -> tuple[str, list[str]]:
        options = ("--quick", "--key-column", "who", "--timestamp-column", "time", "--page", tmp_path / "new")
        code, out, err = cli("evaluate", tmp_path / "real.csv", tmp_path / f"{name}.npz", *options)
        assert code == 0, err
        return out, [line.split("  ")[0] for line in out.splitlines() if line.endswith("worse than real")]

    out, worse = judged("alike")
    assert out.startswith("119 real and 120 generated windows of 10 records\n")
    assert worse == []
    assert out.splitlines()[-1] == str(tmp_path / "new" / "evaluation.html")
    assert "marginal difference" in judged("higher")[1]
    assert "worse than real" in (tmp_path / "new" / "evaluation.html").read_text()
    code, _, err = cli("evaluate", tmp_path / "real.csv", tmp_path / "thin.npz", "--quick")
    assert (code, "holds x of shape (120, 10, 1) and 2 columns" in err) == (1, True)
    code, _, err = cli("evaluate", tmp_path / "real.csv", tmp_path / "real.csv", "--quick")
    assert (code, "is no file of sequences" in err) == (1, True)


def test_evaluate_says_which_file_of_sequences_is_damaged(cli: Callable[..., Said], tmp_path: Path) -> None:
    whole, x = tmp_path / "whole.npz", np.random.default_rng(0).normal(size=(30, 4, 1))
    (tmp_path / "real.csv").write_text("x\n" + "".join(f"{value}\n" for value in range(400)))
    np.savez_compressed(whole, x=x, columns=np.array(["x"]))
    given, middle = whole.read_bytes(), len(whole.read_bytes()) // 2
    np.savez(tmp_path / "plain.npz", x=x, columns=np.array(["x"]))
    plain = (tmp_path / "plain.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(given[:middle])
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "squeezed.npz").write_bytes(given[:60] + bytes(20) + given[80:])
    (tmp_path / "bits.npz").write_bytes(plain[:200] + bytes([plain[200] ^ 1]) + plain[201:])
    np.save(tmp_path / "array.npy", x)
    np.savez(tmp_path / "complex.npz", x=x * 1j, columns=np.array(["x"]))
    np.savez(tmp_path / "one.npz", x=x, columns=np.array("x"))
    for name, why in (
        ("half.npz", "not a zip file"),
        ("empty.npz", "No data left in file"),
        ("squeezed.npz", "decompressing data"),
        ("bits.npz", "Bad CRC-32"),
        ("array.npy", "one array without a name"),
        ("complex.npz", "its x are no numbers"),
        ("one.npz", "0-d array"),
    ):
        code, out, err = cli("evaluate", tmp_path / "real.csv", tmp_path / name, "--quick")
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert f"{name} is no file of sequences (" in err
        assert why in err


def test_evaluate_says_at_once_what_it_could_not_do_in_the_end(
    cli: Callable[..., Said], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(*_: object) -> float:
        raise AssertionError("it began")

    monkeypatch.setattr("streamgen.evaluation.report.discriminative_score", judged)
    rng = np.random.default_rng(0)
    (tmp_path / "real.csv").write_text("x\n" + "".join(f"{value}\n" for value in rng.normal(size=400)))
    for length in (1, 4):
        np.savez(tmp_path / str(length), x=rng.normal(size=(30, length, 1)), columns=np.array(["x"]))
    for options, said in (
        (("1.npz",), "In windows of one record there is nothing to predict: give longer ones, or"),
        (("4.npz", "--page", tmp_path / "real.csv"), "real.csv is a file. Name a folder."),
        (("4.npz", "--page", tmp_path / "real.csv" / "new"), "real.csv is a file. Name a folder."),
    ):
        code, out, err = cli("evaluate", tmp_path / "real.csv", tmp_path / options[0], *options[1:])
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert said in err


def test_evaluate_finds_copies_of_what_was_learned(cli: Callable[..., Said], tmp_path: Path) -> None:
    """Sequences that begin anywhere among the learned rows, beside the stream's own as it goes on."""
    rng = np.random.default_rng(0)
    series = rng.normal(size=(6000, 2))
    for n in range(1, len(series)):
        series[n] += 0.8 * series[n - 1]
    learned, later, further = series[:2000], series[2000:4000], series[4000:]
    for name, rows in (("learned", learned), ("later", later)):
        (tmp_path / f"{name}.csv").write_text("x,y\n" + "".join(f"{x!r},{y!r}\n" for x, y in rows.tolist()))
    own = further.reshape(-1, 10, 2)
    copied = np.stack([learned[first : first + 10] for first in rng.integers(1990, size=100)])
    for name, windows in (
        ("own", own),
        ("copied", copied),
        ("some", np.concatenate([own[:60], copied[:40]])),
    ):
        np.savez(tmp_path / name, x=windows, columns=np.array(["x", "y"]))

    def judged(name: str, real: str = "later") -> tuple[str, dict[str, str]]:
        files = (tmp_path / f"{real}.csv", tmp_path / f"{name}.npz", "--train", tmp_path / "learned.csv")
        page = ("--page", tmp_path / "new") if name == "some" else ()
        code, out, err = cli("evaluate", *files, "--quick", *page)
        assert code == (0 if real == "later" else 1), err
        return out + err, {line.split("  ")[0]: line for line in out.splitlines()}

    out, lines = judged("own")
    assert out.startswith("200 real and 200 generated windows of 10 records; 1991 that were learned\n")
    assert not lines["copies"].endswith("worse than real")
    value, null = (float(word) for word in lines["copies"].split()[2:4])
    assert 0.0 <= value < 0.15
    assert 0.01 < null < 0.12
    line = judged("copied")[1]["copies"]
    assert line.split()[2] == "1.0000"
    assert line.endswith("worse than real")
    assert judged("some")[1]["copies"].endswith("worse than real")
    assert re.search(
        "<td>copies</td><td>lower</td>.*worse than real", (tmp_path / "new" / "evaluation.html").read_text()
    )
    assert "of 100 real windows are among those that were learned, so copies" in judged("own", "learned")[0]
    code, _, err = cli(
        "evaluate", tmp_path / "later.csv", "--train", tmp_path / "learned.csv", "--state", "s"
    )
    assert (code, "Copies are found among generated sequences" in err) == (1, True)


def test_evaluate_a_state(cli: Callable[..., Said], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [f"{60 * n},{np.sin(n / 4) + rng.normal() / 9}\n" for n in range(200)]
    for name, part in (("old", rows[:150]), ("new", rows[100:])):
        (tmp_path / f"{name}.csv").write_text("time,x\n" + "".join(part))
    assert cli("fit", tmp_path / "old.csv", "--state", tmp_path / "s", "--model", "rvae")[0] == 0
    code, out, err = cli("evaluate", tmp_path / "new.csv", "--state", tmp_path / "s")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0] == (
        "50 rows that were not learned, 3 windows of 16; left out: 50 no later than what was learned"
    )
    assert [line[: line.index("  ")] for line in lines[1:]] == [
        "log likelihood, higher is better",
        "one step ahead",
        "one step ahead, last value",
        "windows, evidence lower bound",
        "windows, importance-weighted",
    ]
    lower, weighted = (float(line.split()[-1]) for line in lines[-2:])
    assert lower <= weighted
    code, _, err = cli("evaluate", tmp_path / "new.csv")
    assert (code, "name a file of sequences, or a state with --state" in err) == (1, True)
