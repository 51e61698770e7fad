"""The mutants of a Python file: one comparison, operator, number, constant or condition changed, nothing else."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

COMPARED = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
            ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in"}  # fmt: skip
COMPUTED = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*", ast.Pow: "*"}


@dataclass(frozen=True)
class Mutant:
    """`what` replaces the characters from (`line`, `column`) to (`last_line`, `last_column`), counted as ast does."""

    path: str
    line: int
    column: int
    last_line: int
    last_column: int
    text: str
    what: str
    nth: int = 0  # of the mutants of this file that change the same expression in the same way

    def apply(self, source: str) -> str:
        lines = source.encode().split(b"\n")  # ast counts bytes
        first, last = lines[self.line - 1], lines[self.last_line - 1]
        changed = first[: self.column] + self.text.encode() + last[self.last_column :]
        return b"\n".join([*lines[: self.line - 1], changed, *lines[self.last_line :]]).decode()


def mutants_of(file: Path, path: str) -> list[Mutant]:
    """All mutants of the file, in the order of its lines; annotations, docstrings and `__all__` are left alone."""
    source, times = file.read_text(), Counter[str]()
    mutants = []
    for statement in ast.parse(source).body:
        for mutant in _within(statement, source, path):
            mutants.append(replace(mutant, nth=times[mutant.what]))
            times[mutant.what] += 1
    return mutants


def _within(node: ast.AST, source: str, path: str) -> Iterator[Mutant]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return
    change = _change(node, source)
    if change is not None and isinstance(node, ast.expr):
        text, what = change
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        yield Mutant(path, node.lineno, node.col_offset, node.end_lineno, node.end_col_offset, text, what)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        if isinstance(node, ast.JoinedStr | ast.FormattedValue):  # words; positions within are not exact before 3.12
            return
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _within(child, source, path)


def _change(node: ast.AST, source: str) -> tuple[str, str] | None:
    """(the text that replaces the expression, what is changed in words)."""

    def of(part: ast.expr) -> str:
        return f"({ast.unparse(part)})"

    match node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]) if type(operator) in COMPARED:
            other = COMPARED[type(operator)]
            return f"({of(left)} {other} {of(right)})", f"{ast.unparse(node)} -> {other}"
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in COMPUTED:
            other = COMPUTED[type(operator)]
            return f"({of(left)} {other} {of(right)})", f"{ast.unparse(node)} -> {other}"
        case ast.BoolOp(op=operator, values=values):
            other = " or " if isinstance(operator, ast.And) else " and "
            return "(" + other.join(of(value) for value in values) + ")", f"{ast.unparse(node)} ->{other.rstrip()}"
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return f"bool({ast.unparse(operand)})", f"{ast.unparse(node)} -> without not"
        case ast.Constant(value=bool(value)):
            return str(not value), f"{value} -> {not value}"
        case ast.Constant(value=int(value)) | ast.Constant(value=float(value)):
            return f"({value!r} + 1)", f"{value!r} -> + 1"
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return f"({of(orelse)} if {of(test)} else {of(body)})", f"{ast.unparse(node)} -> branches changed"
        case _:
            return None
