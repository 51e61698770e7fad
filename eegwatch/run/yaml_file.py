"""Reads a YAML file named by a person or a command: a regular file of limited size, checked value by value.

Every problem of the file is reported in one line.
"""

from __future__ import annotations

import math
import os
import re
import stat
from pathlib import Path
from typing import Any

import yaml

from eegwatch.wording import UserError

LARGEST_BYTES = 1 << 18  # of a configuration: fifty times the longest seen; PyYAML parses it within 3 s
LONGEST_NAME = 300  # of a path that an error repeats
_PASSWORD = re.compile(r"://[^/\s@]*@")
LARGEST_INTEGER = (1 << 63) - 1


class ConfigError(UserError):
    """A problem of a configuration file: file, key, and the text to write instead, in one line."""


class _Loader(yaml.SafeLoader):
    """YAML without dates: `name: 2026-11-24` is the text that was typed."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def short_name(path: Path) -> str:
    """The path as an error repeats it."""
    return str(path) if len(str(path)) <= LONGEST_NAME else f"{str(path)[:LONGEST_NAME]}…"


def text_of(path: Path, where: str) -> str:
    """The text of a regular file of at most LARGEST_BYTES; a pipe or a device is not waited for. Raises ConfigError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{where}: not a regular file")
            if status.st_size > LARGEST_BYTES:
                raise ConfigError(f"{where}: {status.st_size:,} bytes; a configuration has at most {LARGEST_BYTES:,}")
            parts = [b""]
            while sum(map(len, parts)) <= LARGEST_BYTES and (part := os.read(fd, LARGEST_BYTES)):
                parts.append(part)
        finally:
            os.close(fd)
        return b"".join(parts).decode("utf-8")
    except ConfigError:
        raise
    except FileNotFoundError:
        raise ConfigError(f"{where}: no such file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: cannot be read: not UTF-8 text (byte {error.start:,})") from None
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # a NUL in the name
        raise ConfigError(f"{where}: cannot be read: {error}") from None


def tree_of(text: str, where: str) -> Any:
    """The content of the YAML; an empty file is an empty mapping. Raises ConfigError."""
    try:
        tree = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())[:300]
        raise ConfigError(f"{where}{line}: not valid YAML: {problem}") from None
    except RecursionError:
        raise ConfigError(f"{where}: not valid YAML: nested too deeply") from None
    except Exception as error:  # what Python says of a value: 5,000 digits, a bad escape
        raise ConfigError(f"{where}: not valid YAML: {_short(error)}") from None
    if tree is None:
        return {}
    return tree


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:200]}"


def without_secrets(text: str) -> str:
    """A configuration as it may be shown to others: without `notify`, and without passwords in addresses.

    Comments go too; of a text that is not a mapping nothing is left.
    """
    try:
        tree = tree_of(text, "")
    except ConfigError:
        return ""
    if not isinstance(tree, dict):
        return ""
    shown = _without_passwords({key: value for key, value in tree.items() if key != "notify"})
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)


def _without_passwords(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_passwords(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_passwords(value) for value in tree]
    return _PASSWORD.sub("://…@", tree) if isinstance(tree, str) else tree


def check_values(tree: Any, where: str, key: str) -> None:
    """Values that no record can hold: a NaN, an integer beyond 64 bits, text that is no UTF-8 or holds a NUL."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            check_values(value, where, f"{key}.{name}" if key else str(name))
    elif isinstance(tree, list):
        for value in tree:
            check_values(value, where, key)
    elif isinstance(tree, str) and ("\0" in tree or any("\ud800" <= c <= "\udfff" for c in tree)):
        raise ConfigError(f"{where}: {key}: holds a NUL or half a surrogate pair")
    elif isinstance(tree, float) and math.isnan(tree):
        raise ConfigError(f"{where}: {key}: is not a number (nan)")
    elif isinstance(tree, int) and not -LARGEST_INTEGER <= tree <= LARGEST_INTEGER:
        raise ConfigError(f"{where}: {key}: an integer of {tree.bit_length()} bits; at most 63 fit")


_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
PATH_KEYS = ("root_dir", "cache_dir", "checkpoint_path")


def expanded(tree: Any, key: str) -> Any:
    """Values with `${NAME}` and `${NAME:-default}` replaced from the environment. Raises ConfigError."""
    if isinstance(tree, dict):
        return {name: expanded(value, f"{key}.{name}" if key else name) for name, value in tree.items()}
    if isinstance(tree, list):
        return [expanded(value, key) for value in tree]
    if not isinstance(tree, str):
        return tree

    def value_of(match: re.Match[str]) -> str:
        value = os.environ.get(match[1]) or match[2]
        if value is None:
            raise ConfigError(f"{key}: the environment variable {match[1]} is not set; export it or write the path")
        return value

    text = _VARIABLE.sub(value_of, tree)
    return os.path.expanduser(text) if key.rpartition(".")[2] in PATH_KEYS else text
