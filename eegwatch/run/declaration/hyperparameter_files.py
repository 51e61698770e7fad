"""Files of hyperparameters as plain data: YAML, JSON, Python configurations and training_args.bin, nothing executed.

A pickle is unpickled into inert objects, whatever classes it names; a Python file is read as literals by `ast`.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import yaml

from eegwatch.run.config import ConfigError

NOT_OURS = (".bin", ".pt", ".pkl", ".py", ".json")  # our own configurations are YAML
LARGEST = 20_000_000  # bytes of a file of hyperparameters
BASES = 8  # configurations that one may inherit from


def read(path: Path) -> Any:
    """The plain data in a file. Raises ConfigError, in one line, where it cannot be read."""
    try:
        if path.stat().st_size > LARGEST:
            raise ConfigError(f"{path}: too large for a file of hyperparameters")
        data = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        if path.suffix in (".bin", ".pt", ".pkl"):
            return unpickled(data)
        text = data.decode("utf-8")
        if path.suffix == ".py":
            return literals(path, text)
        return json.loads(text) if path.suffix == ".json" else yaml.load(text, Loader=_Loader)
    except (ValueError, yaml.YAMLError, SyntaxError, RecursionError, MemoryError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())[:200]}") from None
    except Exception as error:  # pickle raises whatever a damaged stream leads to
        raise ConfigError(
            f"{path}: cannot be read: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        ) from None


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, which reads 3e-4 as a number and a tag of any class as the data below it."""


def _data_of(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node) if isinstance(node, yaml.ScalarNode) else None


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _data_of)
_Loader.add_multi_constructor("!", _data_of)


# ---- pickles ----


class InertObject:
    """Stands for an object of any class: keeps what it was built with, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, dict):
                self.__dict__.update({str(key): value for key, value in part.items()})

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__dict__[str(key)] = value

    def append(self, value: Any) -> None:
        self.args = (*self.args, value)

    def extend(self, values: Any) -> None:
        self.args = (*self.args, *values)

    def __call__(self, *args: Any, **kwargs: Any) -> InertObject:
        return InertObject(*args)

    def __hash__(self) -> int:
        return id(self)


class _Unpickler(pickle.Unpickler):
    """Builds plain data and inert objects: no class that a pickle names is ever imported."""

    def find_class(self, module: str, name: str) -> Any:
        return dict if (module, name) == ("collections", "OrderedDict") else InertObject

    def persistent_load(self, pid: Any) -> Any:
        return None


def unpickled(data: bytes) -> Any:
    """The object of a torch file or a pickle, as plain data: dicts, lists, numbers, texts."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inner = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
            if inner is None:
                raise ValueError("it holds no data.pkl")
            if archive.getinfo(inner).file_size > LARGEST:
                raise ValueError("it is too large for a file of hyperparameters")
            data = archive.read(inner)
    stream = io.BytesIO(data)
    value: Any = None
    while stream.tell() < len(data):  # torch's older files: a number, a version, facts of the machine, the object
        value = _plain(_Unpickler(stream).load(), 0)
        if isinstance(value, dict) and len(value) > 5:
            break
    return value


def _plain(value: Any, depth: int) -> Any:
    if depth > 6:
        return None
    if isinstance(value, InertObject):
        inner = {k: v for k, v in value.__dict__.items() if k != "args"}
        if inner:
            return {k: _plain(v, depth + 1) for k, v in inner.items()}
        return _plain(value.args[0], depth + 1) if len(value.args) == 1 else None  # an enum holds its value
    if isinstance(value, dict):
        return {str(k): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(v, depth + 1) for v in value]
    return value if isinstance(value, str | int | float | bool | type(None)) else None


# ---- Python configurations ----


def literals(path: Path, text: str, deep: int = 0) -> dict[str, Any]:
    """The top-level names of a Python configuration whose values are literals; `_base_` files first."""
    own: dict[str, Any] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                own[node.targets[0].id] = _literal(node.value, own)
            except ValueError:
                own.pop(node.targets[0].id, None)  # computed: not known
    bases = own.pop("_base_", [])
    merged: dict[str, Any] = {}
    for base in [bases] if isinstance(bases, str) else bases:
        there = path.parent / str(base)
        if deep < BASES and there.suffix == ".py" and there.is_file():
            merged = _merged(merged, literals(there, there.read_text(encoding="utf-8"), deep + 1))
    return _merged(merged, own)


def _literal(node: ast.expr, names: dict[str, Any]) -> Any:
    """A literal, `dict(a=1)`, a name that was a literal, arithmetic of numbers. Raises ValueError for the rest."""
    if isinstance(node, ast.Name) and node.id in names:
        return names[node.id]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {str(k.arg): _literal(k.value, names) for k in node.keywords if k.arg is not None}
    if isinstance(node, ast.Dict):
        keys = [_literal(k, names) if k is not None else "" for k in node.keys]
        return {str(k): _literal(v, names) for k, v in zip(keys, node.values, strict=True)}
    if isinstance(node, ast.List | ast.Tuple):
        return [_literal(item, names) for item in node.elts]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div | ast.Add | ast.Sub):
        a, b = _literal(node.left, names), _literal(node.right, names)
        if all(isinstance(v, int | float) and abs(v) < 1e15 for v in (a, b)) and not (
            isinstance(node.op, ast.Div) and b == 0
        ):
            kind = type(node.op)
            return a * b if kind is ast.Mult else a / b if kind is ast.Div else a + b if kind is ast.Add else a - b
    return ast.literal_eval(node)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """mmengine's inheritance: mappings are merged, `_delete_=True` replaces."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and not value.get("_delete_"):
            out[key] = _merged(old, value)
        else:
            out[key] = {k: v for k, v in value.items() if k != "_delete_"} if isinstance(value, dict) else value
    return out
