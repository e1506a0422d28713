"""What streamgen reads (records, checkpoints, configuration) cannot make it execute anything."""

from __future__ import annotations

import ast
import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from streamgen.errors import ConfigError, StateError
from streamgen.records import TopicPartition
from streamgen.state.files import FileStore
from streamgen.yamlfile import read_yaml

ROOT = Path(__file__).parent.parent
FILES = [
    path for package in ("streamgen", "consumers", "producers") for path in (ROOT / package).rglob("*.py")
]
# Modules whose readers execute what they read.
MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "marshal",
    "shelve",
    "code",
    "codeop",
    "runpy",
}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "os.system", "os.popen", "torch.load", "torch.jit.load", "torch.package.PackageImporter", "yaml.load",
    "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all",
    "pandas.read_pickle",
}  # fmt: skip
OPTIONS = {"shell", "allow_pickle", "weights_only"}  # whose right value is the default


def unsafe(source: str) -> Iterator[str]:
    """The ways to execute data in a source file, with their lines."""
    for node in ast.walk(ast.parse(source)):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found = [name for name in names if name.split(".")[0] in MODULES or name in CALLS]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            safe_loader = called == "yaml.load" and "Loader=_Loader" in ast.unparse(node)  # of yamlfile.py
            found = [called] if called in BUILTINS | CALLS and not safe_loader else []
            found += [option.arg for option in node.keywords if option.arg in OPTIONS]
        yield from (f"line {node.lineno}: {one}" for one in found)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_source_has_no_way_to_execute_data(path: Path) -> None:
    assert list(unsafe(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import joblib.numpy_pickle",
        "eval(text)",
        "exec(compile(text, '', 'exec'))",
        "torch.load(path)",
        "from torch import load\nfrom os import system",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text, yaml.Loader)",
        "yaml.unsafe_load(text)",
        "subprocess.run(text, shell=True)",
    ],
)
def test_the_check_finds_each_way(source: str) -> None:
    assert list(unsafe(source))


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_pickle_in_the_place_of_a_checkpoint_is_refused(tmp_path: Path, how: str) -> None:
    sprung, folder = tmp_path / "sprung", tmp_path / "orders-0"
    folder.mkdir()
    path = folder / f"{1:012d}-{1000:020d}.safetensors"
    if how == "pickle":
        path.write_bytes(pickle.dumps(_Trap(sprung)))
    else:
        torch.save({"weights": _Trap(sprung)}, path)
    with pytest.raises(StateError, match=rf"{path.name}.*is damaged.*delete it to learn again"):
        FileStore(tmp_path).claim(TopicPartition("orders", 0)).read(at_most=1000)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(_Trap(sprung)))  # the trap is one
    assert sprung.exists()


def test_a_tag_in_the_configuration_is_refused(tmp_path: Path) -> None:
    sprung, file = tmp_path / "sprung", tmp_path / "c.yaml"
    file.write_text(f'inputs: !!python/object/apply:os.mkdir ["{sprung}"]\n')
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        read_yaml(file)
    assert not sprung.exists()
