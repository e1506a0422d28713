"""Reads the configuration: a YAML file, below environment variables, below the command line.

Every problem is one sentence that names where the value came from and its key. The value of a secret is
in no message: neither is anything that stands in an unknown key, which may be a misspelt secret.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict, SettingsError

from streamgen.config import Config
from streamgen.errors import ConfigError
from streamgen.times import short_duration
from streamgen.yamlfile import dump_yaml, read_yaml

PREFIX = "STREAMGEN_"
MASK = "***"
Path_ = tuple[str | int, ...]


class _Environment(Config, BaseSettings):
    """The same keys, as pydantic-settings finds them in the environment."""

    # An empty variable is what compose files pass for one that is not set.
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True, env_parse_none_str="null"
    )


def load_config(path: Path | None, overrides: dict[str, Any]) -> Config:
    """The configuration of `path` (None: no file), the environment, and `overrides`, each above the last.

    `overrides` is nested like the file. Mappings are merged, all else is replaced: a list as a whole.
    Raises ConfigError, with one line for each problem.
    """
    sources: list[tuple[str, dict[str, Any]]] = [
        (str(path) if path else "the configuration", read_yaml(path) if path else {}),
        ("the environment", _from_environment()),
        ("the command line", overrides),
    ]
    merged: dict[str, Any] = {}
    for _, source in sources:
        merged = _merge(merged, source)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        problems = [_sentence(detail, sources) for detail in error.errors(include_url=False)]
    # Outside the handler: the validation error holds the values, secrets too, and would stay as context.
    raise ConfigError(_all(problems))


def print_config(config: Config) -> str:
    """The whole configuration as YAML that loads again; each secret is masked as '***'."""
    content = config.model_dump(mode="json")
    for *sections, name in secret_paths(Config):
        section = content
        for key in sections:
            section = section[key]
        if section[name] is not None:
            section[name] = MASK
    return dump_yaml(content)


def secrets(config: Config) -> Iterator[str]:
    """The values of all secrets that are set, for logs to be cleaned of them."""
    for path in secret_paths(Config):
        secret = reduce(getattr, path, config)
        if isinstance(secret, SecretStr):
            yield secret.get_secret_value()


def secret_paths(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all secret fields, those in lists left out: an environment variable cannot name them."""
    for name, field in model.model_fields.items():
        if field.annotation is SecretStr or SecretStr in get_args(field.annotation):
            yield (*at, name)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from secret_paths(field.annotation, (*at, name))


def _merge(below: Any, above: Any) -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: _merge(below.get(key), value) for key, value in above.items()}
    return above


def _all(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    return f"{len(problems)} problems in the configuration:\n" + "\n".join(f"  - {one}" for one in problems)


# --- environment --------------------------------------------------------------------------------------


def _from_environment() -> dict[str, Any]:
    _refuse_misspelt_variables()
    try:
        values = EnvSettingsSource(_Environment)()
    except SettingsError as error:
        problem = str(error)
    else:
        return _with_secrets_from_files(values)
    names = [name for name in os.environ if name.lower() in _variables() and f'"{_key(name)}"' in problem]
    raise ConfigError(
        f"{names[0] if names else f'a {PREFIX} variable'} is not JSON, which a section or a list must be; "
        f"set single keys as {PREFIX}SECTION__KEY, or use the file"
    )


def _key(variable: str) -> str:
    return variable[len(PREFIX) :].lower()


def _variables() -> list[str]:
    """Every environment variable that is read, in lower case."""
    paths = [*_key_paths(Config), *((*path[:-1], f"{path[-1]}_file") for path in secret_paths(Config))]
    return [(PREFIX + "__".join(path)).lower() for path in paths if "[]" not in path]


def _refuse_misspelt_variables() -> None:
    # Only what looks like a misspelt key: Kubernetes sets variables with this prefix in every pod beside
    # a service called streamgen (STREAMGEN_SERVICE_HOST, STREAMGEN_PORT=tcp://...).
    known = _variables()
    flat = {name.replace("__", "_"): name for name in known}
    problems = []
    for name in os.environ:
        lower = name.lower()
        if not name.upper().startswith(PREFIX) or lower in known or os.environ[name].startswith("tcp://"):
            continue
        close = [flat.get(lower.replace("__", "_")), *get_close_matches(lower, known, 1, 0.85)]
        near = next((one for one in close if one), None)
        if near or "__" in name:
            hint = f"; did you mean {near.upper()}?" if near else "; unset it, or see docs/configuration.md"
            problems.append(f"the environment variable {name} names no known key{hint}")
    if problems:
        raise ConfigError(_all(problems))


def _with_secrets_from_files(values: dict[str, Any]) -> dict[str, Any]:
    for *sections, name in secret_paths(Config):
        section: Any = values
        for key in sections:
            section = section.get(key, {}) if isinstance(section, dict) else {}
        if f"{name}_file" not in section:
            continue
        variable = (PREFIX + "__".join((*sections, name))).upper()
        if name in section:
            raise ConfigError(f"both {variable} and {variable}_FILE are set; unset one of them")
        file = section.pop(f"{name}_file")
        try:
            section[name] = Path(file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"{variable}_FILE names {file}, which cannot be read: {why}") from None
    return values


# --- what is wrong, in a sentence ---------------------------------------------------------------------


def _key_paths(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Paths of all keys, sections too; '[]' stands for the entries of a list."""
    for name, field in model.model_fields.items():
        yield (*at, name)
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from _key_paths(inner, (*at, name) if inner is field.annotation else (*at, name, "[]"))


def dotted(path: Path_) -> str:
    """('inputs', 0, 'topic') as inputs[0].topic."""
    return re.sub(r"\.\[", "[", ".".join(f"[{one}]" if isinstance(one, int) else one for one in path))


def _sentence(detail: ErrorDetails, sources: list[tuple[str, dict[str, Any]]]) -> str:
    path, kind = detail["loc"], detail["type"]
    where, key = _origin(path, sources), dotted(path)
    if kind == "extra_forbidden":
        return f"{where}: {key} is not a known key{_nearest(path)}"
    if kind == "missing":
        return f"{where}: {key} is missing"
    if kind == "value_error" and not path:  # of keys that do not go together
        return f"{where}: {detail['ctx']['error']}"
    if kind == "value_error":  # from a validator of ours, which says what is allowed
        return f"{where}: {key}{_given(path, detail['input'])}: {detail['ctx']['error']}"
    return f"{where}: {key}{_given(path, detail['input'])}; allowed: {_allowed(detail)}"


def _given(path: Path_, value: Any) -> str:
    """What stands there, unless it is a secret, or a mapping or list that may hold one."""
    if _pattern(path) in set(secret_paths(Config)):
        return " has a wrong value"
    if value is None:
        return " is empty"
    if isinstance(value, bool):
        return f" is {str(value).lower()}"
    if isinstance(value, timedelta):
        return f" is {short_duration(value)}"
    if isinstance(value, (int, float)):
        return f" is {value}"
    if isinstance(value, str) and _pattern(path) not in _sections():
        return f" is {value if len(value) <= 80 else value[:77] + '...'!r}"
    if isinstance(value, str):
        return " is text"
    return " is a list" if isinstance(value, list) else ""


def _sections() -> set[tuple[str, ...]]:
    return {path[:-1] for path in _key_paths(Config)}


def _pattern(path: Path_) -> tuple[str, ...]:
    return tuple("[]" if isinstance(one, int) else one for one in path)


def _allowed(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    bounds = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
    words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
    kind = detail["type"]
    if kind in bounds:
        return f"{words[bounds[kind]]} {context[bounds[kind]]}"
    if kind == "literal_error":
        return str(context["expected"]).replace("'", "")
    if kind == "string_pattern_mismatch":
        return f"text that matches {context['pattern']}"
    if kind in ("too_short", "string_too_short"):
        return f"at least {context['min_length']} {'entry' if kind == 'too_short' else 'character'}"
    if kind == "string_type":
        return "text (put it in quotes)"
    types = (
        ("bool", "true or false"),
        ("int", "a whole number"),
        ("float", "a number"),
        ("finite", "a finite number"),
        ("list", "a list (one line for each entry, with a leading '-')"),
        ("time_delta", "a duration such as 500ms, 30s, 90m, 1h or 2d"),
    )
    for start, text in types:
        if kind.startswith(start):
            return text
    return "a mapping (indented lines of key: value)" if kind.startswith(("model", "dict")) else detail["msg"]


def _nearest(path: Path_) -> str:
    paths = list(_key_paths(Config))
    here = [one[-1] for one in paths if one[:-1] == _pattern(path[:-1]) and one[-1] != "[]"]
    name = str(path[-1])
    near = get_close_matches(name, here, n=1)
    if near:
        return f"; did you mean {dotted((*path[:-1], near[0]))}?"
    elsewhere = [one for one in paths if one[-1] == name]
    if elsewhere:
        return f"; did you mean {dotted(elsewhere[0]).replace('.[]', '[]')}?"
    return f"; known here: {', '.join(here)}" if here else ""


def _origin(path: Path_, sources: list[tuple[str, dict[str, Any]]]) -> str:
    """The source that decides the value: the highest of those that hold the longest part of the path."""

    def held(source: Any) -> int:
        for depth, one in enumerate(path):
            inside = isinstance(source, dict) and one in source
            if not inside and not (isinstance(source, list) and isinstance(one, int) and one < len(source)):
                return depth
            source = source[one]
        return len(path)

    where = max(reversed(sources), key=lambda source: held(source[1]))[0] if path else sources[0][0]
    if where != "the environment":
        return where if held(dict(sources)[where]) else sources[0][0]
    for depth in range(len(path), 0, -1):
        name = PREFIX + "__".join(str(one) for one in path[:depth]).upper()
        for variable in os.environ:
            if variable.upper() in (name, f"{name}_FILE"):
                return f"the environment variable {variable}"
    return where
