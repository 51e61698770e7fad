"""Finds the named numbers and counters of one line of text, in any punctuation.

Each number is named by the text between it and the number before. That text is the same on every line of a kind, so
what it means is looked up; only a new one is taken apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from eegwatch.formats.languages import in_english
from eegwatch.formats.names import COMPONENT, SPLITS, TEST, TRAIN, VAL, Role, is_metric, role
from eegwatch.formats.numerals import number

MOST_NUMBERS = 300  # of a line: beyond, it is an array
KNOWN_LEFTS = 4096
# begins with one digit, so that the search is one for digits; what may stand before it is looked at afterwards
_NUMBER = re.compile(
    r"\d(?:\d{0,2}(?:,\d{3})+(?!\d|,\d)|\d*)(?:\.\d*)?(?:[eE][-+]?\d+)?"
    r"(?:(?:\s?/\s{0,8}|\s+of\s+)(\d+)(?![\w.]))?(%?[A-Za-zµ]*(?:/\w+)?)"
)
_OF = re.compile(r"\s*(?:/|of)\s*\d+$")
_NOT_FINITE = re.compile(r"(?<![\w@.$#])([-+]?(?:nan|inf(?:inity)?)\b)()(%?)", re.IGNORECASE)
_BEFORE = set("@.$#_")
_BAR = re.compile(r"\s*(?:\[(?:[=>.\-]|[\d:?]+<)|[━╸╺])|\s*\|\s*\[?[\d:]+<")
_LETTER = re.compile(r"[^\W\d_]")
# a tag that names a split behind a hyphen: `[Diff-Val(Normal)] Epoch 3: loss = 0.5`
_TAG = re.compile(r"\[\w{1,20}-(train|val|valid|validation|dev|eval|test)\b", re.IGNORECASE)
_SPLIT = re.compile(
    r"(?<![\w./\\\-])"
    r"(train|training|trn|val|valid|validation|validating|dev|eval|evaluation|evaluating|test|testing)"
    r"(?![\w/\\]|\.\w|-\w)",
    re.IGNORECASE,
)
_OPENED = re.compile(r"[\s\"'(\[{#*~≈$]*$")
_BRACKETED = re.compile(r"\s*\([^()]{0,40}\)$")
_CUT = re.compile(r"[,;|<>(){}\[\]\t\n\"'!?•→]|\s{2,}|\s[-–—]+\s|=+>?\s*|:+\s*")
_IDENTIFIER = re.compile(r"[^\W\d][\w@/.\-+%]{0,39}$")
_DROPPED = {
    "info", "debug", "warning", "root", "rank", "main", "at", "the", "current", "this", "and", "with", "after",
    "in", "on", "for", "by", "epoch", "step", "iter", "iteration", "batch", "training", "train", "s", "is",
    "mean", "now", "a", "end", "finished", "done", "results", "result", "val", "validation", "test", "eval",
    "stats", "metrics", "status",
}  # fmt: skip
_TRAILING = {"is", "was", "at", "of", "to", "are", "reached", "~"}
_NO_COUNT = {
    "number", "of", "skipped", "nan", "per", "last", "best", "saved", "every", "max", "total", "num", "from", "resume",
    "resuming", "start", "starting", "until", "after", "remaining", "warmup", "save", "log", "accumulation", "patience",
    "each", "early", "next", "previous", "loaded", "elapsed", "time",
}  # fmt: skip
# units of what is not counted in steps or shares: durations, sizes, rates
_PLAIN_UNITS = {"", "%"}
_ORDINALS = {"st", "nd", "rd", "th"}
_NO_NAME = Role("skip", None, "")


@dataclass(slots=True)
class _Left:
    """The meaning of the text before a number."""

    role: Role
    split: str | None  # a word of its own that names a split: it holds for what follows on the line
    named: bool  # with a ":" or "=" between
    letters: bool
    opened: bool
    sure: bool  # a counter, rate or loss, or a metric that people measure
    trained: bool


@dataclass(slots=True)
class LineValues:
    """The numbers of a line. `outer`, `inner`: `Train: [3/50][10/200]`; `bar`: `inner` is of a progress bar."""

    values: list[tuple[Role, float, int | None]] = field(default_factory=list)
    lists: dict[str, list[float]] = field(default_factory=dict)
    outer: tuple[float, int | None] | None = None
    inner: tuple[float, int | None] | None = None
    bar: bool = False
    trained: bool = False
    splits: bool = False
    loss_first: bool = False


def numbers(line: str) -> Iterator[tuple[int, int, str, str | None, str]]:
    """(begin, end with unit, number, of how many, unit) of each number that is not part of a word."""
    digits = _digits(line)
    if "an" in line or "AN" in line or "nf" in line or "NF" in line:
        others = [(m.start(), m.end(), m[1], None, m[3]) for m in _NOT_FINITE.finditer(line)]
        if others:
            yield from sorted([*digits, *others])
            return
    yield from digits


def _digits(line: str) -> Iterator[tuple[int, int, str, str | None, str]]:
    for match in _NUMBER.finditer(line):
        begin, end = match.span()
        of, unit = match[1], match[2]
        text = line[begin : match.start(2)] if unit else match[0]
        if of is not None:
            text = line[begin : begin + len(text) - len(_OF.search(text)[0])]  # type: ignore[index]
        before = line[begin - 1 : begin]
        if before == "." and not _wordlike(line[begin - 2 : begin - 1]):
            begin, text = begin - 1, "." + text
            before = line[begin - 1 : begin]
        if before in ("-", "+") and before:
            ahead = line[begin - 2 : begin - 1]
            if _wordlike(ahead):
                continue
            begin, text = begin - 1, before + text
        elif _wordlike(before):
            continue
        yield begin, end, text, of, unit


def _wordlike(mark: str) -> bool:
    return mark.isalnum() or mark in _BEFORE if mark else False


class Scanner:
    """Scans lines; it keeps what it has learned of the texts between numbers."""

    def __init__(self) -> None:
        self._lefts: dict[str, _Left] = {}

    def scan(self, line: str) -> LineValues | None:
        """None for a line that names nothing known."""
        scan = _Scan(line)
        at = 0
        for count, (begin, end, text, of, unit) in enumerate(numbers(line), 1):
            if count > MOST_NUMBERS:
                break
            left = line[at:begin]
            at = end
            what = self._lefts.get(left) or self._learn(left)
            if line[at : at + 1] == ":" and line[at + 1 : at + 2].isdigit():
                continue  # a time of day or a duration
            if what.split is not None:
                scan.begin_split(what)
            if what.letters:
                scan.named(what, left, at, text, of, unit)
            else:
                scan.unnamed(what, left, at, text, of, unit)
        found = scan.found
        if not scan.known or (not found.values and found.inner is None):
            return None
        return found

    def _learn(self, left: str) -> _Left:
        if len(self._lefts) >= KNOWN_LEFTS:
            self._lefts.clear()
        what = self._lefts[left] = _read(in_english(left[-300:]))
        return what


class _Scan:
    """One line while its numbers are taken in their order."""

    __slots__ = ("_last_list", "_line", "_split", "found", "known")

    def __init__(self, line: str) -> None:
        self.found = LineValues()
        self.known = False  # a counter, a rate, a loss or a metric that people measure was named
        self._line = line
        self._split: str | None = None
        self._last_list: list[float] | None = None  # `lr: [1e-3, 1e-4`: what further rates are appended to

    def begin_split(self, what: _Left) -> None:
        """A word of its own names a split: it holds for what follows on the line."""
        self._split = what.split
        self.found.trained = self.found.trained or what.trained
        self.found.splits = True

    def unnamed(self, what: _Left, left: str, at: int, text: str, of: str | None, unit: str) -> None:
        """A number after punctuation alone: one more of a list, or a position `[10/200]`."""
        found = self.found
        if self._last_list is not None and not unit and left.strip() in (",", ""):
            self._last_list.append(_value(text))
            return
        self._last_list = None
        if of is not None and found.inner is None and not unit:
            found.inner = (_value(text), _total(of))
            found.bar = bool(_BAR.match(self._line, at)) or "%|" in left
            self.known = self.known or found.bar or found.outer is not None
        elif what.opened and found.outer is not None and found.inner is None and not unit and text.isdigit():
            found.inner = (_value(text), None)

    def named(self, what: _Left, left: str, at: int, text: str, of: str | None, unit: str) -> None:
        """A number after a name: a counter, a rate, a loss or a metric; others are passed over."""
        self._last_list = None
        role_ = what.role
        if role_.kind == "skip" or (unit not in _PLAIN_UNITS and not (unit in _ORDINALS and role_.kind == "step")):
            return
        if unit == "%" and self._line[at : at + 1] == "|":
            return  # the share that a bar shows
        if self._counter(role_, _value(text), _total(of)):
            return
        if not what.sure and not (self.known and (what.named or _IDENTIFIER.match(role_.name))):
            return
        if role_.kind == "lr":
            self._rate(role_, _value(text), opens_list=what.opened and left.rstrip().endswith("["))
        else:
            self._measured(role_, _value(text), sure=what.sure, fraction=of is not None)

    def _counter(self, role_: Role, value: float, total: int | None) -> bool:
        """Take a step, an epoch or a batch; False for another role."""
        found = self.found
        if role_.kind == "outer":
            found.outer = (value, total)
            return True
        if role_.kind == "epochs" and total is not None:
            role_ = role_._replace(kind="epoch")  # `Epochs: 3/50`
        if role_.kind not in ("step", "epoch", "batch", "steps", "epochs"):
            return False
        found.values.append((role_, value, total))
        self.known = True
        if role_.kind == "epoch":
            found.outer = found.outer or (value, total)
        return True

    def _rate(self, role_: Role, value: float, *, opens_list: bool) -> None:
        if opens_list:
            self._last_list = self.found.lists.setdefault(role_.name, [value])
        self.found.values.append((role_, value, None))
        self.known = True

    def _measured(self, role_: Role, value: float, *, sure: bool, fraction: bool) -> None:
        """A loss or a metric."""
        found = self.found
        if role_.split is None and self._split is not None:
            role_ = role_._replace(split=self._split)
        if not found.values and role_.kind == "loss":
            found.loss_first = role_.split in (None, TRAIN)
        if fraction and role_.kind == "metric":
            return  # `Hits: 3/10`
        self.known = self.known or sure
        found.trained = found.trained or role_.split == TRAIN
        found.values.append((role_, value, None))


def _value(text: str) -> float:
    try:
        return float(text)
    except ValueError:  # 1,000
        return number(text) or 0.0


def _total(of: str | None) -> int | None:
    """The 200 of `3/200`; None for more digits than a count has."""
    return int(of) if of is not None and len(of) < 16 else None


def _read(left: str) -> _Left:
    marks = [mark[1].lower() for mark in _SPLIT.finditer(left)] or [mark[1].lower() for mark in _TAG.finditer(left)]
    split = SPLITS[marks[-1]] if marks else None
    opened = _OPENED.search(left)
    assert opened is not None
    body = left[: opened.start()]
    brackets = opened[0].strip(" \t\"'")
    named = body[-1:] in (":", "=", "→")
    if named:
        body = body[:-1].rstrip(" :=\"'")
    letters = bool(_LETTER.search(left))
    trained = split == TRAIN
    if not letters:
        return _Left(_NO_NAME, split, named, False, bool(brackets), False, trained)
    body = _BRACKETED.sub("", body)
    piece = _CUT.split(body)[-1].strip(" -–.*#~%/\\\"'")
    role_ = _named(piece, named)
    if role_ is None:
        return _Left(_NO_NAME, split, named, bool(_LETTER.search(body)), bool(brackets), False, trained)
    if role_.split is not None and marks and split in (VAL, TEST, TRAIN):
        split = role_.split
    sure = role_.kind != "metric" or is_metric(role_.name)
    return _Left(role_, split, named, True, bool(brackets), sure, trained)


def _named(piece: str, named: bool) -> Role | None:
    words = piece.split()
    while words and words[-1].lower() in _TRAILING:
        words.pop()
    if not words or words[-1].endswith((".py", ".cc", ".cpp", ".cu")):
        return None
    if words[-1].lower() in ("train", "training") and _may_drop(words[:-1]):
        return Role("outer", TRAIN, "train")
    for begin in range(max(len(words) - 4, 0), len(words)):
        candidate = role(" ".join(words[begin:]))
        if candidate.kind in ("step", "epoch", "batch"):
            if not {word.lower().strip(".:") for word in words[max(begin - 3, 0) : begin]} & _NO_COUNT:
                return candidate
            return _NO_NAME
        component = candidate.kind == "loss" and candidate.rank >= COMPONENT
        if candidate.kind != "metric" and not component and (begin == 0 or _may_drop(words[:begin])):
            return candidate
    whole = role(" ".join(words[-4:]))
    if whole.kind == "loss":
        return whole
    for begin in range(max(len(words) - 3, 0), len(words)):
        own = " ".join(words[begin:])
        if is_metric(own) and (begin == len(words) - 1 or _may_drop(words[:begin]) or begin == 0):
            return role(own)
    if named and len(piece) <= 40:
        return role(" ".join(words[-3:]))
    return role(words[-1]) if _IDENTIFIER.match(words[-1]) else None


def _may_drop(words: list[str]) -> bool:
    return all(word.lower().strip("[]().:-*#>=") in _DROPPED or not word[:1].isalpha() for word in words)
