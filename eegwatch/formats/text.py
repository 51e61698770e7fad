"""Plain text logs: finds counters and named numbers in a line, in any order and punctuation.

    name: value   name=value   name value   name=[a, b]   'name': value   Epoch [3][10/200]   10/200 [00:05<01:30
    {"json": 1} or {'python': 1} inside a line            Train Loss 0.5, Val Loss 0.6 on one line

A carriage return ends a line as well: a progress bar is its last state. Where that is not enough, a pattern of the
user's with named groups is tried first. Kinds whose lines need their own reading stand in `eegwatch.formats.lines`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from typing import Protocol

from eegwatch.formats.counters import Counters
from eegwatch.formats.csv_json import flat, lists_of, split_of
from eegwatch.formats.languages import foreign, in_english
from eegwatch.formats.line_scanner import LineValues, Scanner
from eegwatch.formats.names import TEST, TRAIN, VAL, is_metric
from eegwatch.formats.numerals import embedded, number
from eegwatch.formats.patterns import row_of_pattern
from eegwatch.formats.progress_bars import RICH, Bars
from eegwatch.formats.row_reader import RowReader
from eegwatch.formats.rows import Row, RowMaker
from eegwatch.run.records import RunRecord

PROSE = 300  # characters of a line from which on it may be an article's, of a data set that was printed
LONGEST = 20_000  # characters of a line that is searched for named numbers: a longer one is a dump of something
_TIME = re.compile(r"\[?(\d{4})[-/](\d\d)[-/](\d\d)[T _](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,6}))?(?:Z|[+-]\d\d:?\d\d)?\]?")
_CLOCK = re.compile(r"\d\d:\d\d")
_TIME_OF_DAY = re.compile(
    r"\[?\b(?:\d\d[/-]\d\d(?:[/-]\d\d(?:\d\d)?)?[ T])?\d\d:\d\d:\d\d(?:[.,]\d+)?(?: [\w.:]+)?\]?:?"
)
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x08]+")
_BEST = re.compile(
    r"^(?:\W*(?:epoch|step|iter(?:ation)?)\W{0,3}\d+(?:/\d+)?)?[^\d]*\b(?:best|lowest|highest)\b"
    r"|^\W*(?:max(?:imum)?|min(?:imum)?)\b",
    re.IGNORECASE,
)
_HEADING = re.compile(
    r"\b(val|valid|validation|validating|eval|evaluate|evaluation|evaluating|dev|test|testing)\b", re.IGNORECASE
)
_TRAINING = re.compile(r"\b(train|training)\b", re.IGNORECASE)
_LOSSES = re.compile(r"\bloss(?:es)?\W*$", re.IGNORECASE)
_SHORT_EPOCH = re.compile(r"^\s*[\[(]?[Ee]p?\s?(\d{1,7})(?:/(\d{1,7}))?[\])/:|,\s]")  # `[E3] step 10 loss 0.5`
_SETTING = re.compile(r"^\W*(?:\w+_)?(?:steps|iters|iterations|max_iter|epochs|batches)\s*[:=]", re.IGNORECASE)
_DIGIT = re.compile(r"\d|[Nn]a[Nn]|[Ii]nf|NAN|INF")


class LineKind(Protocol):
    """One kind of line, of one framework: what it takes no other reader need look at."""

    name: str

    @property
    def marks(self) -> tuple[str, ...]:
        """A line that holds none of these is not of this kind."""
        ...

    @property
    def active(self) -> bool:
        """Does it want every line, whatever its marks: it is in the middle of a table?"""
        ...

    def take(self, line: str, reader: RowReader) -> list[Row] | None:
        """The rows of a line of this kind, [] for one of its that holds none, None for another's."""
        ...


class TextDecoder:
    """Lines to records; `bad` stays 0: a text log may hold anything. `clock`: the time of lines that name none."""

    bad = 0

    def __init__(
        self,
        reader: RowReader,
        clock: Callable[[], float],
        patterns: Sequence[re.Pattern[str]] = (),
        kinds: Sequence[LineKind] = (),
    ) -> None:
        self.reader, self.clock, self.patterns, self.kinds = reader, clock, patterns, kinds
        self.scanner = Scanner()
        self.maker = RowMaker()
        self._named_losses = RowMaker()
        self._trained_epoch: float | None = None  # of the last training record
        self.bars = Bars()
        self._context: str | None = None  # a heading said that what follows is an evaluation
        self._heading_left = 0
        self._position: Counters | None = None
        self._position_left = 0
        self._marks = tuple(dict.fromkeys(mark for kind in kinds for mark in kind.marks))
        self._active = False
        self._hour, self._hour_begins = "", 0.0
        self._clock = 0.0  # the newest time that a line has named
        self._epoch_rate: tuple[float, float] | None = None

    def decode(self, data: bytes) -> list[RunRecord]:
        records: list[RunRecord] = []
        now = self.clock()
        for line in re.split(r"[\r\n]+", data.decode("utf-8", "replace")):
            if line and not line.isspace():
                records += self.line(line, now)
        return records

    def drain(self) -> list[RunRecord]:
        """At the end of the file: what a kind of line holds back until it knows the step."""
        records: list[RunRecord] = []
        for kind in self.kinds:
            for row in kind.drain(self.reader) if hasattr(kind, "drain") else ():
                records += self.reader.add(row, self.clock())
        return records

    def line(self, line: str, now: float) -> list[RunRecord]:
        """Records that a line completes."""
        line = _ESCAPE.sub("", line) if "\x1b" in line or "\x08" in line else line
        clock = _CLOCK.search(line, 0, 200)
        when = _TIME.search(line, 0, 200) if clock else None
        if when:
            self._clock = self._timestamp(when)
        time = self._clock or now  # a line without a time is as old as the last one with a time
        records: list[RunRecord] = []
        for row in self.rows(line, when, clock is not None):
            records += self.reader.add(row, time)
        return records

    def _timestamp(self, m: re.Match[str]) -> float:
        """Local time. The hour is looked up once: daylight saving begins and ends at one."""
        hour = m.string[m.start(1) : m.end(4)]
        if hour != self._hour:
            try:
                begin = datetime.datetime(int(m[1]), int(m[2]), int(m[3]), int(m[4])).timestamp()
            except (ValueError, OverflowError, OSError):
                begin = 0.0
            self._hour, self._hour_begins = hour, begin
        if not self._hour_begins:
            return 0.0
        part = float(f"0.{m[7]}") if m[7] else 0.0
        return self._hour_begins + int(m[5]) * 60 + int(m[6]) + part

    def rows(self, line: str, when: re.Match[str] | None = None, clock: bool = True) -> list[Row]:
        for pattern in self.patterns:
            match = pattern.search(line)
            if match:
                return [row_of_pattern(match)]
        bare = line
        if when:
            bare = line[: when.start()] + " " + line[when.end() :]
        elif clock and (of_day := _TIME_OF_DAY.search(line, 0, 40)) is not None:
            bare = line[: of_day.start()] + " " + line[of_day.end() :]
        if foreign(bare):
            bare = in_english(bare)
        if bare.startswith("wandb:"):
            return []  # its summary repeats the last values
        self._position_left -= 1
        if self._position_left <= 0:
            self._position = None
        if self._active or any_in(self._marks, bare):
            for kind in self.kinds:
                rows = kind.take(bare, self.reader)
                if rows is not None:
                    self._active = any(kind.active for kind in self.kinds)
                    return rows
            self._active = any(kind.active for kind in self.kinds)
        if "{" in bare and (inside := embedded(bare)) is not None:
            row = self._object(*inside)
            if row is not None:
                return [row]
        if len(bare) > LONGEST or not _DIGIT.search(bare) or "Namespace(" in bare or bare.count(" --") > 1:
            self._heading(bare)
            return []
        return self._scanned(bare)

    def _heading(self, line: str) -> None:
        """A line without numbers may head those of an evaluation: `***** Running Evaluation *****`, `Test results:`."""
        if len(line) > 200:
            return
        if (match := _HEADING.search(line)) is not None:
            self._context = TEST if match[1].lower().startswith("test") else VAL
            self._heading_left, self._position = 40, None
        elif _TRAINING.search(line):
            self._context = None

    def _object(self, before: str, inside: dict[str, object]) -> Row | None:
        """A JSON object or Python dict inside a line."""
        split = split_of(inside)
        if (
            split is None
            and (match := _HEADING.search(before[-60:])) is not None
            and not _TRAINING.search(before[-60:])
        ):
            split = TEST if match[1].lower().startswith("test") else VAL
        values, maker = list(flat(inside)), self.maker
        if _LOSSES.search(before):
            # spaCy: `Losses {'ner': 12.3}`
            values, maker = [(f"{name} loss", value, of) for name, value, of in values], self._named_losses
        row = maker.row(values, split or None, lists_of(inside))
        _only_results(row)
        if row.at.step is None and row.at.epoch is None and row.at.batch is None:
            if not row.evals and self._context and not {"loss", "lr"} & set(row.train):
                if not any(is_metric(name) for name in row.train):
                    return None
                row.evals, row.train = {self._context: row.train}, {}
            elif "loss" not in row.train or row.settings:
                row.train.clear()
        return None if row.empty else row

    def _scanned(self, line: str) -> list[Row]:
        if len(line) > PROSE and _is_prose(line):
            return []
        line_values = self.scanner.scan(line)
        if line_values is None:
            self._heading(line)
            return []
        row = self._row(line_values, line)
        return [] if row is None else [row]

    def _row(self, line_values: LineValues, line: str) -> Row | None:
        if line_values.bar and line_values.inner is not None:
            self._as_the_bar(line_values, line_values.inner[0])
        row = self.maker.build(line_values.values, None, line_values.lists)
        bar = row.bar = line_values.bar or any_in(RICH, line)
        if bar and line_values.inner is not None and self.bars.old(line, *line_values.inner, row.train):
            row.train.clear()
        at = row.at
        if line_values.outer is not None and at.epoch is None and line_values.inner is not None:
            at.epoch, at.epochs = line_values.outer[0], line_values.outer[1] or at.epochs
        if (
            at.epoch is None
            and line[:3].lstrip(" \t[(")[:1] in ("E", "e")
            and (short := _SHORT_EPOCH.match(line)) is not None
        ):
            at.epoch, at.epochs = float(short[1]), int(short[2]) if short[2] else at.epochs
        self._inner(line_values, at)
        self._stand(row, line)
        if line_values.splits and at.step is None and at.batch is None and not line_values.inner:
            self._context, self._heading_left = None, 0
        if ("est" in line or line.lstrip()[:1] in ("M", "m")) and _BEST.match(line[:120]):
            return None
        if not {"loss", "lr"} & set(row.train):
            if line_values.bar and row.at.epoch is None:
                row.train.clear()  # of a bar that only scans or evaluates
            known = [name for name in row.train if is_metric(name) or name == "grad_norm"]
            if not known:
                row.train.clear()
        _only_results(row)
        if row.train and not row.evals:
            return self._train_row(line_values, row, line)
        if not row.evals and not row.train:
            self._heading(line)
        return row

    def _stand(self, row: Row, line: str) -> None:
        """A line with a counter is where the values of the lines that follow belong, for a few lines."""
        at = row.at
        if row.evals:
            self._position = None
        elif (at.step is not None or at.batch is not None) and (row.train or not _SETTING.match(line)):
            self._position, self._position_left = Counters(**vars(at)), 12
        elif at.epoch is not None:
            self._position = None

    @staticmethod
    def _as_the_bar(line_values: LineValues, count: float) -> None:
        """Of several counters (`[step=105] … global_step=2822`) the one that the bar counts too."""
        steps = [one for one in line_values.values if one[0].kind == "step"]
        if len(steps) > 1 and (same := [one for one in steps if abs(one[1] - count) <= 1]):
            line_values.values = [one for one in line_values.values if one[0].kind != "step" or one is same[0]]

    def _inner(self, line_values: LineValues, at: Counters) -> None:
        """A bare `i/n`: of a bar, or in brackets after the epoch."""
        if line_values.inner is None:
            return
        count, of = line_values.inner
        if line_values.bar or at.epoch is not None or self.reader.counter.epoch is not None:
            if at.batch is None and at.step is None:
                at.batch, at.batches = count, of
        elif at.step is None and at.batch is None and of:
            at.step, at.steps = count, of

    def _train_row(self, line_values: LineValues, row: Row, line: str) -> Row | None:
        """A training record, unless what it holds belongs to the evaluation that a heading announced."""
        at = row.at
        counted = at.step is not None or at.batch is not None or at.epoch is not None
        if row.settings > 1 or (row.settings and at.step is None and at.batch is None):
            return None
        if not counted and self._position is not None and not (line_values.splits and not line_values.trained):
            row.at = self._position  # `iter 10` on the line before
            return row
        again = at.epoch is not None and at.step is None and at.batch is None and at.epoch == self._trained_epoch
        if (again or not counted) and self._context is not None and self._heading_left > 0 and "lr" not in row.train:
            values = {name: value for name, value in row.train.items() if name == "loss" or is_metric(name)}
            if not line_values.trained and values:
                self._heading_left -= 1
                row.evals, row.train = {self._context: values}, {}
                return row
        if counted or line_values.trained:
            self._context = None
        alone = "lr" in row.train and "loss" not in row.train
        if counted and not (alone and at.step is None and at.batch is None):
            self._rate_of_epoch(row)
            self._trained_epoch = at.epoch
            return row
        if counted and at.epoch is not None:
            self._epoch_rate = (at.epoch, row.train["lr"])  # `Epoch 3: lr=0.001`: of the losses that follow
            return None
        if "loss" not in row.train:
            return None  # "LR: 0.003" in a banner, "accuracy 0.9" in prose
        if row.lone:
            return None
        if (
            "lr" in row.train
            or line_values.loss_first
            or (self.reader.counter.epoch is not None and line_values.trained)
        ):
            return row
        return None

    def _rate_of_epoch(self, row: Row) -> None:
        """The rate that stood on a line of its own, where epochs are what is counted."""
        if self._epoch_rate is None or "lr" in row.train or self.reader.counter.unit not in (None, "epoch"):
            return
        if row.at.step is None and row.at.batch is None and row.at.epoch == self._epoch_rate[0] and "loss" in row.train:
            row.train["lr"] = self._epoch_rate[1]


def _only_results(row: Row) -> None:
    """Numbers of which none is a result (`eval_batch_size: 6`) are not an evaluation."""
    for split in list(row.evals):
        if "loss" not in row.evals[split] and not any(is_metric(name) for name in row.evals[split]):
            del row.evals[split]


def _is_prose(line: str) -> bool:
    """More than twenty words a number: no line of a log, which names each of its numbers in a few."""
    words = line.split()
    return len(words) > 20 * sum(not word.isalpha() and bool(_DIGIT.search(word)) for word in words)


def any_in(marks: tuple[str, ...], line: str) -> bool:
    for mark in marks:  # noqa: SIM110  a third of the time of any(), and it is asked of each line
        if mark in line:
            return True
    return False


__all__ = ["TRAIN", "LineKind", "TextDecoder", "number"]
