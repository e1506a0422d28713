"""Imports point one way, and what is slow to import is imported only where it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("streamgen", "consumers", "producers")
# A module may import from its own layer and from those above it in this list.
LAYERS = (
    ("", "backoff", "errors", "plotstyle", "records", "times", "yamlfile", "config", "configfile"),
    ("formats", "csvfile", "output", "windows", "models"),
    ("learners", "state", "kafka", "encode", "metrics", "health", "log"),
    ("testing", "evaluation"),
    (
        *("loop", "checkpoints", "tasks", "opening", "pipeline", "positions", "detect", "generation"),
        *("heldout", "moving", "forgetting", "between", "verifying", "publishing", "images", "tuning"),
    ),
    ("consumers", "producers"),
    ("cli", "__main__"),
)
LAYER = {part: number for number, parts in enumerate(LAYERS) for part in parts}
SLOW = ("torch", "pydantic", "kafka", "scipy", "river")


def modules() -> Iterator[tuple[str, Path]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


def imported(name: str, path: Path, source: str) -> Iterator[tuple[str, int]]:
    """Every module of ours that is imported anywhere in the file, with the line."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            # `from streamgen import metrics` names a module of ours only where there is such a file.
            targets = [f"{origin}.{alias.name}" if is_module(f"{origin}.{alias.name}") else origin
                       for alias in node.names]  # fmt: skip
        else:
            continue
        yield from ((target, node.lineno) for target in targets if target.split(".")[0] in PACKAGES)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def type_checking(source: str) -> set[int]:
    """The lines that only a type checker runs."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def part(module: str) -> str:
    """The piece of the design that a module belongs to: streamgen.models.gru to models."""
    package, _, inside = module.partition(".")
    return inside.split(".")[0] if package == "streamgen" else package


def problems(name: str, path: Path, source: str) -> list[str]:
    found = []
    mine = part(name)
    for target, line in imported(name, path, source):
        other = part(target)
        where = f"{name}, line {line}"
        if name == "streamgen":
            # The face of the package names what is public to type checkers, and imports it when asked.
            if line not in type_checking(source):
                found.append(f"{where}: `import streamgen` must stay light")
        elif other == "testing" != mine:
            found.append(f"{where}: streamgen.testing is for tests")
        elif LAYER.get(other, 0) > LAYER.get(mine, 0):  # one without a layer fails the test of that
            found.append(f"{where}: {mine or 'streamgen'} must not import {other}, which builds on it")
    return found


def test_every_module_has_a_layer() -> None:
    parts = {part(name) for name, _ in modules()}
    assert parts <= set(LAYER), "put the new module into LAYERS"


@pytest.mark.parametrize(("name", "path"), [pytest.param(*one, id=one[0]) for one in modules()])
def test_no_layer_points_back(name: str, path: Path) -> None:
    assert problems(name, path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("streamgen.records", "from streamgen.config import Config\nfrom streamgen.models import x"),
        ("streamgen.models.gru", "import streamgen.learners.task"),
        ("streamgen.models.gru", "def f():\n    from streamgen import loop"),
        ("streamgen.models.gru", "if TYPE_CHECKING:\n    from ..kafka import transport"),
        ("streamgen.kafka.client", "from consumers import worker"),
        ("streamgen.state", "from .. import testing"),
        ("consumers.worker", "from streamgen.cli import main"),
        ("streamgen.cli", "import streamgen.testing"),
        ("streamgen", "from streamgen.records import Reason"),
    ],
)
def test_what_points_back_is_found(name: str, source: str) -> None:
    path = ROOT.joinpath(*name.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    assert len(problems(name, path, source)) == 1


def test_what_points_the_right_way_is_not() -> None:
    source = "import json\nfrom . import gru\nfrom ..records import Columns\nfrom streamgen.windows import x"
    assert problems("streamgen.models.vae", ROOT / "streamgen/models/vae.py", source) == []


def slow_after(code: str) -> set[str]:
    """Which of the slow packages are imported once `code` ran, in a fresh interpreter."""
    report = "import sys; print(*(name for name in sys.argv[1:] if name in sys.modules), file=sys.stderr)"
    command = [sys.executable, "-c", f"{code}\n{report}", *SLOW]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    return set(done.stderr.split())


def test_the_check_for_slow_imports_works() -> None:
    assert "pydantic" in slow_after("import streamgen.config")


def test_importing_streamgen_is_light() -> None:
    assert slow_after("import streamgen") == set()


@pytest.mark.skipif(not is_module("streamgen.cli"), reason="there is no command line yet")
def test_help_is_light() -> None:
    code = """
import sys
from streamgen.cli import main
arguments, sys.argv[1:] = sys.argv[1:], ["--help"]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
sys.argv[1:] = arguments
"""
    assert slow_after(code) == set()


def test_the_public_api_is_stated_and_there() -> None:
    import streamgen

    assert set(streamgen._HOMES) | {"__version__"} == set(streamgen.__all__)
    for name in streamgen.__all__:
        assert getattr(streamgen, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        streamgen.nothing  # noqa: B018
