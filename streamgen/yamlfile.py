"""YAML as version 1.2 reads it, with errors that name file and line and quote none of the content."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError as _ConstructorError

from streamgen.errors import ConfigError

_FLOAT = r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
_CORE = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9_]*)", list("-+0123456789")),
    "float": (_FLOAT, list("-+.0123456789")),
    "merge": (r"<<", ["<"]),
}


class _Loader(yaml.SafeLoader):
    """PyYAML reads YAML 1.1, in which `no` is false, 2024-05-01 a date, 1:30 is 90 and 1e-3 is text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # PyYAML takes the last of two equal keys without a word.
        lines: dict[Any, int] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str):
                raise _ConstructorError(None, None, "a key that is not text", key_node.start_mark)
            if key in lines and key != "<<":
                problem = f"the key {key!r} a second time (first on line {lines[key]})"
                raise _ConstructorError(None, None, problem, key_node.start_mark)
            lines[key] = line
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would read as something other than text."""


for _name, (_regex, _first) in _CORE.items():
    _pattern = re.compile(f"^(?:{_regex})$")
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, _first)
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, _first)


def dump_yaml(content: dict[str, Any]) -> str:
    """`content` as YAML, keys in their order."""
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in the file; an empty file is an empty mapping.

    Raises ConfigError when the file cannot be read, is broken, or holds anything but a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}; check the path") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from None
    try:
        content = yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        problem = _problem(error, text)
    else:
        if content is None:
            return {}
        if isinstance(content, dict):
            return content
        what = "a list" if isinstance(content, list) else "a single value"
        raise ConfigError(f"{path} holds {what}, not a mapping with keys such as inputs: and kafka:")
    # Outside the handler: the YAML error holds the file's content, secrets too, and would stay as context.
    raise ConfigError(f"{path}{problem}")


def _problem(error: yaml.YAMLError, text: str) -> str:
    """Where and what, in words of ours where PyYAML would quote the content."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return " is not YAML: it holds a character that YAML forbids"
    number = error.problem_mark.line
    lines = text.splitlines()
    line = lines[number] if number < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        problem = "a tab, which YAML forbids as indentation; use spaces"
    elif isinstance(error, yaml.composer.ComposerError):
        problem = "a name after * or & that is undefined or used twice; put text that begins so in quotes"
    elif isinstance(error, _ConstructorError) and "tag" in (error.problem or ""):
        problem = "an unknown tag; put text that begins with ! in quotes"
    else:
        problem = error.problem or "not YAML"
    return f", line {number + 1}: {problem}"
