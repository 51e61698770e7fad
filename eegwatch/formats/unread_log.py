"""A log that is not read says so: what was seen in its lines, and the `--pattern` that would read it, ready to copy.

The pattern is built from the shape that most lines with numbers have: the text between the numbers stays, the numbers
become named groups, by the names that stand before them where there are any.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from eegwatch.formats.files import beginning
from eegwatch.formats.names import COMPONENT, is_metric, role
from eegwatch.formats.patterns import COUNTERS, GROUPS, compile_patterns, row_of_pattern
from eegwatch.run.follow import FormatError

LOOKED_AT = 1 << 20
MOST_SHAPES = 5000
SHOWN = 100  # characters of a line
_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)(?![\w.]*[A-Za-z_])")
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_NAME = re.compile(r"([A-Za-z][\w /-]*?)[\s\"'(\[:=#]*$")


def unread(path: Path, patterns: Sequence[re.Pattern[str]] = ()) -> FormatError:
    """Why nothing of a log was read, as an error to raise: one line of what was seen, one with a pattern to copy."""
    if path.is_dir():
        return FormatError(f"{path}: holds no log in which a step or an evaluation was found")
    if ".tfevents." in path.name:
        return FormatError(f"{path.parent}: its event files hold no scalar")
    try:
        data = beginning(path, LOOKED_AT)
    except OSError as error:
        return FormatError(f"{path}: {error.strerror or error}")
    if b"\0" in data[:4096]:
        return FormatError(f"{path}: not a run log: a binary file")
    lines = [_ESCAPE.sub("", line) for line in re.split(r"[\r\n]+", data.decode("utf-8", "replace")) if line.strip()]
    if not lines:
        return FormatError(f"{path}: the file is empty")
    if patterns:
        return FormatError(_with_patterns(path, lines, patterns))
    alike = most_common_shape(lines)
    if not alike:
        return FormatError(
            f"{path}: not a run log: nothing in it is a step or an evaluation; of {len(lines):,} lines none repeats "
            f"with other numbers, as a training loop's do; the first: {_short(lines[0])}"
        )
    pattern = pattern_for(alike[:50])
    seen = (
        f"{path}: not a run log: nothing in it is a step or an evaluation; "
        f"{len(alike):,} lines look like: {_short(alike[-1])}"
    )
    if pattern is None:
        return FormatError(f"{seen}; name its numbers in a pattern of your own: --pattern 'step (?P<step>\\d+) …'")
    return FormatError(f"{seen}; this reads them, once each group has its right name: --pattern '{pattern}'")


def _with_patterns(path: Path, lines: list[str], patterns: Sequence[re.Pattern[str]]) -> str:
    matched = [line for line in lines if any(pattern.search(line) for pattern in patterns)]
    if not matched:
        candidates = [line for line in lines if _NUMBER.search(line)] or lines
        return f"{path}: --pattern matches none of the first {len(lines):,} lines, such as: {_short(candidates[-1])}"
    rows = [row_of_pattern(match) for line in matched for pattern in patterns if (match := pattern.search(line))]
    if all(row.empty for row in rows):
        return (
            f"{path}: --pattern matches {len(matched):,} lines but gives neither loss nor lr nor an evaluation: "
            f"{_short(matched[0])}"
        )
    return f"{path}: --pattern matches {len(matched):,} lines, none of which is a step: {_short(matched[0])}"


def most_common_shape(lines: Sequence[str]) -> list[str]:
    """The lines of the shape that most share, [] where none repeats; a shape is a line without its numbers."""
    shapes: dict[str, list[str]] = {}
    for line in lines:
        shape, numbers = _NUMBER.subn("#", line) if len(line) <= 2000 else ("", 0)
        if numbers >= 2 and (shape in shapes or len(shapes) < MOST_SHAPES):
            shapes.setdefault(shape, []).append(line)
    repeated = [alike for alike in shapes.values() if len(alike) >= 3]
    # lines that name something known come before those that only repeat more often
    return max(repeated, key=lambda alike: (_knows(alike[0]), len(alike)), default=[])


def _knows(line: str) -> bool:
    return any(role(name).kind not in ("metric", "skip") for name in _names(line) if name)


def _names(line: str) -> list[str]:
    names, at = [], 0
    for number in _NUMBER.finditer(line):
        match = _NAME.search(line[at : number.start()])
        names.append(match[1].strip() if match else "")
        at = number.end()
    return names


def pattern_for(lines: Sequence[str]) -> str | None:
    """A pattern that reads lines of one shape, None where no number can be named. It compiles, and matches each."""
    columns = [list(_NUMBER.finditer(line))[:12] for line in lines]
    groups = _groups(lines, columns)
    named = [i for i, group in enumerate(groups) if group]
    if not named:
        return None
    line, numbers = lines[0], columns[0]
    parts, at = [], max(numbers[named[0]].start() - 24, numbers[named[0] - 1].end() if named[0] else 0)
    for i in range(named[0], named[-1] + 1):
        between = re.escape(line[at : numbers[i].start()]).replace("\\-", "-")
        parts.append(re.sub(r"(?:\\\s|\s)+", lambda _: r"\s+", between))
        group = groups[i]
        whole = group in COUNTERS or (not group and all(column[i][0].isdigit() for column in columns))
        digits = r"\d+" if whole else r"[-+.\deE]+"
        parts.append(f"(?P<{group}>{digits})" if group else digits)
        at = numbers[i].end()
    pattern = "".join(parts).replace("'", ".")
    compiled = compile_patterns([pattern])[0]
    return pattern if all(compiled.search(line) for line in lines) else None


def _groups(lines: Sequence[str], columns: Sequence[list[re.Match[str]]]) -> list[str | None]:
    """Names of the groups: by the word before a number; else the whole number that rises is the step, and of the
    fractions that change the first that does not rise steadily is the loss."""
    groups: list[str | None] = []
    at = 0
    for number in columns[0]:
        match = _NAME.search(lines[0][at : number.start()])
        at = number.end()
        group = _group(match[1].strip()) if match else None
        groups.append(None if group in groups else group)
    free = [i for i, group in enumerate(groups) if group is None]
    values = {i: [float(column[i][0]) for column in columns] for i in free}
    rising = {i for i in free if all(a <= b for a, b in pairwise(values[i])) and values[i][0] < values[i][-1]}
    if not {"step", "epoch", "batch"} & set(groups):
        for i in free:
            if i in rising and columns[0][i][0].isdigit() and _plausible(lines[0], columns[0][i]):
                groups[i] = "step"
                break
    if not {"loss", "lr"} & set(groups):
        fractions = [i for i in free if groups[i] is None and any("." in column[i][0] for column in columns)]
        for i in sorted(fractions, key=lambda i: (i in rising, len(set(values[i])) == 1, i))[:1]:
            groups[i] = "loss"
    results = [group for group in groups if group and group.startswith(("val_", "train_"))]
    return groups if {"loss", "lr", *results} & set(groups) else []


def _plausible(line: str, number: re.Match[str]) -> bool:
    """Not part of a date or a time of day."""
    before, after = line[: number.start()][-1:], line[number.end() :][:1]
    return before not in ("-", ":", "/") and after not in ("-", ":", "/")


def _group(name: str) -> str | None:
    what = role(name)
    if what.kind in GROUPS and what.kind not in ("loss",):
        return what.kind
    if what.kind == "loss" and what.rank <= COMPONENT:
        return "loss" if what.split in (None, "train") else "val_loss"
    if what.split is None and is_metric(what.name):
        what = what._replace(split="val")
    own = re.sub(r"\W+", "_", what.name).strip("_").lower()
    return f"val_{own}" if what.split in ("val", "eval") and own else None


def _short(line: str) -> str:
    line = line.strip()
    return line if len(line) <= SHOWN else line[: SHOWN - 1] + "…"
