"""A case as one script of its own, as TrainCheck instruments it: nothing of eegwatch and nothing of this benchmark is in it."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from tests.bench.silent.case import Case
from tests.bench.silent.script import Unwatched

OWN = "tests.bench.silent"
SEVERAL_PROCESSES, OUR_CALLBACK = "several processes", "our callback of a framework"

SURROUNDINGS = '''
class Script:
    """A folder for checkpoints and a log that does nothing."""

    watched, rank, world = False, 0, 1

    def __init__(self, root):
        self.root = root

    def path(self, name):
        return self.root / name

    def log(self, **options):
        return Unwatched()

    def close(self):
        pass
'''

ENTRY = """
def main():
    torch.manual_seed({seed})
    np.random.seed({seed})
    random.seed({seed})
    with tempfile.TemporaryDirectory() as folder:
        outcome = {name}(Script(Path(folder)), *{arguments})
    print("outcome", hashlib.sha256(outcome.detach().contiguous().numpy().tobytes()).hexdigest())


if __name__ == "__main__":
    main()
"""

IMPORTS = (
    "from __future__ import annotations",
    "import hashlib",
    "import random",
    "import tempfile",
    "from collections.abc import Iterator",
    "from contextlib import contextmanager",
    "from pathlib import Path",
    "from typing import Any",
    "import numpy as np",
    "import torch",
)


@dataclass(frozen=True)
class Standalone:
    """`models`: the variables that TrainCheck is told to track, those that the case hands to `log.watch`; or none."""

    text: str
    models: tuple[str, ...]


class NotStandalone(Exception):
    """The case cannot be one script of one process; the message says why."""


def standalone(case: Case, *, faulty: bool, seed: int) -> Standalone:
    """The script of one form of a case. `seed`: of torch, numpy and random. Raises NotStandalone."""
    play = inspect.unwrap(case.play)
    if not case.is_error:
        play = inspect.getclosurevars(play).nonlocals["play"]
    needed = list(_needed(play.__module__, play.__name__))
    body = [statement for _, statement in needed]
    _refuse(body)
    models = _tracked(body)
    arguments = (faulty,) if case.is_error else ()
    imports = dict.fromkeys([*IMPORTS, *(ast.unparse(each) for each in body if _is_import(each))])
    parts = [
        *sorted(imports, key=lambda line: "__future__" not in line),
        inspect.getsource(Unwatched),
        SURROUNDINGS,
        *(ast.unparse(each) for each in body if not _is_import(each)),
        ENTRY.format(seed=seed, name=play.__name__, arguments=arguments),
    ]
    return Standalone("\n".join(parts), models)


def _needed(module_name: str, name: str) -> Iterator[tuple[int, ast.stmt]]:
    """What the function needs, in an order that runs: imports and definitions of its module and of the benchmark's others."""
    found: dict[tuple[str, int], ast.stmt] = {}
    _follow(importlib.import_module(module_name), name, found)
    modules = sorted({module for module, _ in found}, key=lambda each: each == module_name)
    for module in modules:
        for key in sorted(key for key in found if key[0] == module):
            yield key[1], found[key]


def _follow(module: ModuleType, name: str, found: dict[tuple[str, int], ast.stmt]) -> None:
    for statement in _statements(str(module.__file__)).get(name, ()):
        key = (module.__name__, statement.lineno)
        if key in found:
            continue
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith(OWN):
            if statement.module not in (f"{OWN}.case", f"{OWN}.script"):
                _follow(importlib.import_module(str(statement.module)), name, found)
            continue
        found[key] = statement
        if not _is_import(statement):
            for used in sorted({each.id for each in ast.walk(statement) if isinstance(each, ast.Name)}):
                _follow(module, used, found)


@cache
def _statements(path: str) -> dict[str, list[ast.stmt]]:
    """The statements of a module by the names that they define; a registered case is found without its registration."""
    by_name: dict[str, list[ast.stmt]] = {}
    for statement in ast.parse(Path(path).read_text(encoding="utf-8")).body:
        for name in _defined(statement):
            by_name.setdefault(name, []).append(_plain(statement))
    return by_name


def _defined(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        return {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
    return set()


def _is_import(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Import | ast.ImportFrom)


def _plain(statement: ast.stmt) -> ast.stmt:
    """Without the registration as a case, and with plain assignments where a variable has an annotation."""
    if isinstance(statement, ast.FunctionDef):
        kept = [each for each in statement.decorator_list if not _registers(each)]
        statement = ast.copy_location(
            ast.FunctionDef(**{**dict(ast.iter_fields(statement)), "decorator_list": kept}), statement
        )
    plain: ast.stmt = _WithoutAnnotations().visit(statement)
    return ast.fix_missing_locations(plain)


def _registers(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in ("error", "healthy")


class _WithoutAnnotations(ast.NodeTransformer):
    """TrainCheck finds a model by its plain assignment. Fields of classes keep their annotations."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        node.body = [each if isinstance(each, ast.AnnAssign) else self.visit(each) for each in node.body]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if node.value is None or not isinstance(node.target, ast.Name):
            return node
        return ast.copy_location(ast.Assign([node.target], node.value), node)


def _refuse(body: list[ast.stmt]) -> None:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Attribute) and node.attr == "on_ranks":
                raise NotStandalone(SEVERAL_PROCESSES)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eegwatch"):
                raise NotStandalone(OUR_CALLBACK)


def _tracked(body: list[ast.stmt]) -> tuple[str, ...]:
    """The variables in `log.watch(model)` and `log.watch([a, b])` that the script assigns.

    Where the watched thing is no variable of that kind (a list of models, an attribute), every variable of the script
    that is handed to an optimizer's `X.parameters()` is tracked in its place.
    """
    assigned = {name for statement in body for node in ast.walk(statement) for name in _names_of(node)}
    watched = [name for call in _calls(body, "watch") for name in _first_names(call)]
    fallback = [
        call.func.value.id
        for call in _calls(body, "parameters")
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name)
    ]
    chosen = [name for name in watched if name in assigned] or [name for name in fallback if name in assigned]
    return tuple(dict.fromkeys(chosen))


def _names_of(node: ast.AST) -> set[str]:
    """The variables that this node assigns, if it is an assignment that TrainCheck sees and no list of models."""
    if not isinstance(node, ast.Assign | ast.AnnAssign):
        return set()
    if isinstance(node.value, ast.List | ast.ListComp | ast.Dict | ast.DictComp):
        return set()
    return {name for name in _defined(node) if name != "_"}


def _calls(body: list[ast.stmt], method: str) -> Iterator[ast.Call]:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == method:
                yield node


def _first_names(call: ast.Call) -> list[str]:
    if not call.args:
        return []
    first = call.args[0]
    elements = first.elts if isinstance(first, ast.List | ast.Tuple) else [first]
    return [each.id for each in elements if isinstance(each, ast.Name)]
